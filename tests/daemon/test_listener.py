"""The control API's connections: TLS, and limits in time, number and size."""

import contextlib
import json
import ssl

import pytest
import trio
import trio.testing
import trio_websocket

from daemon import listener
from daemon import server as control_server
from daemon.listener import MAX_BODY_BYTES, Tls
from daemon.server import MAX_SUBSCRIPTIONS
from tests.daemon.control_server import (
    ADMIN,
    RESULT,
    STATUS,
    Reply,
    read,
    subscribe,
    until_hung_up,
)

# TLS.


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
