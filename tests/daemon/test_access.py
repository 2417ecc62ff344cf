"""Who may call the control API: tokens, host names, web pages."""

import json
import stat

import pytest
import trio
import trio.testing
import trio_websocket

from daemon import access
from daemon.access import Tokens, access_over_tcp, read_token, read_tokens
from daemon.listener import MAX_BODY_BYTES
from tests.daemon.control_server import (
    ADMIN,
    READ_TOKEN,
    RESULT,
    STATUS,
    TOKEN,
    Reply,
    read,
    subscribe,
)


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


# Tokens.


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
