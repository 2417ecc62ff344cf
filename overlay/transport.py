"""Websockets over any Trio stream, and the TCP that carries them.

Rules kept here:
- a connection lives inside an `async with`; leaving it ends the socket, whatever happened;
- every handshake runs under a deadline and ends at once when the stream does (trio-websocket by
  itself waits for ever on a stream that ends in the middle of a handshake);
- what the other side did wrong is HandshakeFailed or ConnectionLost, nothing else;
- `receive` must be called all the time: a full queue would leave pings unanswered.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import h11
import trio
import trio_websocket
import wsproto.utilities

from overlay.addresses import is_loopback, split_address
from overlay.alerts import alert_of
from overlay.frames import FrameCount
from overlay.wire import SUBPROTOCOL

# trio-websocket reads 4 KiB at a time by default, which is several times slower.
RECEIVE_BUFFER_BYTES = 256 * 1024
MESSAGE_QUEUE = 16
HANDSHAKE_S = 5.0
# Bytes that nobody acknowledges for so long mean that the other side is gone.
UNACKNOWLEDGED_MS = 20_000

StreamHandler = Callable[[trio.abc.Stream], Awaitable[None]]


class HandshakeFailed(Exception):
    """The stream did not become a websocket of ours."""


class ConnectionLost(Exception):
    """The connection is over. `orderly`: the other side said so."""

    def __init__(self, reason: str, *, orderly: bool) -> None:
        super().__init__(reason)
        self.orderly = orderly


class DialRefused(Exception):
    """Nobody listens at the address."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connected stream, and who is at the other end: the id and certificate (DER) that were
    proven, both empty where nobody had to prove anything."""

    stream: trio.abc.Stream
    peer_id: str = ""
    certificate: bytes = b""


class Network(Protocol):
    """Where streams come from: TLS or TCP in a daemon, memory in a test."""

    secured: bool
    """Whether the other end of a line proves who it is."""

    async def connect(self, address: str) -> Line:
        """A line to `ws://host:port` or `wss://host:port`. Raises DialRefused, OSError when
        unreachable, or HandshakeFailed."""

    async def welcome(self, stream: trio.abc.Stream) -> Line:
        """The line that an accepted stream becomes. Raises HandshakeFailed."""

    async def listen(
        self, address: str, handler: StreamHandler, task_status: trio.TaskStatus[str]
    ) -> None:
        """Serve `host:port`; the task's status is the address with the port chosen, as others dial
        it."""


class Tcp:
    """Plain connections, where nobody proves anything."""

    secured = False

    def __init__(self, *, loopback_only: bool = False) -> None:
        """`loopback_only`: dial nobody beyond this machine (plain links; a peer that lies, for
        trials)."""
        self._loopback_only = loopback_only

    async def connect(self, address: str) -> Line:
        host, port = split_address(address)
        if self._loopback_only and not is_loopback(host):
            raise OSError(f"{address} is not loopback, where this peer stays")
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            if _all_refused(error):
                raise DialRefused(f"connection refused by {address}") from None
            raise OSError(f"cannot reach {address}: {_reason(error)}") from None
        _watch_liveness(stream)
        return Line(stream)

    async def welcome(self, stream: trio.abc.Stream) -> Line:
        return Line(stream)

    async def listen(
        self,
        address: str,
        handler: StreamHandler,
        task_status: trio.TaskStatus[str],
        scheme: str = "ws",
    ) -> None:
        host, port = split_address(address)
        listeners = await trio.open_tcp_listeners(port, host=host)
        chosen = listeners[0].socket.getsockname()[1]
        bracketed = f"[{host}]" if ":" in host else host

        async def handle(stream: trio.SocketStream) -> None:
            _watch_liveness(stream)
            await handler(stream)

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, handle, listeners)
            task_status.started(f"{scheme}://{bracketed}:{chosen}")


class WebSocket:
    """One open websocket of whole binary messages."""

    def __init__(
        self, connection: trio_websocket.WebSocketConnection, stream: WatchedStream
    ) -> None:
        self._connection = connection
        self._stream = stream

    @property
    def path(self) -> str:
        """The request path: which kind of link this is."""
        return self._connection.path or ""

    async def send(self, data: bytes) -> None:
        """Send one message. Raises ConnectionLost."""
        try:
            await self._connection.send_message(data)
        except (trio_websocket.ConnectionClosed, trio.ClosedResourceError) as error:
            raise self._lost(error) from None

    async def receive(self) -> bytes:
        """The next message. Raises ConnectionLost, also for a text message."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise self._lost(error) from None
        self._stream.message_taken()
        if isinstance(message, str):
            raise ConnectionLost("sent a text message", orderly=False)
        return message

    async def close(self, reason: str) -> None:
        """Say goodbye and end the connection; bounded by the caller's scope."""
        await self._connection.aclose(1000, reason[:100])

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the stream so far, frames and handshake included."""
        return self._stream.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes taken from the stream so far."""
        return self._stream.bytes_received

    def _lost(self, error: Exception) -> ConnectionLost:
        closed = self._connection.closed
        orderly = closed is not None and closed.code in (1000, 1001)
        said = (closed.reason if closed is not None else "") or self._stream.alert or "closed"
        reason = "".join(letter if letter.isprintable() else "?" for letter in said)
        return ConnectionLost(reason, orderly=orderly)


