"""A prefix command: runs `python -m cli.gossipd …` with clocks that jump when they are told.

Usage: jumping_clock.py FILE PYTHON -m cli.gossipd start …

On SIGUSR1 the two numbers in FILE (seconds) are added to the wall clock and to the monotonic clock,
and FILE is removed. Only Python's functions jump, not the kernel's timers: Trio sees the jump when
it next looks at the clock, which the signal makes it do at once, as it would after a suspension.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

JUMPS = Path(sys.argv[1])
_ahead_s = {"wall": 0.0, "monotonic": 0.0}


def _patch(name: str, clock: str) -> None:
    real, real_ns = getattr(time, name), getattr(time, f"{name}_ns")
    setattr(time, name, lambda: real() + _ahead_s[clock])
    setattr(time, f"{name}_ns", lambda: real_ns() + int(_ahead_s[clock] * 1e9))


def _jump(number: int, frame: FrameType | None) -> None:
    wall, monotonic = map(float, JUMPS.read_text().split())
    _ahead_s["wall"] += wall
    _ahead_s["monotonic"] += monotonic
    JUMPS.unlink()


def _run() -> int:
    # Before Trio is imported: it takes `perf_counter` by name.
    _patch("time", "wall")
    _patch("monotonic", "monotonic")
    _patch("perf_counter", "monotonic")
    signal.signal(signal.SIGUSR1, _jump)
    sys.path[0] = str(Path(__file__).parents[2])
    from cli.gossipd import main

    return main(sys.argv[sys.argv.index("cli.gossipd") + 1 :])


if __name__ == "__main__":
    sys.exit(_run())
