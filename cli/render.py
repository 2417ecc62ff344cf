"""Plain text for people: tables, durations, percentages. No colours, no cleverness."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

DASH = "–"
# A number, alone or with a unit after a space.
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?(\s|$)")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they need to be; numbers to the right."""
    cells = [[DASH if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(head)), *(line(row) for row in cells)])


def pairs(items: Sequence[tuple[str, Any]]) -> str:
    """One 'name  value' a line, the values aligned; None is left out."""
    shown = [(name, value) for name, value in items if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def percent(value: float | None) -> str | None:
    """A fraction as a percentage with one decimal."""
    return None if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 4) -> str | None:
    """A number with a few significant digits."""
    return None if value is None else f"{value:.{digits}g}"


def size(count: float | None) -> str | None:
    """Bytes in the unit that reads best."""
    if count is None:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return None


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def clock(at: float) -> str:
    """Unix time as local wall-clock time."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def _numeric(cell: Any) -> bool:
    if cell is None or isinstance(cell, (int, float)):
        return True
    return bool(NUMBER.match(str(cell)))
