"""The control API through real Hypercorn, on a Unix socket and on loopback TCP."""

import json
import os
import socket
import stat

import jsonrpcclient
import pytest
import trio
import trio.testing
import trio_websocket

from daemon.listener import MAX_BODY_BYTES
from tests.daemon.control_server import RESULT, STATUS, Reply, read, subscribe


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
