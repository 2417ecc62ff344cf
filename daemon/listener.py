"""The control API's listeners: connections in, Hypercorn's protocol on each, limits around it.

Hypercorn speaks HTTP/1.1 and websocket on one connection at a time. Which connections there are,
and how long each may last, is decided here, because Hypercorn's own server has no limit on their
number, waits for ever for a client that does not read, and ends when one connection fails.

Rules kept here:
- MAX_CONNECTIONS at a time a listener; more are hung up on;
- a connection on which no admitted request is being served lasts HEAD_LIMIT_S: TLS handshake,
  request line and headers, the pause between two requests (slow loris); whoever serves a request
  stops that clock and starts it again;
- a client that takes nothing for SEND_LIMIT_S is hung up on;
- what goes wrong on a connection ends that connection only.
"""

from __future__ import annotations

import logging
import math
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypercorn
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from daemon.access import check_private

log = logging.getLogger("gossipd.control")

MAX_CONNECTIONS = 64
MAX_BODY_BYTES = 1 << 20
HEAD_LIMIT_S = 5.0
SEND_LIMIT_S = 30.0
# Small, because a compressed websocket frame grows a thousandfold before its size is known.
RECEIVE_BYTES = 8192
CLOSE_TOO_BIG = 1009


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate (chain) and key of a listener, both PEM."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A server's context, TLS 1.2 at least. Raises OSError that names the file."""
        self.certificate.stat()  # the standard library's error names no file
        check_private(self.key)
        config = hypercorn.Config()
        config.certfile, config.keyfile = str(self.certificate), str(self.key)
        config.keyfile_password = ""  # an encrypted key fails instead of asking on the terminal
        config.alpn_protocols = ["http/1.1"]
        try:
            context = config.create_ssl_context()
        except ssl.SSLError as error:
            reason = error.reason or error
            message = f"{self.certificate} and {self.key} are no certificate and its key"
            raise OSError(f"{message}, in PEM and without a password ({reason})") from None
        assert context is not None
        return context


class Clock:
    """How long a connection may still last."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def start(self) -> None:
        """HEAD_LIMIT_S from now."""
        self._scope.deadline = trio.current_time() + HEAD_LIMIT_S

    def stop(self) -> None:
        """As long as it likes: an admitted request is being served."""
        self._scope.deadline = math.inf

    def cut(self) -> None:
        """No longer."""
        self._scope.cancel()


async def serve(
    app: Any,
    bind: str,
    tls: Tls | None = None,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application at `bind` ('unix:PATH' or 'host:port').

    The task's status is the address chosen. The application finds its connection's Clock in
    scope["state"]["clock"]. Raises OSError when it cannot be bound.
    """
    config = hypercorn.Config()
    config.bind = [bind]
    config.umask = 0o177  # the Unix socket is born with mode 0600
    config.errorlog = log
    config.websocket_max_message_size = MAX_BODY_BYTES
    config.include_server_header = False
    context = tls.context() if tls is not None else None
    (sock,) = config.create_sockets().insecure_sockets
    sock.listen(config.backlog)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    connections = _Connections(app, config, context)
    if bind.startswith("unix:"):
        address = bind
    else:
        host, port = sock.getsockname()[:2]
        bracketed = f"[{host}]" if ":" in host else host
        address = f"{'http' if tls is None else 'https'}://{bracketed}:{port}"
    async with trio.open_nursery() as nursery:
        task_status.started(address)
        try:
            await trio.serve_listeners(connections.handle, [listener], handler_nursery=nursery)
        finally:
            connections.abort()


class _Connections:
    """The open connections of one listener."""

    def __init__(self, app: Any, config: hypercorn.Config, context: ssl.SSLContext | None) -> None:
        self._app = ASGIWrapper(app)
        self._config = config
        self._context = context
        self._open: set[_BoundedStream] = set()
        self._has_warned = False

    async def handle(self, socket_stream: trio.SocketStream) -> None:
        """Serve one connection until it ends."""
        stream = _BoundedStream(socket_stream)
        if len(self._open) >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._open.add(stream)
        try:
            with trio.CancelScope() as scope:
                clock = Clock(scope)
                clock.start()
                await _Protocol(self._app, self._config, self._secured(stream), clock).run()
        except* Exception as errors:
            # Whatever a client sends that Hypercorn did not expect; what it was is not logged.
            kinds = ", ".join(sorted({type(error).__name__ for error in errors.exceptions}))
            # Once aloud: whoever can cause it can cause it all day.
            level = logging.DEBUG if self._has_warned else logging.WARNING
            log.log(level, "a control connection failed (%s); more only at level debug", kinds)
            log.debug("its traceback", exc_info=errors)
            self._has_warned = True
        finally:
            self._open.discard(stream)
            await trio.aclose_forcefully(stream)

    def abort(self) -> None:
        """Give up every send that is stuck: Hypercorn shields them from cancellation."""
        for stream in self._open:
            stream.abort()

    def _secured(self, stream: _BoundedStream) -> trio.abc.Stream:
        if self._context is None:
            return stream
        return trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)


class _Protocol(TCPServer):
    """Hypercorn's connection, but for two things.

    After a message that is too big it ends: Hypercorn says so to the client and goes on to read,
    and to keep, what comes. And pauses are the Clock's: Hypercorn's own timer outlives the
    connection, which would then be counted for seconds after its client left.
    """

    def __init__(
        self, app: ASGIWrapper, config: hypercorn.Config, stream: trio.abc.Stream, clock: Clock
    ) -> None:
        state = ConnectionState({"clock": clock})
        super().__init__(app, config, WorkerContext(None), state, stream)  # type: ignore[arg-type]
        self._clock = clock

    async def _idle_timeout(self) -> None:
        pass

    async def protocol_send(self, event: Event) -> None:
        await super().protocol_send(event)
        if isinstance(event, RawData) and _is_close_frame(event.data, CLOSE_TOO_BIG):
            self._clock.cut()


class _BoundedStream(trio.abc.HalfCloseableStream):
    """A socket whose sends end within SEND_LIMIT_S, and which is read in small pieces."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sending: trio.CancelScope | None = None
        self._aborted = False
        self.socket = stream.socket

    def abort(self) -> None:
        """No send from now on."""
        self._aborted = True
        if self._sending is not None:
            self._sending.cancel()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._aborted:
            raise trio.BrokenResourceError("given up")
        with trio.move_on_after(SEND_LIMIT_S) as self._sending:
            await self._stream.send_all(data)
        if self._sending.cancelled_caught:
            self._aborted = True
            raise trio.BrokenResourceError("the client takes nothing")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(min(max_bytes or RECEIVE_BYTES, RECEIVE_BYTES))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_close_frame(data: bytes, code: int) -> bool:
    """RFC 6455, 5.5.1; no HTTP response and no text begins with the byte 0x88."""
    return data[:1] == b"\x88" and data[2:4] == code.to_bytes(2, "big")
