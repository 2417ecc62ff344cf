"""The learner process seen from the daemon: started, spoken to, and ended.

Rules kept here:
- one command at a time; every command has exactly one reply;
- a learner that dies in the middle of a command is LearnerDied, never a hang;
- leaving `open_learner` ends the process, whatever it was doing: checkpoints are atomic.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Protocol, TypeVar

import trio

from learner.channel import PREFIX, Payload, frame_head, parse_prefix
from learner.messages import Command, Failed, Reply, decode

R = TypeVar("R", bound=Reply)

# A learner that is asked to go finishes what it is writing; then it is killed.
FAREWELL_S = 0.5
READ_BYTES = 1 << 20
MAX_LOG_BYTES = 8 << 20


class LearnerDied(Exception):
    """The process is gone."""


class LearnerFailed(Exception):
    """The learner could not do what it was asked and says why; `kind` as in messages.Failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Learner(Protocol):
    """Something that answers the learner's commands, one at a time."""

    @property
    def pid(self) -> int:
        """The process id."""

    async def call(
        self, command: Command, answer: type[R], payload: Sequence[Payload] = ()
    ) -> tuple[R, bytearray]:
        """Send a command and wait for its reply, which must be an `answer`.

        Raises LearnerDied, or LearnerFailed with the learner's own words.
        """

    async def died(self) -> str:
        """Wait until the learner is gone; how it went."""


class LearnerProcess:
    """A running learner process."""

    def __init__(self, stream: trio.SocketStream, process: trio.Process) -> None:
        self._stream = stream
        self._process = process
        self._lock = trio.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def call(
        self, command: Command, answer: type[R], payload: Sequence[Payload] = ()
    ) -> tuple[R, bytearray]:
        """As Learner.call. Cancelling it leaves the channel out of step: it ends the learner."""
        async with self._lock:
            try:
                reply, data = await self._converse(command, payload)
            except (
                trio.BrokenResourceError, trio.ClosedResourceError, OSError, ValueError,
            ) as error:  # fmt: skip
                raise LearnerDied(await self._obituary()) from error
            except trio.Cancelled:
                self._process.kill()
                raise
        if isinstance(reply, Failed):
            raise LearnerFailed(reply.kind, reply.message)
        if not isinstance(reply, answer):
            self._process.kill()
            raise LearnerDied(f"answered {type(command).__name__} with {type(reply).__name__}")
        return reply, data

    async def died(self) -> str:
        """Wait until the process is gone; how it went."""
        await self._process.wait()
        return await self._obituary()

    async def _converse(
        self, command: Command, payload: Sequence[Payload]
    ) -> tuple[Reply, bytearray]:
        size = sum(memoryview(part).nbytes for part in payload)
        await self._stream.send_all(frame_head(command, size))
        for part in payload:
            await self._stream.send_all(part)
        header_bytes, payload_bytes = parse_prefix(bytes(await self._exactly(PREFIX.size)))
        reply = decode(bytes(await self._exactly(header_bytes)))
        return reply, await self._exactly(payload_bytes)  # type: ignore[return-value]

    async def _exactly(self, count: int) -> bytearray:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            got = await self._stream.socket.recv_into(view[:READ_BYTES])
            if got == 0:
                raise trio.BrokenResourceError("the learner closed the channel")
            view = view[got:]
        return buffer

    async def _obituary(self) -> str:
        with trio.move_on_after(1.0):
            code = await self._process.wait()
            return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "it stopped answering"


@asynccontextmanager
async def open_learner(log_file: Path, *, nice: int) -> AsyncIterator[Learner]:
    """Start a learner; its output goes to `log_file`. The process ends with the block.

    Raises LearnerDied when the machine cannot start one now.
    """
    try:
        stream, process = await _start(log_file)
    except OSError as error:
        raise LearnerDied(f"it cannot be started: {error}") from error
    try:
        if nice:
            with contextlib.suppress(OSError):  # gone already, or no such right: not worth a word
                os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        yield LearnerProcess(stream, process)
    finally:
        await _end(stream, process)


def _open_log(log_file: Path) -> IO[bytes]:
    """The learner's log, with one older generation kept."""
    if log_file.exists() and log_file.stat().st_size > MAX_LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
    return log_file.open("ab")


async def _start(log_file: Path) -> tuple[trio.SocketStream, trio.Process]:
    ours, theirs = socket.socketpair()
    try:
        with theirs, _open_log(log_file) as log:
            process = await _spawn(theirs, log)
    except BaseException:
        ours.close()
        raise
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), process


async def _spawn(channel: socket.socket, log: IO[bytes]) -> trio.Process:
    return await trio.lowlevel.open_process(
        # -P: nothing is imported from the folder in which the daemon was started.
        [sys.executable, "-P", "-m", "learner.worker", "--fd", str(channel.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[channel.fileno()],
        # Ctrl-C in the terminal is for the daemon, which then ends its learner in good order.
        start_new_session=True,
    )


async def _end(stream: trio.SocketStream, process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)
        with trio.move_on_after(FAREWELL_S):
            await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()
