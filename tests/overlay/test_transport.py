from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from overlay.addresses import split_address
from overlay.transport import (
    HANDSHAKE_S,
    ConnectionLost,
    DialRefused,
    HandshakeFailed,
    Tcp,
    open_client,
    open_server,
    open_unwrapping_nursery,
)
from overlay.wire import SUBPROTOCOL

LIMIT = 10_000


def client(stream, path="/control"):
    return open_client(stream, host="peer:1", path=path, max_message_bytes=LIMIT)


def server(stream):
    return open_server(stream, paths=("/control", "/data"), max_message_bytes=LIMIT)


@asynccontextmanager
async def open_pair():
    """A client's and a server's websocket, joined in memory."""
    near, far = trio.testing.memory_stream_pair()
    send, receive = trio.open_memory_channel(1)

    async def serve():
        try:
            async with server(far) as socket:
                await send.send(socket)
                await trio.sleep_forever()
        except ConnectionLost:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client(near) as socket:
            yield socket, await receive.receive()
        nursery.cancel_scope.cancel()


async def drain(stream):
    """What the other side says until it closes."""
    said = b""
    try:
        while data := await stream.receive_some():
            said += data
    except trio.BrokenResourceError:
        pass
    return said


def upgrade(path="/control", protocol=SUBPROTOCOL):
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    ).encode()


def test_messages_cross_in_both_directions_and_are_counted(run):
    async def main():
        async with open_pair() as (one, two):
            assert (one.path, two.path) == ("/control", "/control")
            for message in (b"", b"x", bytes(LIMIT)):
                await one.send(message)
                assert await two.receive() == message
                await two.send(message)
                assert await one.receive() == message
            assert one.bytes_sent > 10_000
            assert one.bytes_sent == two.bytes_received
            assert two.bytes_sent == one.bytes_received

    run(main)


def test_a_close_is_orderly_and_carries_its_reason(run):
    async def main():
        async with open_pair() as (one, two), trio.open_nursery() as nursery:
            nursery.start_soon(one.close, "leaving " + 200 * "x")
            with pytest.raises(ConnectionLost, match="leaving") as lost:
                await two.receive()
            assert lost.value.orderly
            with pytest.raises(ConnectionLost):
                await two.send(b"late")

    run(main)


def test_a_stream_that_ends_is_a_lost_connection(run):
    async def main():
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def serve():
                async with server(far) as socket:
                    with pytest.raises(ConnectionLost) as lost:
                        await socket.receive()
                    assert not lost.value.orderly

            nursery.start_soon(serve)
            async with client(near):
                await trio.aclose_forcefully(near)

    run(main)


def test_a_text_message_is_a_lost_connection(run):
    async def main():
        async with open_pair() as (one, two):
            await one._connection.send_message("text")
            with pytest.raises(ConnectionLost, match="text message") as lost:
                await two.receive()
            assert not lost.value.orderly

    run(main)


def test_a_message_over_the_limit_is_a_lost_connection(run):
    async def main():
        async with open_pair() as (one, two):
            await one.send(bytes(LIMIT + 1))
            with pytest.raises(ConnectionLost):
                await two.receive()

    run(main)


@pytest.mark.parametrize("frame", [b"\x00\x80", b"\x89\x80", b"\x8a\x80"])
def test_frames_that_no_message_comes_of_are_not_even_unpacked(run, frame):
    """Fragments, pings and pongs: a thousand of them in one piece, each with an empty mask."""

    async def main():
        async with open_pair() as (one, two):
            unpacked = two._connection._wsproto.receive_data
            seen = []
            two._connection._wsproto.receive_data = lambda data: seen.append(data) or unpacked(data)
            await one._stream.send_all(b"\x02\x80" + bytes(4) + (frame + bytes(4)) * 1000)
            with pytest.raises(ConnectionLost, match="no message comes of it") as lost:
                await two.receive()
            assert not lost.value.orderly
            assert seen == []

    run(main)


@pytest.mark.parametrize("headers", ["", "Content-Length: 10\r\n"])
def test_bytes_before_the_answer_hide_no_frames(run, headers):
    """They look like the beginning of a frame that never ends, and the library drops them."""
    request = upgrade().replace(b"Upgrade: websocket", headers.encode() + b"Upgrade: websocket")
    ended = []

    async def main():
        near, far = trio.testing.memory_stream_pair()

        async def serve():
            try:
                async with server(far) as socket:
                    await socket.receive()
            except (ConnectionLost, HandshakeFailed) as lost:
                ended.append(str(lost))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await near.send_all(request + b"\x82\x7f" + (2**62).to_bytes(8))
            assert b" 101 " in await near.receive_some()
            await near.send_all((b"\x89\x80" + bytes(4)) * 1000)

    run(main)
    assert ended == ["sends and sends, and no message comes of it"]


