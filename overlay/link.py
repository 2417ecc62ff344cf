"""One live link to a neighbour: its control websocket, its outbox, and its data link beside it.

Rules kept here:
- nobody awaits a slow peer: messages go into a bounded outbox, and a full outbox ends the link;
- a link ends by cancelling its scope, or by `close`, which lets the outbox drain first;
- a peer that sends nonsense loses this link, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from overlay.transfer import DataLink
from overlay.transport import ConnectionLost, WebSocket
from overlay.wire import CONTROL, ControlMessage

# Overflow rule: a neighbour that lets this many control messages wait is cut off and re-dialled.
OUTBOX_MESSAGES = 4096
CLOSE_S = 1.0


@dataclass(slots=True)
class _Goodbye:
    reason: str


@dataclass(slots=True, eq=False)
class Link:
    """A neighbour with whom a control link is up."""

    peer: str
    instance: bytes
    link_id: bytes
    dialled: bool
    since: float
    socket: WebSocket
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    data: DataLink | None = None
    data_ready: trio.Event = field(default_factory=trio.Event)
    closing: bool = False
    ended: trio.Event = field(default_factory=trio.Event)
    _send: trio.MemorySendChannel[ControlMessage | _Goodbye] = field(init=False)
    _receive: trio.MemoryReceiveChannel[ControlMessage | _Goodbye] = field(init=False)

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(OUTBOX_MESSAGES)

    def put(self, message: ControlMessage) -> None:
        """Queue a control message; a neighbour that does not keep up is cut off."""
        if not self.closing:
            self._put(message)

    def close(self, reason: str) -> None:
        """Send what is queued, say goodbye, end: within CLOSE_S, also if the peer reads nothing."""
        if not self.closing:
            self.closing = True
            self.scope.deadline = trio.current_time() + CLOSE_S
            self._put(_Goodbye(reason))

    def attach(self, data: DataLink) -> None:
        """The data link is ready, or was replaced by a newer one."""
        self.data = data
        self.data_ready.set()

    def detach(self, data: DataLink) -> None:
        """That data link is gone."""
        if self.data is data:
            self.data = None
            self.data_ready = trio.Event()

    async def write(self) -> None:
        """Send what is queued until the link ends."""
        async for message in self._receive:
            if isinstance(message, _Goodbye):
                await self.socket.close(message.reason)
                self.scope.cancel()
                return
            try:
                await self.socket.send(CONTROL.encode(message))
            except ConnectionLost:
                return  # the reader knows and says why

    def _put(self, message: ControlMessage | _Goodbye) -> None:
        try:
            self._send.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.scope.cancel()
