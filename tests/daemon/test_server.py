"""The control API through real Hypercorn, on a Unix socket and on loopback TCP."""

import contextlib
import json
import os
import socket
import ssl
import stat
from types import SimpleNamespace

import jsonrpcclient
import pytest
import trio
import trio.testing
import trio_websocket

from daemon import access, listener
from daemon import server as control_server
from daemon.access import Access, Tokens, access_over_tcp, read_token, read_tokens
from daemon.events import EventLog
from daemon.jsonrpc import Method
from daemon.listener import MAX_BODY_BYTES, Tls, serve
from daemon.methods import EventsApi
from daemon.server import MAX_SUBSCRIPTIONS, ControlApp
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


@pytest.mark.parametrize("origin", ["http://localhost", "null", "https://evil.example", ""])
@pytest.mark.parametrize("tcp", [False, True])
async def test_web_pages_are_refused(serving, origin, tcp):
    async with serving(tcp=tcp) as server:
        assert (await server.rpc(STATUS, Origin=origin, **ADMIN)).status == 403
        assert (await server.http("GET", "/metrics", Origin=origin, **ADMIN)).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-origin", "none"])
@pytest.mark.parametrize("tcp", [False, True])
async def test_what_a_browser_marks_as_its_own_is_refused(serving, site, tcp):
    async with serving(tcp=tcp) as server:
        assert (await server.rpc(STATUS, Sec_Fetch_Site=site, **ADMIN)).status == 403


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        (None, 415),
    ],
)
async def test_over_tcp_a_body_is_called_json(serving, media_type, status):
    async with serving(tcp=True) as server:
        reply = await server.rpc(STATUS, Content_Type=media_type, **ADMIN)
        assert reply.status == status
    async with serving() as server:
        assert (await server.rpc(STATUS, Content_Type=media_type)).status == 200


async def test_a_refusal_does_not_wait_for_the_body(serving):
    async with serving(tcp=True) as server, await server.connect() as stream:
        head = "POST /rpc HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\n"
        await stream.send_all(f"{head}Content-Length: 1000\r\n\r\n".encode())
        raw = b""
        with trio.fail_after(5):
            while b"\r\n\r\n" not in raw:
                raw += await stream.receive_some()
        assert Reply(raw).status == 403
        assert Reply(raw).headers["connection"] == "close"


async def test_a_refused_client_that_sends_much_still_hears_why(serving):
    async with serving(tcp=True) as server:
        assert (await server.rpc(b" " * MAX_BODY_BYTES)).status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("gossip.example.org:7401", 200),
        ("GOSSIP.example.org", 200),
        ("192.0.2.7:7401", 200),
        ("[2001:db8::7]:7401", 200),
        ("localhost", 403),
        ("127.0.0.1:7401", 403),
        ("evil.example", 403),
    ],
)
async def test_beyond_loopback_only_the_names_that_are_configured_are_ours(serving, host, status):
    names = ("gossip.example.org", "2001:db8::7")
    async with serving(tcp=True, names=names, bound="192.0.2.7") as server:
        assert (await server.rpc(STATUS, Host=host, **ADMIN)).status == status


# The read-only token.

READER = {"Authorization": f"Bearer {READ_TOKEN}"}
STOP = {"jsonrpc": "2.0", "id": 2, "method": "stop"}


async def test_the_read_only_token_reads_and_changes_nothing(serving):
    async with serving(tcp=True) as server:
        assert (await server.rpc(STOP, **ADMIN)).json["result"] == "stopped"
        fine, refused = (await server.rpc([STATUS, STOP], **READER)).json
        assert fine == RESULT
        assert (refused["error"]["code"], refused["error"]["data"]["kind"]) == (
            -32020, "not_allowed",
        )  # fmt: skip
        for path in ("/metrics", "/healthz"):
            assert (await server.http("GET", path, **READER)).status == 200


async def test_the_read_only_token_may_follow_events_and_no_more(serving):
    async with serving(tcp=True) as server, server.websocket(headers=READER.items()) as client:
        await subscribe(client, since=0)
        server.events.add("a")
        assert (await read(client))["params"]["kind"] == "a"
        await client.send_message(json.dumps(STOP))
        assert (await read(client))["error"]["data"]["kind"] == "not_allowed"


