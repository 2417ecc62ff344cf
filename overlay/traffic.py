"""How many bytes went over the links, websocket frames and handshakes included."""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlay.transport import WebSocket


@dataclass(slots=True)
class Traffic:
    """Bytes by kind of link and direction."""

    control_sent: int = 0
    control_received: int = 0
    data_sent: int = 0
    data_received: int = 0

    def add(self, socket: WebSocket, *, is_data: bool) -> None:
        """Count what one socket carried so far."""
        if is_data:
            self.data_sent += socket.bytes_sent
            self.data_received += socket.bytes_received
        else:
            self.control_sent += socket.bytes_sent
            self.control_received += socket.bytes_received


class Meter:
    """Sockets that are open and the sum of those that were."""

    def __init__(self) -> None:
        self._ended = Traffic()
        self._open: dict[WebSocket, bool] = {}

    def opened(self, socket: WebSocket, *, is_data: bool) -> None:
        """Begin to count a socket."""
        self._open[socket] = is_data

    def closed(self, socket: WebSocket) -> None:
        """A socket carries no more."""
        self._ended.add(socket, is_data=self._open.pop(socket))

    def total(self) -> Traffic:
        """Everything up to now."""
        total = replace(self._ended)
        for socket, is_data in self._open.items():
            total.add(socket, is_data=is_data)
        return total