@asynccontextmanager
async def open_client(
    stream: trio.abc.Stream, *, host: str, path: str, max_message_bytes: int
) -> AsyncIterator[WebSocket]:
    """The dialling end. Raises HandshakeFailed; inside, only ConnectionLost comes from the peer."""
    watched = WatchedStream(stream, max_message_bytes)
    try:
        async with _reader_nursery() as nursery:
            with _handshake(watched):
                connection = await trio_websocket.wrap_client_stream(
                    nursery,
                    watched,  # type: ignore[arg-type]
                    host,
                    path,
                    subprotocols=[SUBPROTOCOL],
                    message_queue_size=MESSAGE_QUEUE,
                    max_message_size=max_message_bytes,
                    receive_buffer_size=RECEIVE_BUFFER_BYTES,
                )
                watched.established = True
            if not watched.established:
                raise HandshakeFailed(watched.alert or "no websocket handshake in time")
            yield WebSocket(connection, watched)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_server(
    stream: trio.abc.Stream, *, paths: tuple[str, ...], max_message_bytes: int
) -> AsyncIterator[WebSocket]:
    """The accepting end, for the request paths in `paths` only; otherwise as `open_client`."""
    watched = WatchedStream(stream, max_message_bytes)
    try:
        async with _reader_nursery() as nursery:
            with _handshake(watched):
                connection = await _accept(nursery, watched, paths, max_message_bytes)
                watched.established = True
            if not watched.established:
                raise HandshakeFailed("no websocket handshake in time")
            yield WebSocket(connection, watched)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _accept(
    nursery: trio.Nursery, stream: WatchedStream, paths: tuple[str, ...], max_message_bytes: int
) -> trio_websocket.WebSocketConnection:
    request = await trio_websocket.wrap_server_stream(
        nursery,
        stream,
        message_queue_size=MESSAGE_QUEUE,
        max_message_size=max_message_bytes,
        receive_buffer_size=RECEIVE_BUFFER_BYTES,
    )
    if request.path not in paths or SUBPROTOCOL not in request.proposed_subprotocols:
        await request.reject(404 if request.path not in paths else 400)
        raise HandshakeFailed(f"asked for {request.path[:40]!r}, not a link of ours")
    return await request.accept(subprotocol=SUBPROTOCOL)


class WatchedStream(trio.abc.Stream):
    """Counts bytes, bounds those and the frames that no message came of, and cancels a handshake as
    soon as the stream ends."""

    def __init__(self, inner: trio.abc.Stream, max_message_bytes: int) -> None:
        self._inner = inner
        self._most_unread = (MESSAGE_QUEUE + 2) * max_message_bytes + RECEIVE_BUFFER_BYTES
        self._taken = 0
        self._frames = FrameCount()
        self.handshake_scope: trio.CancelScope | None = None
        self.established = False
        self.alert = ""
        self.bytes_sent = 0
        self.bytes_received = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.bytes_received and not self.bytes_sent:
            self._frames.begin()  # this is the answer to a handshake
        self.bytes_sent += len(data)
        try:
            await self._inner.send_all(data)
        except trio.Cancelled:
            # Part of a frame may be out, and whatever followed would be taken for its rest.
            await trio.aclose_forcefully(self._inner)
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._inner.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.alert = alert_of(error)
            self._ended()
            raise
        self.bytes_received += len(data)
        is_idle = self.bytes_received - self._taken > self._most_unread
        if is_idle or not self._frames.feed(data):
            # Fragments and pings make no message that grows too long, and are kept.
            self.alert = "sends and sends, and no message comes of it"
            await self.aclose()
            raise trio.BrokenResourceError(self.alert)
        if not data:
            self._ended()
        return data

    def message_taken(self) -> None:
        """A whole message was read."""
        self._taken = self.bytes_received

    async def aclose(self) -> None:
        self._ended()
        await self._inner.aclose()

    def _ended(self) -> None:
        if self.handshake_scope is not None and not self.established:
            self.handshake_scope.cancel()


def _handshake(stream: WatchedStream) -> trio.CancelScope:
    stream.handshake_scope = trio.move_on_after(HANDSHAKE_S)
    return stream.handshake_scope


@asynccontextmanager
async def open_unwrapping_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose single failure comes out as itself instead of in a group of one."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise _unwrap(group) from None


@asynccontextmanager
async def _reader_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for trio-websocket's reader task, whose failures are the connection's.

    The reader raises into its nursery (a rejected handshake, a broken stream, and what its own
    answer to nonsense runs into); a group that holds nothing but such failures becomes one
    HandshakeFailed, and our own exceptions pass unwrapped.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        theirs, ours = group.split(_is_theirs)
        if ours is not None:
            raise _unwrap(ours) from None
        assert theirs is not None
        error = _unwrap(theirs)
        raise HandshakeFailed(alert_of(error) or str(error) or "connection broke") from None


def _is_theirs(error: BaseException) -> bool:
    broken = (trio.BrokenResourceError, trio.ClosedResourceError, trio_websocket.ConnectionClosed)
    protocol = (trio_websocket.HandshakeError, h11.ProtocolError, wsproto.utilities.ProtocolError)
    # wsproto decodes header lines as ASCII without a net.
    return isinstance(error, (*broken, *protocol, UnicodeError))


def _unwrap(error: BaseException) -> BaseException:
    """The only exception in a group, or the group itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _watch_liveness(stream: trio.SocketStream) -> None:
    """Let the kernel end a connection whose other side is gone: a data link has no heartbeats, and
    by itself TCP would try for a quarter of an hour."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: RFC 5482, in milliseconds
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, UNACKNOWLEDGED_MS // 2000)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3)


def _all_refused(error: OSError) -> bool:
    """Whether every address tried refused (trio groups one error an address)."""
    if isinstance(error.__cause__, BaseExceptionGroup):
        return all(isinstance(e, ConnectionRefusedError) for e in error.__cause__.exceptions)
    return isinstance(error, ConnectionRefusedError) or isinstance(
        error.__cause__, ConnectionRefusedError
    )


def _reason(error: OSError) -> str:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause or error)
