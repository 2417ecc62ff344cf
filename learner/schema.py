"""Strict tables: TOML (or JSON) in, frozen dataclasses out, and every mistake reported at once.

Rules kept here:
- the dataclass is the schema: types, defaults, choices and bounds are read from its fields;
- an unknown key, a wrong type and a value out of bounds are all collected, never raised one by one;
- each problem says which file, which key, what is wrong, and what would be right.

No torch, no I/O.
"""

from __future__ import annotations

import dataclasses
import difflib
import textwrap
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration or job: where it is, what is wrong, what would be right."""

    source: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class SchemaError(ValueError):
    """A table that does not fit its schema; `problems` holds every mistake found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A documented dataclass field: `help` is shown by `gossipd init` and the docs.

    `choices` limits a string; `minimum` and `maximum` bound a number (both inclusive).
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type[T]) -> T:
    """A field that is a table of its own, by default with all of that table's defaults."""
    return dataclasses.field(default_factory=cls)


def parse(
    cls: type[T],
    table: dict[str, Any],
    *,
    source: str,
    check: Callable[[T, str], list[Problem]] | None = None,
) -> T:
    """Build `cls` from `table`.

    `check(value, source)` finds what single fields cannot show; it runs even when fields were
    wrong (their defaults stand in), so that everything is reported at once. Raises SchemaError
    with every problem found; `source` names the file in each of them.
    """
    problems: list[Problem] = []
    value = _parse_table(cls, table, source, "", problems)
    if check is not None:
        problems += check(value, source)
    if problems:
        raise SchemaError(problems)
    return value


def as_table(value: Any) -> dict[str, Any]:
    """The plain table (dicts, lists, numbers, strings) that `parse` reads back to `value`."""
    table = dataclasses.asdict(value)
    return {key: list(item) if isinstance(item, tuple) else item for key, item in table.items()}


def suggestion(word: str, known: typing.Iterable[str]) -> str:
    """'did you mean …?' for the nearest known word, or the list of them all."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def commented_toml(cls: type[Any], *, heading: str) -> str:
    """A TOML text with every key of `cls` commented out at its default, its help above it."""
    lines = [f"# {line}" for line in heading.splitlines()]
    plain = [f for f in dataclasses.fields(cls) if not _is_section(cls, f)]
    for field in plain:
        lines += ["", *_commented_key(field)]
    for field in dataclasses.fields(cls):
        if _is_section(cls, field):
            inner = _hints(cls)[field.name]
            lines += ["", f"[{field.name}]"]
            for key in dataclasses.fields(inner):
                lines += [*_commented_key(key)]
    return "\n".join(lines) + "\n"


def _commented_key(field: dataclasses.Field[Any]) -> list[str]:
    notes = [field.metadata.get("help", "")]
    if field.metadata.get("choices"):
        notes.append("one of: " + ", ".join(field.metadata["choices"]))
    lines = [line for note in notes for line in textwrap.wrap(note, 96)]
    return [*(f"# {line}" for line in lines), f"# {field.name} = {_toml(_default(field))}"]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_section(cls: type[Any], field: dataclasses.Field[Any]) -> bool:
    return dataclasses.is_dataclass(_hints(cls)[field.name])


def _parse_table(
    cls: type[T], table: dict[str, Any], source: str, prefix: str, problems: list[Problem]
) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, raw in table.items():
        name = f"{prefix}{key}"
        if key not in fields:
            problems.append(Problem(source, name, "unknown key", suggestion(key, fields)))
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(raw, dict):
                inner = typing.cast("type[Any]", hints[key])
                values[key] = _parse_table(inner, raw, source, f"{name}.", problems)
            else:
                problems.append(Problem(source, name, "must be a table", f"write [{name}]"))
        else:
            before = len(problems)
            value = _convert(hints[key], raw, source, name, problems)
            if len(problems) == before:
                _check_bounds(fields[key], value, source, name, problems)
                values[key] = value
    missing = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    for name in missing:
        if name not in table:
            problems.append(Problem(source, f"{prefix}{name}", "is required"))
            values.setdefault(name, None)
    return cls(**values)


def _convert(hint: Any, raw: Any, source: str, name: str, problems: list[Problem]) -> Any:
    """`raw` as the type `hint` says, or a problem. Integers pass for floats, never the reverse."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None and type(None) in get_args(hint):
            return None
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return _convert(inner, raw, source, name, problems)
    if origin is tuple:
        if not isinstance(raw, (list, tuple)):
            problems.append(Problem(source, name, f"must be a list, not {raw!r}"))
            return ()
        inner = get_args(hint)[0]
        return tuple(
            _convert(inner, item, source, f"{name}[{i}]", problems) for i, item in enumerate(raw)
        )
    if origin is dict:
        hint = dict
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if type(raw) is not hint:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        wanted = words.get(hint, "a table")
        problems.append(Problem(source, name, f"must be {wanted}, not {raw!r}"))
    return raw


def _check_bounds(
    field: dataclasses.Field[Any], value: Any, source: str, name: str, problems: list[Problem]
) -> None:
    choices = field.metadata.get("choices") or ()
    minimum, maximum = field.metadata.get("minimum"), field.metadata.get("maximum")
    if choices and value not in choices:
        hint = suggestion(str(value), choices)
        problems.append(Problem(source, name, f"{value!r} is not possible", hint))
    if value is None or not isinstance(value, (int, float)):
        return
    if value != value or (minimum is not None and value < minimum):
        problems.append(Problem(source, name, f"must be at least {minimum}, not {value}"))
    elif maximum is not None and value > maximum:
        problems.append(Problem(source, name, f"must be at most {maximum}, not {value}"))
