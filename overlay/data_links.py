"""The data link beside each control link: a second websocket, on which tensors are pulled.

Rules kept here:
- whoever dialled the control link dials the data link as well, and again when it is lost, for as
  long as the control link lives;
- nonsense on it costs the whole link; its mere loss costs nothing but the transfer under way;
- a link has one: a newer data link ends the older.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from overlay.codec import WireError
from overlay.identity import short
from overlay.link import Link
from overlay.traffic import Meter
from overlay.transfer import Blob, DataLink
from overlay.transport import ConnectionLost, DialRefused, HandshakeFailed, WebSocket
from overlay.wire import DATA, DATA_PATH, MAX_DATA_BYTES, DataHello, DataWelcome, Want

log = logging.getLogger("gossipd.overlay")

RETRY_S = 0.5

Connect = Callable[[str, str, int], AbstractAsyncContextManager[tuple[WebSocket, str]]]


class DataLinks:
    """Keeps and holds the data links of one overlay."""

    def __init__(
        self,
        connect: Connect,
        provide: Callable[[str, Want], Awaitable[Blob]],
        condemn: Callable[[Link, str], None],
        meter: Meter,
        dial_timeout_s: float,
    ) -> None:
        self._connect = connect
        self._provide = provide
        self._condemn = condemn
        self._meter = meter
        self._dial_timeout_s = dial_timeout_s

    async def keep(self, link: Link, address: str) -> None:
        """Keep a data link beside the control link that this side dialled."""
        while True:
            try:
                with trio.fail_after(self._dial_timeout_s) as scope:
                    async with self._connect(address, DATA_PATH, MAX_DATA_BYTES) as opened:
                        socket, proven = opened
                        if proven and proven != link.peer:
                            raise HandshakeFailed("another peer answers")
                        await socket.send(DATA.encode(DataHello(link.link_id)))
                        if not isinstance(DATA.decode(await socket.receive()), DataWelcome):
                            raise HandshakeFailed("answered out of turn")
                        scope.deadline = float("inf")
                        await self.hold(link, socket)
            except (
                OSError, DialRefused, HandshakeFailed, ConnectionLost, WireError, trio.TooSlowError,
            ) as error:  # fmt: skip
                log.debug("data link to %s: %s", short(link.peer), error)
            await trio.sleep(RETRY_S)

    async def hold(self, link: Link, socket: WebSocket) -> None:
        """Run a data link to its end."""

        async def provide(want: Want) -> Blob:
            return await self._provide(link.peer, want)

        def excess(kind: str) -> str:
            return link.rates.excess_of(kind, 1, trio.current_time())

        data = DataLink(socket, provide, excess)
        self._meter.opened(socket, is_data=True)
        link.attach(data)
        try:
            if nonsense := await data.run():
                self._condemn(link, nonsense)
        finally:
            link.detach(data)
            self._meter.closed(socket)
