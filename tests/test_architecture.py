"""The house keeps its rooms: who may import whom, and that the daemon never loads torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "daemon", "overlay", "learner")
# What the other rooms may use of the learner: modules that are free of torch.
LEARNER_CONTRACT = {
    "learner.job", "learner.job_file", "learner.schema", "learner.edges", "learner.network_file",
    "learner.messages", "learner.channel", "learner.partition_checks", "learner.tolerance",
    "learner.attacks.names",
}  # fmt: skip
# The laboratory computes its mixing graphs by the overlay's pure functions
# (docs/decisions/010-the-laboratory.md).
MEETING_PLACE = "learner/lab/weights.py"
PURE_GRAPHS = {
    "overlay.mixing_matrix", "overlay.records", "overlay.rings", "overlay.topology",
}  # fmt: skip
FORBIDDEN = {
    "overlay": ("cli", "daemon", "learner", "torch", "torchvision"),
    "learner": ("cli", "daemon", "overlay", "trio", "trio_websocket", "hypercorn"),
    "daemon": ("cli", "torch", "torchvision"),
    "cli": ("torch", "torchvision"),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room):
    offences = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in sorted(imports(path))
        if name.split(".")[0] in FORBIDDEN[room]
        and not (path == ROOT / MEETING_PLACE and ".".join(name.split(".")[:2]) in PURE_GRAPHS)
    ]
    assert offences == []


@pytest.mark.parametrize("room", ["cli", "daemon"])
def test_only_the_torch_free_contract_of_the_learner_is_used(room):
    offences = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in sorted(imports(path))
        if name.startswith("learner.") and not LEARNER_CONTRACT & {name, name.rpartition(".")[0]}
    ]
    assert offences == []


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    import json

    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_daemon_process_imports_neither_torch_nor_numpy():
    heavy = ("torch", "torchvision", "numpy", "networkx")
    modules = loaded_by("import cli.gossipd, daemon.node, daemon.methods, daemon.session")
    assert not {name for name in modules if name.split(".")[0] in heavy}


def test_gossipctl_imports_neither_trio_nor_torch():
    modules = loaded_by("import cli.gossipctl, cli.follow; cli.gossipctl.parser()")
    assert not {name for name in modules if name.split(".")[0] in ("trio", "torch", "numpy")}


def test_every_module_opens_by_saying_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for room in (*ROOMS, "benchmarks")
        for path in sorted((ROOT / room).rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_documentation_names_every_method_and_every_event():
    text = (ROOT / "docs" / "control-api.md").read_text()
    source = "\n".join(path.read_text() for path in sorted((ROOT / "daemon").glob("*.py")))
    source += "\n".join(path.read_text() for path in sorted((ROOT / "overlay").glob("*.py")))
    names = r'^        "([a-z]+\.[a-z]+)": \('
    methods = set(re.findall(names, source, re.MULTILINE))
    assert len(methods) == 26
    assert {name for name in methods if f"`{name}`" not in text} == set()
    reported = set(re.findall(r'(?:report|events\.add)\(\s*"([a-z]+\.[a-z_]+)"', source))
    assert len(reported) >= 15
    written = {
        f"{kind}.{word}"
        for kind, words in re.findall(r"`([a-z]+)\.([a-z_/]+)`", text)
        for word in words.split("/")
    }
    assert reported - written == set()
