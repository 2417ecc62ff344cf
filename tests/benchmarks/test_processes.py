"""What /proc tells of a process, and the busy loops."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import busy_cores, cores, cpu_s, rss_mb
from cli.local_peers import wait_until


def test_cpu_time_is_what_the_process_counts_itself():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert cpu_s(os.getpid()) == pytest.approx(usage.ru_utime + usage.ru_stime, abs=0.1)


def test_memory_is_that_of_a_small_process():
    assert 3 < rss_mb(os.getpid()) < 2000


def test_a_process_that_has_gone_is_an_error():
    done = subprocess.Popen([sys.executable, "-S", "-c", ""])
    done.wait()
    with pytest.raises(FileNotFoundError):
        cpu_s(done.pid)
    with pytest.raises(FileNotFoundError):
        rss_mb(done.pid)


def test_busy_loops_take_every_core_and_are_gone_afterwards():
    with busy_cores(limit_s=30) as pids:
        assert len(pids) == cores()
        wait_until(lambda: all(cpu_s(pid) > 0.05 for pid in pids), 20, "every loop runs")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