def test_tokens_are_compared_both_whatever_is_sent(monkeypatch):
    compared = []

    def compare_digest(sent, token):
        compared.append(token)
        return sent == token

    monkeypatch.setattr(access.hmac, "compare_digest", compare_digest)
    tokens = Tokens(TOKEN, READ_TOKEN)
    for sent in (TOKEN, READ_TOKEN, "x", ""):
        tokens.right(b"Bearer " + sent.encode())
    assert compared == [TOKEN.encode(), READ_TOKEN.encode()] * 4


def test_tokens_do_not_show_in_what_is_printed():
    shown = repr(access_over_tcp("127.0.0.1", names=(), tokens=Tokens(TOKEN, READ_TOKEN)))
    assert TOKEN not in shown
    assert READ_TOKEN not in shown


def test_two_tokens_that_are_the_same_are_refused(tmp_path):
    read_tokens(tmp_path / "a", tmp_path / "b")
    with pytest.raises(PermissionError, match="same token"):
        read_tokens(tmp_path / "a", tmp_path / "a")


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder)


async def test_over_tls_the_api_answers(serving, certificate):
    async with serving(tcp=True, tls=Tls(*certificate)) as server:
        assert (await server.rpc(STATUS, **ADMIN)).json == RESULT
        assert (await server.rpc(STATUS)).status == 401


async def test_a_tls_port_does_not_speak_plainly_and_lives_on(serving, certificate):
    async with serving(tcp=True, tls=Tls(*certificate)) as server:
        with trio.fail_after(5):
            async with await trio.open_tcp_stream(*server.address) as plain:
                await plain.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                with contextlib.suppress(trio.BrokenResourceError):
                    assert b"HTTP" not in await plain.receive_some()
        assert (await server.rpc(STATUS, **ADMIN)).status == 200


def test_tls_before_1_2_is_refused(certificate):
    assert Tls(*certificate).context().minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_key_that_others_can_read_is_refused(certificate, tmp_path):
    key = tmp_path / "key.pem"
    key.write_bytes(certificate[1].read_bytes())
    key.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Tls(certificate[0], key).context()


def test_files_that_are_no_certificate_and_key_are_named(certificate, tmp_path):
    key = tmp_path / "key.pem"
    key.write_text("nonsense")
    key.chmod(0o600)
    with pytest.raises(OSError, match="no certificate and its key"):
        Tls(certificate[0], key).context()
    with pytest.raises(OSError, match=r"absent\.pem"):
        Tls(tmp_path / "absent.pem", certificate[1]).context()
    with pytest.raises(OSError, match=r"absent\.key"):
        Tls(certificate[0], tmp_path / "absent.key").context()


# Limits. They are shortened here, so that nothing waits long.

