import os
import subprocess
import sys

import pytest

from daemon.lock import AlreadyRunning, locked

HOLDER = """
import pathlib, sys
from daemon.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_has_one_daemon_which_is_named(tmp_path):
    holder = rf"process {os.getpid()}\)"
    with locked(tmp_path), pytest.raises(AlreadyRunning, match=holder), locked(tmp_path):
        pytest.fail("locked twice")


def test_the_refusal_says_what_to_do(tmp_path):
    advice = r"gossipctl stop.*--data-dir"
    with locked(tmp_path), pytest.raises(AlreadyRunning, match=advice), locked(tmp_path):
        pytest.fail("locked twice")


def test_the_lock_is_free_after_its_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_dies_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=rf"process {holder.pid}\)"), locked(tmp_path):
            pytest.fail("locked twice")
        holder.kill()
        holder.wait(10)
    with locked(tmp_path):
        pass


def test_directories_are_locked_apart(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with locked(one), locked(two):
        pass
