"""A control API served by the real listener, and a client that can misbehave."""

import contextlib
import json
import ssl
from types import SimpleNamespace

import pytest
import trio
import trio.testing
import trio_websocket

from daemon.access import Access, Tokens, access_over_tcp
from daemon.events import EventLog
from daemon.jsonrpc import Method
from daemon.listener import serve
from daemon.node_api import EventsApi
from daemon.server import ControlApp
from tests.system.certificates import make_certificate

TOKEN = "a-secret"
READ_TOKEN = "another-secret"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
STATUS = {"jsonrpc": "2.0", "id": 1, "method": "status"}
RESULT = {"jsonrpc": "2.0", "id": 1, "result": "fine"}


async def status() -> str:
    """Fine."""
    return "fine"


async def stop() -> str:
    """Changes something."""
    return "stopped"


class Reply:
    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """A served ControlApp; `address` is a Unix socket's path or a (host, port)."""

    def __init__(self, events, address, trusted=None):
        self.events = events
        self.address = address
        self.trusted = trusted  # an ssl.SSLContext: speak TLS

    async def connect(self):
        if self.trusted is not None:
            return await trio.open_ssl_over_tcp_stream(
                *self.address, ssl_context=self.trusted, https_compatible=True
            )
        if isinstance(self.address, str):
            return await trio.open_unix_socket(self.address)
        return await trio.open_tcp_stream(*self.address)

    async def http(self, method, path, body=b"", **headers):
        lines = {"Host": "localhost", "Connection": "close", "Content-Length": len(body), **headers}
        head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in lines.items() if v is not None)
        async with await self.connect() as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # refused before it was all read
                await stream.send_all(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            raw = b""
            with trio.fail_after(5):
                async for chunk in stream:
                    raw += chunk
        return Reply(raw)

    async def hangs_up(self):
        """Whether a request is hung up on instead of answered."""
        try:
            await self.http("GET", "/healthz")
        except (IndexError, trio.BrokenResourceError):
            return True
        return False

    async def rpc(self, request, **headers):
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        headers = {"Content_Type": "application/json", **headers}
        return await self.http("POST", "/rpc", body, **headers)

    @contextlib.asynccontextmanager
    async def websocket(self, path="/rpc", headers=()):
        async with await self.connect() as stream, trio.open_nursery() as nursery:
            with trio.fail_after(5):
                client = await trio_websocket.wrap_client_stream(
                    nursery, stream, "localhost", path, extra_headers=list(headers)
                )
            yield client
            await client.aclose()
            nursery.cancel_scope.cancel()


@pytest.fixture
def serving(tmp_path):
    """`async with serving(tcp=…, names=…, tls=…) as server:`"""

    @contextlib.asynccontextmanager
    async def make(tcp=False, names=(), tls=None, bound="127.0.0.1"):
        events = EventLog()
        api = EventsApi(SimpleNamespace(events=events))
        methods = {
            "status": Method("status", "Fine.", status, True),
            "stop": Method("stop", "Changes something.", stop, False),
            "events.subscribe": Method("events.subscribe", "Follow.", api.subscribe, True),
        }
        tokens = Tokens(TOKEN, READ_TOKEN)
        access = access_over_tcp(bound, names=names, tokens=tokens) if tcp else Access()
        app = ControlApp(methods, events, access=access, prometheus=lambda: "gossipd_members 3\n")
        bind = "127.0.0.1:0" if tcp else f"unix:{tmp_path}/control.sock"
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5):
                where = await nursery.start(serve, app, bind, tls)
            host, _, port = where.rpartition("/")[2].rpartition(":")
            address = (host, int(port)) if tcp else bind.removeprefix("unix:")
            yield Server(
                events, address, tls and ssl.create_default_context(cafile=tls.certificate)
            )
            nursery.cancel_scope.cancel()

    return make


async def read(client):
    with trio.fail_after(5):
        return json.loads(await client.get_message())


async def subscribe(client, **params):
    request = {"jsonrpc": "2.0", "id": 7, "method": "events.subscribe", "params": params}
    await client.send_message(json.dumps(request))
    assert (await read(client))["id"] == 7


async def until_hung_up(stream):
    """What comes until the server hangs up."""
    raw = b""
    with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            raw += chunk
    return raw


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder)
