"""Daemons on this machine, started and ended by a script: `gossipd local`, the demo, benchmarks,
system tests.

Rules kept here:
- each is a real `gossipd start` process on loopback with a data directory of its own;
- whatever happens in the block, its process is gone afterwards, and its learner with it;
- only processes started here are ever signalled, by their id.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from cli.client import ControlError, Target, call

STOP_S = 6.0
POLL_S = 0.05


class PeerFailed(Exception):
    """A daemon did not start, or is gone."""


@dataclass(slots=True)
class LocalPeer:
    """A running daemon; `facts` is what it printed when it was ready."""

    name: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    facts: dict[str, Any]
    _ticket: str = field(default="", repr=False)

    @property
    def peer_id(self) -> str:
        """Its id in the network."""
        return str(self.facts["peer"])

    @property
    def address(self) -> str:
        """Where other peers join it."""
        return str(self.facts["listen"])

    @property
    def ticket(self) -> str:
        """With which any number of peers can join its network."""
        if not self._ticket:
            self._ticket = self.call("network.invite", uses=10_000)["ticket"]
        return self._ticket

    @property
    def target(self) -> Target:
        """Its control socket."""
        return Target(self.data_dir / "control.sock", timeout_s=60.0)

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return (self.data_dir / "daemon.log").read_text()

    def call(self, method: str, **params: Any) -> Any:
        """A method of its control API. Raises ControlError."""
        return call(self.target, method, params)

    def ask(self, method: str, **params: Any) -> Any:
        """The same, or None from a daemon that does not answer just now. Raises PeerFailed if its
        process is gone."""
        try:
            return self.call(method, **params)
        except ControlError:
            if self.process.poll() is not None:
                raise PeerFailed(f"{self.name} ended: {self.log[-500:].strip()}") from None
            return None

    def events(self, prefix: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Its newest `limit` events of a kind."""
        answer = self.call("events.list", prefix=prefix, limit=limit)
        found: list[dict[str, Any]] = answer["events"]
        return found

    def kill(self) -> float:
        """SIGKILL; the Unix time at which it was sent."""
        at = time.time()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return at

    def stop(self) -> float:
        """SIGSTOP: it lives and says nothing; the Unix time at which it was sent."""
        at = time.time()
        self.process.send_signal(signal.SIGSTOP)
        return at

    def resume(self) -> float:
        """SIGCONT; the Unix time at which it was sent."""
        at = time.time()
        self.process.send_signal(signal.SIGCONT)
        return at


@contextmanager
def local_peer(
    name: str, data_dir: Path, flags: Sequence[str] = (), *, prefix: Sequence[str] = ()
) -> Iterator[LocalPeer]:
    """Start a daemon and wait until it can be used. Raises PeerFailed.

    `prefix` is a command that becomes the daemon's command, such as `ip netns exec NAME`.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [
        *prefix, sys.executable, "-P", "-m", "cli.gossipd", "start", "--json", "--name", name,
        "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", "--threads", "1", *flags,
    ]  # fmt: skip
    with (data_dir / "daemon.log").open("ab") as log:
        # A session of its own: Ctrl-C reaches the script, which then stops the daemons in order.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            process.wait()
            reason = (data_dir / "daemon.log").read_text()[-500:].strip()
            raise PeerFailed(f"{name} did not start: {reason}")
        yield LocalPeer(name, data_dir, process, json.loads(line))
    finally:
        end_process(process)
        process.stdout.close()


def wait_until(
    condition: Callable[[], bool], limit_s: float, what: str, *, poll_s: float = POLL_S
) -> float:
    """Wait for a condition; how long it took. Raises TimeoutError that names `what`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            raise TimeoutError(f"not within {limit_s:g} s: {what}")
        time.sleep(poll_s)
    return time.monotonic() - began


def distance_of_exports(paths: Sequence[Path]) -> float | None:
    """sqrt(mean ‖x_i − x̄‖²) / ‖x̄‖ over models that peers exported; None where x̄ is zero."""
    import numpy as np
    from safetensors.numpy import load_file

    vectors = []
    for path in paths:
        tensors = load_file(path)
        vectors.append(np.concatenate([tensors[key].ravel() for key in sorted(tensors)]))
    stacked = np.stack(vectors).astype(np.float64)
    mean = stacked.mean(axis=0)
    spread = math.sqrt(float(((stacked - mean) ** 2).sum(axis=1).mean()))
    norm = float(np.linalg.norm(mean))
    return spread / norm if norm else None


def interrupt_on_sigterm() -> None:
    """SIGTERM does what Ctrl-C does: every block is left, and with it every daemon ends."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def end_process(process: subprocess.Popen[Any], limit_s: float = STOP_S) -> None:
    """SIGTERM, and SIGKILL after `limit_s`; a stopped process is woken to hear it."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
