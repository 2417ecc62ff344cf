"""What processes cost, as Linux counts it, and a machine kept busy.

Rules kept here:
- /proc is read from outside: nobody who is measured works for the measurement;
- the busy loops are processes of our own, and end by themselves should nobody end them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# proc(5): utime and stime are fields 14 and 15 of stat; the name, field 2, may hold spaces.
STATE, UTIME, STIME = 3, 14, 15
BUSY = "import time; end = time.monotonic() + {limit_s}\nwhile time.monotonic() < end: pass"


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all its threads, to a tick (10 ms).

    Raises FileNotFoundError if it is gone.
    """
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[UTIME - STATE]) + int(after_name[STIME - STATE])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory of a process now, in 10^6 bytes. Raises FileNotFoundError if it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise FileNotFoundError(f"process {pid} has ended")


def cpu_s_total(pids: Iterable[int]) -> float:
    """The CPU time of several processes together."""
    return sum(cpu_s(pid) for pid in pids)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """What the figures depend on: cores, Python, kernel, and who else was busy."""
    return {
        "cores": cores(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_1min_before": os.getloadavg()[0],
    }


@contextmanager
def busy_cores(limit_s: float) -> Iterator[list[int]]:
    """Keep every core busy with a plain Python loop until the block ends, at most `limit_s`.

    Yields the ids of the processes.
    """
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(cores()):
            loops.append(subprocess.Popen([sys.executable, "-c", BUSY.format(limit_s=limit_s)]))
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
