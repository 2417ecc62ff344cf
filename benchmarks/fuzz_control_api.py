"""The control API under fuzz: a few methods, what callers may send, and what no answer may be.

Rules kept here:
- every answer is JSON-RPC (or a status of HTTP) that a client understands, and none tells of a bug
  of ours;
- the caller holds the readers' token only: nothing is changed for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from benchmarks.fuzz_contract import Broken
from daemon.access import Access, Tokens, access_over_tcp
from daemon.events import EventLog
from daemon.jsonrpc import Handler, Method, answer
from daemon.refusals import RpcError
from daemon.server import ControlApp

TOKEN = "a-token"


async def _subtract(minuend: int, subtrahend: int) -> int:
    """Subtract."""
    return minuend - subtrahend


async def _total(numbers: list[int], scale: float = 1.0) -> float:
    """Add up."""
    return scale * len(numbers)


async def _greet(name: str | None = None, words: dict[str, Any] | None = None) -> str:
    """Greet."""
    return f"hello {name}"


async def _refuse() -> None:
    """Refuse."""
    raise RpcError(-32099, "unwilling", "not today")


async def _change() -> str:
    """Changes something: not for readers."""
    raise Broken("a reader changed something")


HANDLERS: dict[str, Handler] = {
    "subtract": _subtract,
    "total": _total,
    "greet": _greet,
    "refuse": _refuse,
    "change": _change,
}
METHODS: Mapping[str, Method] = {
    name: Method(name, "", handler, name != "change") for name, handler in HANDLERS.items()
}
REQUESTS: tuple[Any, ...] = (
    {"jsonrpc": "2.0", "id": 1, "method": "subtract", "params": [42, 23]},
    {"jsonrpc": "2.0", "id": "a", "method": "subtract", "params": {"minuend": 1, "subtrahend": 2}},
    {"jsonrpc": "2.0", "id": 1, "method": "total", "params": [[1, 2], 0.5]},
    {"jsonrpc": "2.0", "method": "greet", "params": {"name": None, "words": {"a": [1]}}},
    {"jsonrpc": "2.0", "id": None, "method": "refuse"},
    {"jsonrpc": "2.0", "id": 1.5, "method": "change"},
    [{"jsonrpc": "2.0", "id": 1, "method": "refuse"}, 1, {}],
)


async def answering(data: bytes) -> None:
    """Every answer is JSON, and none is an internal error."""
    text = await answer(data, METHODS, read_only=True)
    check_answer(text)


def check_answer(text: str) -> None:
    """Raises Broken for an answer that JSON-RPC does not know."""
    if not text:
        return
    parsed = json.loads(text, parse_constant=_no_constant)
    for one in parsed if isinstance(parsed, list) else [parsed]:
        if one["jsonrpc"] != "2.0" or not ("result" in one) ^ ("error" in one):
            raise Broken(f"no answer: {text[:200]}")
        if "error" in one and (
            one["error"]["code"] == -32603 or "kind" not in one["error"]["data"]
        ):
            raise Broken(f"an error of ours: {text[:200]}")


def _no_constant(word: str) -> None:
    raise Broken(f"{word} in an answer")


AUTHORISED = [["host", "localhost:1"], ["authorization", f"Bearer {TOKEN}"]]
SCOPES: tuple[Any, ...] = (
    {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/rpc",
        "headers": [*AUTHORISED, ["content-type", "application/json"]],
        "body": ['{"jsonrpc": "2.0", "id": 1,', ' "method": "refuse"}'],
    },
    {
        "type": "http", "http_version": "1.0", "method": "GET", "path": "/metrics",
        "headers": AUTHORISED, "body": [],
    },
    {
        "type": "websocket", "http_version": "1.1", "method": "GET", "path": "/rpc",
        "headers": AUTHORISED, "body": ['{"jsonrpc": "2.0", "id": 1, "method": "total"}', "[]"],
    },
    {
        "type": "websocket", "http_version": "1.1", "method": "GET", "path": "/rpc",
        "headers": [*AUTHORISED, ["origin", "https://evil.example"]],
        "body": ['{"jsonrpc": "2.0", "id": 1, "method": "greet"}'],
    },
)  # fmt: skip


def serving() -> Callable[[bytes], Awaitable[None]]:
    tokens = Tokens("the-admins-token", TOKEN)
    apps = [
        ControlApp(METHODS, EventLog(), access=access, prometheus=lambda: "up 1\n")
        for access in (
            access_over_tcp("127.0.0.1", names=(), tokens=tokens),
            Access(tokens, frozenset({"localhost"})),
        )
    ]

    async def check(data: bytes) -> None:
        try:
            wanted = json.loads(data)
        except (ValueError, RecursionError):
            wanted = {"body": [data.decode("latin-1")]}
        for app in apps:
            await serve_scope(app, wanted)

    return check


async def serve_scope(app: ControlApp, wanted: Any) -> None:
    """One request, as a scope of ASGI that a server can hand in: its fields' types are the
    server's word, their contents anybody's. Raises Broken for an answer that ASGI does not know."""
    found = wanted if isinstance(wanted, dict) else {}
    is_http = found.get("type") != "websocket"
    scope = {
        "type": "http" if is_http else "websocket",
        "http_version": _text(found.get("http_version"), "1.1"),
        "method": _text(found.get("method"), "POST"),
        "path": _text(found.get("path"), "/rpc"),
        "headers": [
            (_text(pair[0], "x").encode("utf-8", "replace"),
             _text(pair[1], "y").encode("utf-8", "replace"))
            for pair in _list(found.get("headers")) if isinstance(pair, list) and len(pair) == 2
        ],
        "state": {"clock": SimpleNamespace(start=_nothing, stop=_nothing, cut=_nothing)},
    }  # fmt: skip
    bodies = [_text(part, "") for part in _list(found.get("body"))]
    messages = _messages(bodies, is_http=is_http)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    for message in sent:
        status = message.get("status")
        if status is not None and not (200 <= status < 500 or status == 503):
            raise Broken(f"status {status}")
        if message["type"] == "websocket.send":
            check_answer(message["text"])


def _messages(bodies: list[str], *, is_http: bool) -> Any:
    kind = "http.request" if is_http else "websocket.receive"
    if not is_http:
        yield {"type": "websocket.connect"}
    for number, text in enumerate(bodies):
        data = text.encode("utf-8", "surrogatepass")
        more = number + 1 < len(bodies)
        yield {"type": kind, "body": data, "more_body": more} if is_http else {
            "type": kind, "bytes": data, "text": None,
        }  # fmt: skip
    if is_http and not bodies:
        yield {"type": kind, "body": b""}
    while True:
        yield {"type": "http.disconnect" if is_http else "websocket.disconnect"}


def _text(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _nothing() -> None:
    pass
