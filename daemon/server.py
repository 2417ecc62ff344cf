"""The control API over HTTP and websocket: one small ASGI application.

POST /rpc, websocket /rpc, GET /metrics, GET /healthz; daemon.listener serves it, daemon.access says
who may call.

Rules kept here:
- a refused request is refused by its head: its body is never looked at, and its connection is
  closed;
- a body is at most MAX_BODY_BYTES and comes within BODY_LIMIT_S, whatever its pace;
- websockets are few, and so are the subscriptions on each.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from daemon.access import Access, NotAdmitted, Right
from daemon.events import EventLog
from daemon.jsonrpc import Method, answer
from daemon.listener import MAX_BODY_BYTES, Clock
from daemon.refusals import TOO_MANY_SUBSCRIPTIONS, RpcError

BODY_LIMIT_S = 10.0
LINGER_S = 1.0
MAX_WEBSOCKETS = 16
MAX_SUBSCRIPTIONS = 8

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ControlApp:
    """The ASGI application of one listener."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        events: EventLog,
        *,
        access: Access,
        prometheus: Callable[[], str],
    ) -> None:
        self._methods = methods
        self._events = events
        self._access = access
        self._prometheus = prometheus
        self._websockets = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        clock: Clock = scope["state"]["clock"]
        if not scope["http_version"].startswith("1."):
            clock.cut()  # HTTP/2 carries many requests at a time past the limits of a connection
            return
        try:
            right = self._access.admit(scope)
            clock.stop()
            if scope["type"] == "http":
                await self._http(scope, receive, send, right)
            else:
                await self._websocket(scope, receive, send, right)
        except NotAdmitted as refusal:
            await _refuse(scope, receive, send, refusal)
        finally:
            clock.start()

    async def _http(
        self, scope: dict[str, Any], receive: Receive, send: Send, right: Right
    ) -> None:
        match scope["method"], scope["path"]:
            case "POST", "/rpc":
                if (body := await _body(receive)) is None:
                    return
                text = await answer(body, self._methods, read_only=right is Right.READ_ONLY)
                await _reply(send, 200 if text else 204, text, "application/json")
            case "GET", "/metrics":
                await _reply(send, 200, self._prometheus())
            case "GET", "/healthz":
                await _reply(send, 200, "ok\n")
            case _, "/rpc":
                await _reply(send, 405, "POST a JSON-RPC request, or open a websocket\n")
            case _:
                await _reply(send, 404, "there are /rpc, /metrics and /healthz\n")

    async def _websocket(
        self, scope: dict[str, Any], receive: Receive, send: Send, right: Right
    ) -> None:
        await receive()  # websocket.connect
        if scope["path"] != "/rpc":
            raise NotAdmitted(404, "the websocket is /rpc\n")
        if self._websockets >= MAX_WEBSOCKETS:
            raise NotAdmitted(503, f"{MAX_WEBSOCKETS} websockets are open, which is the limit\n")
        self._websockets += 1
        try:
            await send({"type": "websocket.accept"})
            await self._converse(receive, send, right)
        finally:
            self._websockets -= 1

    async def _converse(self, receive: Receive, send: Send, right: Right) -> None:
        async with trio.open_nursery() as nursery:
            connection = Connection(self._events, nursery, send)
            while (message := await receive())["type"] == "websocket.receive":
                body = message.get("text") or message.get("bytes") or ""
                text = await answer(
                    body, self._methods, connection, read_only=right is Right.READ_ONLY
                )
                if text:
                    await connection.send(text)
            nursery.cancel_scope.cancel()


class Connection:
    """A websocket client; `follow` streams events to it."""

    def __init__(self, events: EventLog, nursery: trio.Nursery, send: Send) -> None:
        self._events = events
        self._nursery = nursery
        self._send = send
        self._lock = trio.Lock()
        self._subscriptions = 0

    async def send(self, text: str) -> None:
        """Send one text message."""
        async with self._lock:
            await self._send({"type": "websocket.send", "text": text})

    def follow(self, prefix: str, since: int | None) -> None:
        """Stream events of this prefix: the kept ones above `since` first, then the new ones.

        Raises RpcError beyond MAX_SUBSCRIPTIONS.
        """
        if self._subscriptions >= MAX_SUBSCRIPTIONS:
            message = f"a connection holds {MAX_SUBSCRIPTIONS} subscriptions at most"
            raise RpcError(TOO_MANY_SUBSCRIPTIONS, "too_many_subscriptions", message)
        self._subscriptions += 1
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


async def _body(receive: Receive) -> bytes | None:
    """The request's body, None if the client left. Raises NotAdmitted: too large, too slow."""
    body = bytearray()
    with trio.move_on_after(BODY_LIMIT_S):
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                raise NotAdmitted(413, f"a body holds {MAX_BODY_BYTES} bytes at most\n")
            if not message.get("more_body"):
                return bytes(body)
        return None
    raise NotAdmitted(408, f"a body comes within {BODY_LIMIT_S:g} s\n")


async def _reply(
    send: Send, status: int, text: str, content_type: str = "text/plain; charset=utf-8"
) -> None:
    headers = _headers(text, content_type) if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _refuse(
    scope: dict[str, Any], receive: Receive, send: Send, refusal: NotAdmitted
) -> None:
    """Say why, and close the connection."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    text = str(refusal)
    headers = [*_headers(text, "text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": text.encode(), "more_body": True})
    if scope["type"] == "http":
        await _discard_body(receive)
    await send({"type": f"{kind}.body", "body": b""})


async def _discard_body(receive: Receive) -> None:
    """A client that is still sending would lose the answer with its connection: wait a little."""
    left = MAX_BODY_BYTES
    with trio.move_on_after(LINGER_S):
        while left > 0 and (message := await receive())["type"] == "http.request":
            left -= len(message.get("body", b""))
            if not message.get("more_body"):
                return


def _headers(text: str, content_type: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(text.encode())).encode()),
    ]