UPGRADE = (
    b"GET /rpc HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def until_hung_up(stream):
    """What comes until the server hangs up."""
    raw = b""
    with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            raw += chunk
    return raw


async def drip(stream, text):
    """A byte at a time, until nobody takes it."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in text:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)


async def test_a_head_that_drips_is_cut(serving, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_LIMIT_S", 0.3)
    async with (
        serving() as server,
        await server.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(drip, stream, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1000)
        assert await until_hung_up(stream) == b""
        nursery.cancel_scope.cancel()


async def test_a_body_that_drips_is_cut_with_a_word(serving, monkeypatch):
    monkeypatch.setattr(control_server, "BODY_LIMIT_S", 0.3)
    monkeypatch.setattr(control_server, "LINGER_S", 0.1)
    async with serving() as api, await api.connect() as stream, trio.open_nursery() as nursery:
        head = b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        await stream.send_all(head)
        nursery.start_soon(drip, stream, b" " * 1000)
        assert Reply(await until_hung_up(stream)).status == 408
        nursery.cancel_scope.cancel()


async def test_a_connection_that_says_no_more_is_hung_up_on(serving, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_LIMIT_S", 0.3)
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert Reply(await until_hung_up(stream)).body == b"ok\n"


async def test_a_websocket_may_be_silent_for_long(serving, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_LIMIT_S", 0.1)
    async with serving() as server, server.websocket() as client:
        await trio.sleep(0.4)
        await client.send_message(json.dumps(STATUS))
        assert await read(client) == RESULT


async def test_a_tls_handshake_that_never_ends_is_cut(serving, certificate, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_LIMIT_S", 0.3)
    async with (
        serving(tcp=True, tls=Tls(*certificate)) as server,
        await trio.open_tcp_stream(*server.address) as silent,
    ):
        assert await until_hung_up(silent) == b""


async def test_a_client_that_reads_nothing_is_hung_up_on(serving, monkeypatch):
    monkeypatch.setattr(listener, "SEND_LIMIT_S", 0.3)
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(UPGRADE)
        with trio.fail_after(5):
            assert b" 101 " in await stream.receive_some()
            text = b'{"jsonrpc": "2.0", "id": 1, "method": "events.subscribe"}'
            await stream.send_all(b"\x81" + bytes([0x80 + len(text)]) + bytes(4) + text)
            while not server.events._subscriptions:
                await trio.lowlevel.checkpoint()
            while server.events._subscriptions:
                server.events.add("a", {"x": "y" * 50_000})
                await trio.sleep(0.01)
        assert (await server.rpc(STATUS)).status == 200


async def test_a_client_that_reads_nothing_does_not_delay_the_end(serving):
    with trio.fail_after(5):
        async with serving() as server:
            stream = await server.connect()
            with trio.move_on_after(0.5):
                while True:
                    await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    await trio.aclose_forcefully(stream)


async def test_connections_have_a_limit(serving, monkeypatch):
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    async with serving() as server:
        async with server.websocket(), server.websocket() as second:
            async with await server.connect() as third:
                assert await until_hung_up(third) == b""
            await second.send_message(json.dumps(STATUS))
            assert await read(second) == RESULT
        with trio.fail_after(5):
            while await server.hangs_up():
                await trio.lowlevel.checkpoint()


async def test_who_left_is_counted_no_longer(serving, monkeypatch):
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    async with serving() as server:
        for _ in range(10):
            async with await server.connect() as stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b" 200 " in await stream.receive_some()
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_websockets_have_a_limit(serving, monkeypatch):
    monkeypatch.setattr(control_server, "MAX_WEBSOCKETS", 1)
    async with serving() as api, api.websocket() as first:
        with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True):
            async with api.websocket():
                pytest.fail("accepted")
        await first.send_message(json.dumps(STATUS))
        assert await read(first) == RESULT


async def test_subscriptions_have_a_limit(serving):
    async with serving() as server, server.websocket() as client:
        for _ in range(MAX_SUBSCRIPTIONS):
            await subscribe(client)
        request = {"jsonrpc": "2.0", "id": 8, "method": "events.subscribe"}
        await client.send_message(json.dumps(request))
        error = (await read(client))["error"]
        assert (error["code"], error["data"]["kind"]) == (-32021, "too_many_subscriptions")


async def test_a_message_that_is_too_large_ends_its_websocket(serving):
    async with serving() as server:
        async with server.websocket() as client:
            with contextlib.suppress(trio_websocket.ConnectionClosed):
                await client.send_message(" " * (MAX_BODY_BYTES + 1))
            with trio.fail_after(5), pytest.raises(trio_websocket.ConnectionClosed):
                await client.get_message()
        assert (await server.rpc(STATUS)).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET " + b"/" * 100_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /rpc HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
async def test_what_is_no_request_of_ours_costs_its_connection_only(serving, monkeypatch, raw, tcp):
    monkeypatch.setattr(listener, "HEAD_LIMIT_S", 0.3)
    async with serving(tcp=tcp) as server:
        async with await server.connect() as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(raw)
            assert b" 200 " not in await until_hung_up(stream)
        assert (await server.rpc(STATUS, **ADMIN)).json == RESULT


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", b"\x81\x05hello", b"\x88\x80\0\0\0\0"])
async def test_a_broken_websocket_frame_costs_its_connection_only(serving, frame):
    async with serving() as server:
        async with await server.connect() as stream:
            await stream.send_all(UPGRADE)
            with trio.fail_after(5):
                assert b" 101 " in await stream.receive_some()
            await stream.send_all(frame)
            await until_hung_up(stream)
        assert (await server.rpc(STATUS)).status == 200


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
