# One command each: `make demo` shows it, `make test` checks everything.
# PIP_ARGS is handed to pip, for an index of one's own or a CPU-only build of torch (see README).

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python $(NEW_ENOUGH) 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The tests start a hundred daemons: none of them should have to compile itself.
unexport PYTHONDONTWRITEBYTECODE

# Real daemons whose deaths are timed have the machine to themselves.
BY_THE_CLOCK := tests/system/test_chaos.py

.PHONY: demo test check-python clean

demo: $(INSTALLED)
	$(BIN)/gossipd demo

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --ignore tests/system
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/system $(BY_THE_CLOCK:%=--ignore %)
	$(BIN)/python -m pytest $(BY_THE_CLOCK)

$(INSTALLED): pyproject.toml | check-python
	@echo "installing into $(VENV): a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(INSTALLED)

check-python:
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) || \
	{ echo "gossipd needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