@pytest.mark.parametrize("path", ["/", "/control/", "/rpc", "/data?x=1"])
def test_a_wrong_path_is_refused_on_both_sides(run, path):
    async def main():
        near, far = trio.testing.memory_stream_pair()

        async def serve():
            with pytest.raises(HandshakeFailed, match="not a link of ours"):
                async with server(far):
                    raise AssertionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(HandshakeFailed):
                async with client(near, path):
                    raise AssertionError

    run(main)


def test_an_unknown_sub_protocol_is_refused(run):
    async def main():
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def serve():
                with pytest.raises(HandshakeFailed):
                    async with server(far):
                        raise AssertionError

            nursery.start_soon(serve)
            await near.send_all(upgrade(protocol="other.1"))
            assert (await drain(near)).startswith(b"HTTP/1.1 400")

    run(main)


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    bytes(range(256)),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS client hello
    b"\r\n\r\n",
    upgrade()[:40],
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"GET " + b"a" * 100_000,
]


@pytest.mark.parametrize("opening", GARBAGE)
@pytest.mark.parametrize("hangs_up", [True, False])
def test_what_is_no_handshake_is_over_in_bounded_time(run, opening, hangs_up):
    async def main():
        near, far = trio.testing.memory_stream_pair()
        await near.send_all(opening)
        if hangs_up:
            await near.aclose()
        began = trio.current_time()
        with pytest.raises(HandshakeFailed):
            async with server(far):
                raise AssertionError
        assert trio.current_time() - began <= HANDSHAKE_S

    run(main)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"SSH-2.0-x\r\n", bytes(100),
     b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Accept: wrong\r\n\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_listener_that_is_no_peer_fails_the_dial_in_bounded_time(run, answer, hangs_up):
    async def main():
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(answer)
        if hangs_up:
            await far.aclose()
        began = trio.current_time()
        with pytest.raises(HandshakeFailed):
            async with client(near):
                raise AssertionError
        assert trio.current_time() - began <= HANDSHAKE_S

    run(main)


def test_leaving_the_block_ends_the_stream_also_after_a_failure(run):
    async def main():
        async with trio.open_nursery() as nursery:
            near, far = trio.testing.memory_stream_pair()

            async def serve():
                async with server(far) as socket:
                    with pytest.raises(ConnectionLost):
                        await socket.receive()

            nursery.start_soon(serve)
            with pytest.raises(ZeroDivisionError):
                async with client(near):
                    raise ZeroDivisionError
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")

    run(main)


def test_a_single_failure_comes_out_of_the_nursery_as_itself(run):
    async def main():
        async with open_unwrapping_nursery(), trio.open_nursery():
            raise KeyError

    with pytest.raises(KeyError):
        run(main)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("ws://peer:7", "peer", 7),
        ("wss://peer:7", "peer", 7),
        ("peer:7", "peer", 7),
        ("ws://10.0.0.1:65535/", "10.0.0.1", 65535),
        ("ws://[::1]:7000", "::1", 7000),
        ("[::]:0", "::", 0),
    ],
)
def test_addresses(address, host, port):
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", "peer", "peer:", "ws://peer", "wss://peer", "http://peer:7", "https://peer:7",
     "ws://peer:7/x", ":7", "peer:70000", "peer:-1", "peer:x", "ws://"],
)  # fmt: skip
def test_what_is_no_address_says_what_would_be(address):
    with pytest.raises(ValueError, match="write wss://host:port"):
        split_address(address)


# Real sockets.


def test_tcp_listens_on_a_port_of_its_choice_and_refuses_where_nobody_does(run):
    async def echo(stream):
        async with server(stream) as socket:
            await socket.send(await socket.receive())
            with pytest.raises(ConnectionLost):
                await socket.receive()

    async def main():
        network = Tcp()
        async with trio.open_nursery() as nursery:
            address = await nursery.start(network.listen, "127.0.0.1:0", echo)
            host, port = split_address(address)
            assert (host, port > 0) == ("127.0.0.1", True)
            async with client((await network.connect(address)).stream) as socket:
                await socket.send(b"hello")
                assert await socket.receive() == b"hello"
            nursery.cancel_scope.cancel()
        with pytest.raises(DialRefused, match=address):
            await network.connect(address)

    run(main, jump=False, limit_s=10)
