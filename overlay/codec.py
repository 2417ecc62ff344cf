"""A strict codec: frozen dataclasses to msgpack arrays and back, refusing everything else.

Rules kept here:
- a message is `[tag, field, …]`, in the order of the dataclass's fields; nothing is optional;
- every field is checked against its type before the dataclass is built, and the dataclass itself
  checks ranges in `__post_init__` by raising ValueError; a named tuple does as well (for small
  things of which there are millions), and checks in `__new__`;
- size, string, binary and array limits are set before unpacking, maps and extensions are refused:
  a megabyte of nested empty lists would otherwise unpack to 68 MB;
- whatever is wrong, the caller sees one exception type, WireError.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable
from typing import Any, get_args, get_origin

import msgpack

Reader = Callable[[Any], Any]


class WireError(ValueError):
    """Bytes from the other side that are no message of ours."""


class Codec:
    """Encodes and decodes the dataclasses it was made with, each under its tag.

    `max_bytes` bounds a whole message, `max_binary` one bytes field, `max_items` one array and
    `max_text` one string (in bytes).
    """

    def __init__(
        self,
        kinds: dict[str, type[Any]],
        *,
        max_bytes: int,
        max_binary: int = 0,
        max_items: int = 1024,
        max_text: int = 1024,
    ) -> None:
        self._tags = {cls: tag for tag, cls in kinds.items()}
        self._readers = {tag: _reader(cls) for tag, cls in kinds.items()}
        self._max_bytes = max_bytes
        self._limits = {
            "max_str_len": max_text,
            "max_bin_len": max_binary,
            "max_array_len": max_items,
            "max_map_len": 0,
            "max_ext_len": 0,
        }

    def encode(self, message: Any) -> bytes:
        """The message's bytes. Raises WireError if they exceed the limit of this codec."""
        data: bytes = msgpack.packb([self._tags[type(message)], *_flat(message)])
        if len(data) > self._max_bytes:
            raise WireError(f"{type(message).__name__} of {len(data)} bytes is over the limit")
        return data

    def decode(self, data: bytes) -> Any:
        """The message in `data`. Raises WireError for anything that is not exactly one message."""
        if len(data) > self._max_bytes:
            raise WireError(f"message of {len(data)} bytes is over the limit")
        try:
            fields = msgpack.unpackb(data, **self._limits)
        except (ValueError, msgpack.UnpackException, RecursionError) as error:
            raise WireError(f"not a message: {error or type(error).__name__}") from None
        if not isinstance(fields, list) or not fields or not isinstance(fields[0], str):
            raise WireError("not a message: no tag")
        tag, *values = fields
        if tag not in self._readers:
            raise WireError(f"unknown message {tag[:40]!r}")
        try:
            return self._readers[tag](values)
        except (ValueError, TypeError) as error:
            raise WireError(f"malformed {tag}: {error}") from None


def _flat(value: Any) -> list[Any]:
    return [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _flat(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


def _reader(hint: Any) -> Reader:
    """A function that turns an unpacked value into the type `hint`, or raises ValueError."""
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        return _record_reader(typing.cast("type[Any]", hint))
    if origin is tuple:
        return _tuple_reader(_reader(get_args(hint)[0]))
    if origin in (typing.Union, types.UnionType):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        read = _reader(inner)
        return lambda value: None if value is None else read(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    if hint is float:
        return _read_float
    return _scalar_reader(hint)


def _record_reader(cls: type[Any]) -> Reader:
    hints = typing.get_type_hints(cls)
    named = getattr(cls, "_fields", None) or [field.name for field in dataclasses.fields(cls)]
    readers = [_reader(hints[name]) for name in named]

    def read(values: Any) -> Any:
        if not isinstance(values, list) or len(values) != len(readers):
            raise ValueError(f"{cls.__name__} has {len(readers)} fields")
        return cls(*(reader(value) for reader, value in zip(readers, values, strict=True)))

    return read


def _tuple_reader(read: Reader) -> Reader:
    def read_all(values: Any) -> tuple[Any, ...]:
        if not isinstance(values, list):
            raise ValueError("expected a list")
        return tuple(read(value) for value in values)

    return read_all


def _scalar_reader(kind: type[Any]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return read


def _read_float(value: Any) -> float:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)
