"""The control API through real Hypercorn, on a Unix socket and on loopback TCP."""

import contextlib
import json
import os
import socket
import stat
from types import SimpleNamespace

import jsonrpcclient
import pytest
import trio
import trio_websocket

from daemon.access import Access, Tokens, access_over_tcp, read_token
from daemon.events import EventLog
from daemon.jsonrpc import Method
from daemon.listener import MAX_BODY_BYTES, serve
from daemon.methods import EventsApi
from daemon.server import ControlApp

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

    def __init__(self, events, address):
        self.events = events
        self.address = address

    async def connect(self):
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
            yield Server(events, (host, int(port)) if tcp else bind.removeprefix("unix:"))
            nursery.cancel_scope.cancel()

    return make


async def read(client):
    with trio.fail_after(5):
        return json.loads(await client.get_message())


async def test_the_unix_socket_is_the_owners_alone_and_answers(serving):
    async with serving() as server:
        mode = os.stat(server.address).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        reply = await server.rpc(STATUS)
        assert (reply.status, reply.json) == (200, RESULT)
        assert reply.headers["content-type"] == "application/json"


async def test_serving_leaves_the_umask_alone(serving):
    before = os.umask(0o022)
    try:
        async with serving():
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_a_stale_socket_is_replaced(serving, tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control.sock"))
    async with serving() as server:
        assert (await server.rpc(STATUS)).status == 200


async def test_a_batch_is_answered_and_a_notification_is_not(serving):
    async with serving() as server:
        reply = await server.rpc([STATUS, {"foo": 1}])
        assert [entry.get("result") for entry in reply.json] == ["fine", None]
        silent = await server.rpc({"jsonrpc": "2.0", "method": "status"})
        assert (silent.status, silent.body) == (204, b"")
        assert (await server.rpc(b"{")).json["error"]["code"] == -32700


async def test_a_client_that_is_not_ours_understands_the_answers(serving):
    async with serving() as server:
        good = await server.rpc(jsonrpcclient.request("status"))
        bad = await server.rpc(jsonrpcclient.request("status", params=[1]))
    assert jsonrpcclient.parse(good.json).result == "fine"
    assert jsonrpcclient.parse(bad.json).code == -32602


async def test_a_connection_may_be_used_again(serving):
    body = json.dumps(STATUS).encode()
    async with serving() as server, await server.connect() as stream:
        for _ in range(2):
            head = f"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            raw = b""
            with trio.fail_after(5):
                while not raw.endswith(b"}"):
                    raw += await stream.receive_some()
            assert Reply(raw).json == RESULT


async def test_health_and_metrics_are_plain_text(serving):
    async with serving() as server:
        health, metrics = await server.http("GET", "/healthz"), await server.http("GET", "/metrics")
        assert (health.status, health.body) == (200, b"ok\n")
        assert (metrics.status, metrics.body) == (200, b"gossipd_members 3\n")
        assert metrics.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/metrics", 404), ("GET", "/rpc", 405), ("DELETE", "/rpc", 405)],
)
async def test_other_requests_are_told_what_there_is(serving, method, path, status):
    async with serving() as server:
        assert (await server.http(method, path)).status == status


async def test_a_body_has_a_limit(serving):
    async with serving() as server:
        largest = json.dumps(STATUS).encode().ljust(MAX_BODY_BYTES)
        assert (await server.rpc(largest)).json == RESULT
        reply = await server.rpc(largest + b" ")
        assert reply.status == 413
        assert str(MAX_BODY_BYTES) in reply.body.decode()
        assert (await server.rpc(STATUS)).status == 200


# TCP and its token.


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (None, 401),
        ("", 401),
        ("Bearer ", 401),
        ("Bearer another", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Basic YTpi", 401),
        ("Bearer \xe9", 401),
    ],
)
async def test_tcp_wants_the_token(serving, authorization, status):
    async with serving(tcp=True) as server:
        for method, path in (("POST", "/rpc"), ("GET", "/healthz"), ("GET", "/metrics")):
            body = json.dumps(STATUS).encode() if method == "POST" else b""
            headers = {"Authorization": authorization, "Content_Type": "application/json"}
            reply = await server.http(method, path, body, **headers)
            assert reply.status == status
        if status == 401:
            assert b"Authorization: Bearer" in reply.body
            assert TOKEN.encode() not in reply.body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7411", 200),
        ("localhost", 200),
        ("[::1]:7411", 200),
        ("evil.example:7411", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.7", 403),
        ("localhost.", 403),
        ("", 403),
    ],
)
async def test_a_foreign_host_name_is_refused(serving, host, status):
    async with serving(tcp=True) as server:
        reply = await server.rpc(STATUS, Host=host, Authorization=f"Bearer {TOKEN}")
        assert reply.status == status


