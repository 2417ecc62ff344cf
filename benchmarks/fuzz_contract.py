"""What a fuzz target is, and what it owes to whoever brings the bytes.

Rules kept here:
- a target takes bytes and raises `Broken`, or whatever else, when it does what it must not: only
  the errors that its callers expect are quiet;
- a target knows nothing of where bytes come from: a seeded mutator (`benchmarks.fuzz`) or
  hypothesis (`tests/fuzz`);
- everything runs inside trio and never waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class Broken(Exception):
    """A target did what it must not do."""


@dataclass(frozen=True, slots=True)
class Target:
    """`check(data)` raises for a finding. `corpus` are valid inputs; `form` is what they are made
    of: 'msgpack' or 'json'."""

    name: str
    check: Callable[[bytes], Awaitable[None]]
    corpus: tuple[bytes, ...]
    form: str
