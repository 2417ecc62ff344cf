"""What a transfer reads from and speaks through: its mailbox, and the one outlet of its data link.

Rules kept here:
- a mailbox is bounded; what an honest receiver says to an upload never fills it, and what another
  says is refused, so the link's reader never waits for an upload;
- messages leave one after the other; an upload that is stopped waits for its turn no longer, and
  the end of a fetch is told before anything else is, however long that takes;
- a frame that is half out is never cut short, but a link that takes no bytes for STALLED_S ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from overlay.codec import WireError
from overlay.transport import ConnectionLost, WebSocket
from overlay.wire import DATA, Accept, Again, DataMessage, Finish

MAILBOX_MESSAGES = 8
# A damaged chunk is asked for this often before the transfer is given up.
MAX_RETRIES = 5
# Longer than TCP takes to tell a lost line from a slow one; with all transfers under way at once on
# a line of 0.6 Mbit/s a chunk of each still comes in time.
STALLED_S = 30.0
# Whoever gives a fetch up waits so long until the other side is told; it is told later otherwise.
FINISH_S = 1.0


@dataclass(slots=True)
class Mailbox:
    """Messages for one fetch or upload; bounded by backpressure: the reader waits."""

    send: trio.MemorySendChannel[DataMessage]
    receive: trio.MemoryReceiveChannel[DataMessage]
    stopped: bool = False
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _accepted: bool = False
    _repeated: int = 0

    async def put(self, message: DataMessage) -> None:
        """Hand in a message. Raises WireError for what no honest receiver says to an upload."""
        if isinstance(message, Accept):
            if self._accepted:
                raise WireError("accepted twice")
            self._accepted = True
        if isinstance(message, Again):
            self._repeated += 1
            if self._repeated > MAX_RETRIES:
                raise WireError(f"more than {MAX_RETRIES} chunks asked for again")
        try:
            await self.send.send(message)
        except trio.BrokenResourceError:
            return  # it is over

    async def next(self) -> DataMessage | None:
        """The next message, None if there is none for STALLED_S. Raises trio.EndOfChannel."""
        with trio.move_on_after(STALLED_S):
            return await self.receive.receive()
        return None

    def while_wanted(self) -> trio.CancelScope:
        """A scope that ends when the upload is stopped."""
        self._scope = trio.CancelScope()
        if self.stopped:
            self._scope.cancel()
        return self._scope

    def stop(self) -> None:
        """End an upload before its next message."""
        self.stopped = True
        self._scope.cancel()
        self.send.close()


def open_mailbox() -> Mailbox:
    """An empty one."""
    return Mailbox(*trio.open_memory_channel[DataMessage](MAILBOX_MESSAGES))


class Outlet:
    """Where everything leaves that a data link says."""

    def __init__(self, socket: WebSocket, end: Callable[[], None]) -> None:
        """`end` is called when the other side takes no more bytes."""
        self._socket = socket
        self._end = end
        self._turn = trio.Lock()
        self._finished: deque[int] = deque()  # fetches of which the other side is not told yet

    async def send(self, message: DataMessage) -> None:
        """Send a message. Raises ConnectionLost."""
        async with self._turn:
            await self._send(message)

    async def finish(self, request: int) -> None:
        """A fetch is over, or no longer wanted: tell the other side, if that is possible soon, or
        else in front of the next message."""
        self._finished.append(request)
        with trio.move_on_after(FINISH_S) as scope:
            scope.shield = True
            try:
                async with self._turn:
                    await self._send()
            except ConnectionLost:
                return

    async def say(
        self, message: DataMessage, mailbox: Mailbox, *, first: Callable[[], None] = lambda: None
    ) -> None:
        """Send from an upload, unless it is stopped before its turn; `first` is called when that
        comes. A lost link is the reader's to report, not the upload's."""
        has_turn = lost = False
        with mailbox.while_wanted():
            await self._turn.acquire()
            has_turn = True
        if not has_turn:
            return
        try:
            first()
            if not mailbox.stopped:
                await self._send(message)
        except ConnectionLost:
            lost = True
        finally:
            self._turn.release()
        if lost:
            await trio.sleep_forever()

    async def _send(self, message: DataMessage | None = None) -> None:
        while self._finished:
            await self._send_now(Finish(self._finished.popleft()))
        if message is not None:
            await self._send_now(message)

    async def _send_now(self, message: DataMessage) -> None:
        with trio.move_on_after(STALLED_S) as scope:
            await self._socket.send(DATA.encode(message))
        if scope.cancelled_caught:
            self._end()
            raise ConnectionLost(f"took no bytes for {STALLED_S:.0f} s", orderly=False)
