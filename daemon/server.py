"""The control API's transports: HTTP and websocket, over a Unix socket and, when asked, TCP.

Hypercorn serves one small ASGI application: POST /rpc, websocket /rpc, GET /metrics, GET /healthz.

Rules kept here:
- the Unix socket is the owner's (mode 0600) and needs no token; TCP is loopback only, needs the
  bearer token, and refuses foreign Host and any Origin (a browser page is no client of ours);
- a body is at most MAX_BODY_BYTES.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import hypercorn
import hypercorn.trio
import trio

from daemon.events import EventLog
from daemon.jsonrpc import Method, answer

MAX_BODY_BYTES = 1 << 20

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ControlApp:
    """The ASGI application. `token` None: whoever reaches the socket is the owner."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        events: EventLog,
        *,
        token: str | None,
        prometheus: Callable[[], str],
    ) -> None:
        self._methods = methods
        self._events = events
        self._token = token
        self._prometheus = prometheus

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await _lifespan(receive, send)

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if (refusal := self._refusal(scope)) is not None:
            await _reply(send, *refusal)
            return
        match scope["method"], scope["path"]:
            case "POST", "/rpc":
                body = await _body(receive)
                if body is None:
                    await _reply(send, 413, f"a body holds {MAX_BODY_BYTES} bytes at most")
                    return
                text = await answer(body, self._methods)
                await _reply(send, 200 if text else 204, text, "application/json")
            case "GET", "/metrics":
                await _reply(send, 200, self._prometheus())
            case "GET", "/healthz":
                await _reply(send, 200, "ok\n")
            case _, "/rpc":
                await _reply(send, 405, "POST a JSON-RPC request, or open a websocket\n")
            case _:
                await _reply(send, 404, "there are /rpc, /metrics and /healthz\n")

    async def _websocket(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if scope["path"] != "/rpc" or self._refusal(scope) is not None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        async with trio.open_nursery() as nursery:
            connection = Connection(self._events, nursery, send)
            while (message := await receive())["type"] == "websocket.receive":
                body = message.get("text") or message.get("bytes") or ""
                text = await answer(body, self._methods, connection)
                if text:
                    await connection.send(text)
            nursery.cancel_scope.cancel()

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """(status, reason) for a caller that may not speak, None for one that may."""
        if self._token is None:
            return None
        headers = {name.lower(): value for name, value in scope["headers"]}
        if b"origin" in headers or not _is_loopback_host(headers.get(b"host", b"")):
            return 403, "requests from web pages and foreign host names are refused\n"
        sent = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(sent, self._token.encode()):
            return 401, "send the header 'Authorization: Bearer TOKEN' (see control.token)\n"
        return None


class Connection:
    """A websocket client; `follow` streams events to it."""

    def __init__(self, events: EventLog, nursery: trio.Nursery, send: Send) -> None:
        self._events = events
        self._nursery = nursery
        self._send = send
        self._lock = trio.Lock()

    async def send(self, text: str) -> None:
        """Send one text message."""
        async with self._lock:
            await self._send({"type": "websocket.send", "text": text})

    def follow(self, prefix: str, since: int | None) -> None:
        """Stream events of this prefix: the kept ones above `since` first, then the new ones."""
        self._nursery.start_soon(self._follow, prefix, since)

    async def _follow(self, prefix: str, since: int | None) -> None:
        with self._events.subscribe(prefix) as subscription:
            seen = since if since is not None else None
            if seen is not None:
                for event in self._events.since(seen, prefix=prefix):
                    await self._notify(event.to_json())
                    seen = event.seq
            async for event in subscription:
                if seen is None or event.seq > seen or event.kind == "gap":
                    await self._notify(event.to_json())

    async def _notify(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "method": "event", "params": event}))


async def serve(
    app: ControlApp, bind: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve at `bind` ('unix:PATH' or 'host:port'); the task's status is the address chosen.

    Raises OSError when it cannot be bound.
    """
    config = hypercorn.Config()
    config.bind = [bind]
    config.umask = 0o177  # the Unix socket is born with mode 0600
    config.errorlog = None
    config.graceful_timeout = 0.5
    config.websocket_max_message_size = MAX_BODY_BYTES
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(hypercorn.trio.serve, app, config)
        task_status.started(bind if bind.startswith("unix:") else binds[0])


def read_token(path: Path) -> str:
    """The bearer token in `path`, made (mode 0600) if the file is not there.

    Raises PermissionError if others may read the file, or if it is empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} is readable by others; run: chmod 600 {path}") from None
        if not (token := path.read_text().strip()):
            # An empty token would let everybody in.
            raise PermissionError(f"{path} is empty; remove it, and a token is made") from None
        return token
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token + "\n")
    return token


async def _body(receive: Receive) -> bytes | None:
    """The request's body, None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _reply(
    send: Send, status: int, text: str, content_type: str = "text/plain; charset=utf-8"
) -> None:
    body = text.encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 204:
        headers = []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        match (await receive())["type"]:
            case "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            case "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return


def _is_loopback_host(host: bytes) -> bool:
    """Whether a Host header names loopback: anything else is DNS rebinding."""
    name = host.decode("latin-1")
    name = name[: name.rfind(":")] if not name.endswith("]") and ":" in name else name
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