@pytest.mark.parametrize("origin", ["http://localhost", "null", "https://evil.example"])
async def test_web_pages_are_refused(serving, origin):
    async with serving(tcp=True) as server:
        reply = await server.rpc(STATUS, Origin=origin, Authorization=f"Bearer {TOKEN}")
        assert reply.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer another")],
        [("Authorization", f"Bearer {TOKEN}"), ("Origin", "http://localhost")],
    ],
)
async def test_the_websocket_wants_the_token_too(serving, headers):
    async with serving(tcp=True) as server:
        with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True):
            async with server.websocket(headers=headers):
                pytest.fail("accepted")


async def test_the_websocket_opens_with_the_token(serving):
    async with serving(tcp=True) as server:
        headers = [("Authorization", f"Bearer {TOKEN}")]
        async with server.websocket(headers=headers) as client:
            await client.send_message(json.dumps(STATUS))
            assert await read(client) == RESULT


def test_a_token_is_made_once_and_readable_by_the_owner_alone(tmp_path):
    path = tmp_path / "control.token"
    token = read_token(path)
    assert len(token) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path) == token
    assert read_token(tmp_path / "other.token") != token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "control.token"
    read_token(path)
    path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        read_token(path)


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_token_file_lets_nobody_in(tmp_path, text):
    path = tmp_path / "control.token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(PermissionError, match="empty"):
        read_token(path)


# Events.


async def test_the_websocket_answers_like_http(serving):
    async with serving() as server, server.websocket() as client:
        await client.send_message(json.dumps([STATUS, STATUS]))
        assert await read(client) == [RESULT, RESULT]
        await client.send_message(b"{")
        assert (await read(client))["error"]["code"] == -32700
        await client.send_message('{"jsonrpc": "2.0", "method": "status"}')
        await client.send_message(json.dumps(STATUS))
        assert await read(client) == RESULT


async def test_another_path_is_no_websocket(serving):
    async with serving() as server:
        with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True):
            async with server.websocket("/events"):
                pytest.fail("accepted")


async def subscribe(client, **params):
    request = {"jsonrpc": "2.0", "id": 7, "method": "events.subscribe", "params": params}
    await client.send_message(json.dumps(request))
    assert (await read(client))["id"] == 7


async def test_events_come_from_a_number_on_and_then_as_they_happen(serving):
    async with serving() as server, server.websocket() as client:
        for kind in ("link.up", "member.dead", "link.down", "link.up"):
            server.events.add(kind)
        await subscribe(client, prefix="link.", since=1)
        seen = [await read(client) for _ in range(2)]
        server.events.add("member.dead")
        server.events.add("link.up", {"peer": "a"})
        seen.append(await read(client))
        assert [message["params"]["seq"] for message in seen] == [3, 4, 6]
        assert seen[-1]["method"] == "event"
        assert seen[-1]["params"]["data"] == {"peer": "a"}
        assert "id" not in seen[-1]


async def test_without_a_number_only_new_events_come(serving):
    async with serving() as server, server.websocket() as client:
        server.events.add("old")
        await subscribe(client)
        with trio.fail_after(5):
            while not server.events._subscriptions:
                await trio.lowlevel.checkpoint()
        server.events.add("new")
        assert (await read(client))["params"]["kind"] == "new"


async def test_a_subscription_ends_with_its_connection(serving):
    async with serving() as server:
        async with server.websocket() as client:
            await subscribe(client, since=0)
            server.events.add("a")
            await read(client)
            assert server.events._subscriptions
        with trio.fail_after(5):
            while server.events._subscriptions:
                server.events.add("b")  # a send to somebody who hung up must not crash anything
                await trio.sleep(0.01)
        assert (await server.rpc(STATUS)).status == 200


async def test_subscribing_needs_a_websocket(serving):
    async with serving() as server:
        reply = await server.rpc({"jsonrpc": "2.0", "id": 1, "method": "events.subscribe"})
        assert reply.json["error"]["data"]["kind"] == "needs_websocket"
