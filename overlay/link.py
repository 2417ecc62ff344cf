"""One live link to a neighbour: its control websocket, its outbox, and its data link beside it.

Rules kept here:
- nobody awaits a slow peer: messages go into an outbox that is bounded in messages and in bytes,
  and a full outbox ends the link;
- a link ends by cancelling its scope, or by `close`, which lets the outbox drain first;
- a peer that sends nonsense loses this link, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from overlay.limits import PeerRates
from overlay.news import record_bytes
from overlay.transfer import DataLink
from overlay.transport import ConnectionLost, WebSocket
from overlay.wire import CONTROL, ControlMessage, News, Note, SyncPage

# Overflow rule: a neighbour that lets this many control messages wait, or so many bytes, is cut off
# and re-dialled. A table of 10,000 members measures 1.3 MB.
OUTBOX_MESSAGES = 4096
OUTBOX_BYTES = 16 * 1024 * 1024
# For the count of bytes: a fate or a testimony, and whatever else a message holds.
ITEM_BYTES, OTHER_BYTES = 128, 1024
CLOSE_S = 1.0


@dataclass(slots=True)
class _Goodbye:
    reason: str


@dataclass(slots=True)
class _Queued:
    message: ControlMessage
    size_bytes: int


@dataclass(slots=True, eq=False)
class Link:
    """A neighbour with whom a control link is up."""

    peer: str
    instance: bytes
    link_id: bytes
    dialled: bool
    since: float
    socket: WebSocket
    rates: PeerRates = field(default_factory=PeerRates)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    data: DataLink | None = None
    data_ready: trio.Event = field(default_factory=trio.Event)
    closing: bool = False
    ended: trio.Event = field(default_factory=trio.Event)
    waiting_bytes: int = 0  # in the outbox, about
    _send: trio.MemorySendChannel[_Queued | _Goodbye] = field(init=False)
    _receive: trio.MemoryReceiveChannel[_Queued | _Goodbye] = field(init=False)

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(OUTBOX_MESSAGES)

    def put(self, message: ControlMessage) -> None:
        """Queue a control message; a neighbour that does not keep up is cut off."""
        if not self.closing:
            queued = _Queued(message, about_bytes(message))
            self.waiting_bytes += queued.size_bytes
            if self.waiting_bytes > OUTBOX_BYTES:
                self.scope.cancel()
            self._put(queued)

    def close(self, reason: str) -> None:
        """Send what is queued, say goodbye, end: within CLOSE_S, also if the peer reads nothing."""
        if not self.closing:
            self.closing = True
            self.scope.deadline = trio.current_time() + CLOSE_S
            self._put(_Goodbye(reason))

    def attach(self, data: DataLink) -> None:
        """The data link is ready; the one it replaces ends."""
        if self.data is not None:
            self.data.end()
        self.data = data
        self.data_ready.set()

    def detach(self, data: DataLink) -> None:
        """That data link is gone."""
        if self.data is data:
            self.data = None
            self.data_ready = trio.Event()

    async def write(self) -> None:
        """Send what is queued until the link ends."""
        async for queued in self._receive:
            if isinstance(queued, _Goodbye):
                await self.socket.close(queued.reason)
                self.scope.cancel()
                return
            try:
                await self.socket.send(CONTROL.encode(queued.message))
            except ConnectionLost:
                return  # the reader knows and says why
            self.waiting_bytes -= queued.size_bytes

    def _put(self, queued: _Queued | _Goodbye) -> None:
        try:
            self._send.send_nowait(queued)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.scope.cancel()


def about_bytes(message: ControlMessage) -> int:
    """What a message measures at the most, without encoding it."""
    match message:
        case Note():
            return OTHER_BYTES + len(message.body)
        case News() | SyncPage():
            items = len(message.fates) + (len(message.evidence) if isinstance(message, News) else 0)
            return OTHER_BYTES + ITEM_BYTES * items + sum(map(record_bytes, message.records))
        case _:
            return OTHER_BYTES
