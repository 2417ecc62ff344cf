"""Where a peer's configuration comes from: file, environment and flags become one checked Config.

Precedence: flag > GOSSIPD_* variable > file > default. Every mistake in any of them is reported at
once, each with where it was found.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.config_checks import check_one, check_together
from daemon.paths import default_config_file
from learner.schema import Problem, SchemaError, parse, suggestion


def load_config(
    file: Path | None, *, flags: Mapping[str, Any], environ: Mapping[str, str]
) -> Config:
    """The configuration from all its sources.

    `file` None: $GOSSIPD_CONFIG, or the default file if it exists. `flags` are dotted keys
    ('overlay.listen'). Raises SchemaError with every problem of every source.
    """
    problems: list[Problem] = []
    path = file or (Path(environ["GOSSIPD_CONFIG"]) if "GOSSIPD_CONFIG" in environ else None)
    if path is None and default_config_file().exists():
        path = default_config_file()
    layers = [
        (str(path), _read_file(path, problems)) if path is not None else ("", {}),
        ("environment", _read_environ(environ, problems)),
        ("command line", _nested(flags)),
    ]
    for source, table in layers:
        try:
            parse(Config, table, source=source, check=check_one)
        except SchemaError as error:
            problems += error.problems
    if problems:
        raise SchemaError(problems)
    merged: dict[str, Any] = {}
    for _, table in layers:
        _overlay(merged, table)
    return parse(Config, merged, source="configuration", check=check_together)


def _read_file(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        hint = f"write one with: gossipd init {path}"
        problems.append(Problem(str(path), "", "there is no such file", hint))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error}"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), "", f"is not valid TOML: {error}"))
    return {}


def _read_environ(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    """GOSSIPD_<SECTION>_<KEY>, and the short GOSSIPD_DATA_DIR, GOSSIPD_NAME, GOSSIPD_LISTEN."""
    known = {
        f"GOSSIPD_{part.name}_{key.name}".upper(): (part.name, key)
        for part in fields(Config)
        for key in fields(part.default_factory)  # type: ignore[arg-type]
    }
    short = {
        "GOSSIPD_DATA_DIR": "GOSSIPD_NODE_DATA_DIR",
        "GOSSIPD_NAME": "GOSSIPD_NODE_NAME",
        "GOSSIPD_LISTEN": "GOSSIPD_OVERLAY_LISTEN",
        "GOSSIPD_SOCKET": "GOSSIPD_CONTROL_SOCKET",
    }
    # Read by gossipctl and by load_config itself.
    others = {
        "GOSSIPD_CONFIG", "GOSSIPD_URL", "GOSSIPD_TOKEN_FILE", "GOSSIPD_CA_FILE", "GOSSIPD_TIMEOUT",
    }  # fmt: skip
    table: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith("GOSSIPD_") or name in others:
            continue
        if short.get(name, name) not in known:
            hint = suggestion(name, [*known, *short])
            problems.append(Problem("environment", name, "unknown variable", hint))
            continue
        part, key = known[short.get(name, name)]
        table.setdefault(part, {})[key.name] = _from_text(text, str(key.type))
    return table


def _from_text(text: str, hint: str) -> Any:
    if hint == "str":
        return text
    if hint.startswith("tuple"):
        return [item for item in re.split(r"[,\s]+", text) if item]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for dotted, value in flags.items():
        part, _, key = dotted.partition(".")
        table.setdefault(part, {})[key] = value
    return table


def _overlay(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict):
            _overlay(base.setdefault(key, {}), value)
        else:
            base[key] = value
