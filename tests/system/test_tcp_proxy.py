"""The proxy that the chaos tests trust: each of its faults, on an echo server."""

import contextlib
import socket
import socketserver
import threading
import time

import pytest

from cli.local_peers import wait_until
from tests.system.tcp_proxy import BLACK_HOLE, Behaviour, TcpProxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(ConnectionResetError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


@pytest.fixture
def echo():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo):
    with TcpProxy(echo, seed=1) as proxy:
        yield proxy


def dial(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def said_back(sock, data):
    sock.sendall(data)
    return heard(sock, len(data))


def heard(sock, size):
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def is_silent(sock, seconds=0.1):
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)
    return False


def test_an_honest_proxy_changes_nothing(proxy):
    with dial(proxy) as sock:
        data = bytes(range(256)) * 20_000
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        assert heard(sock, len(data)) == data
        sender.join()


def test_an_end_is_passed_on_as_an_end(proxy):
    with dial(proxy) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert heard(sock, 10) == b"last words"
        assert sock.recv(1) == b""
    wait_until(lambda: proxy.connections == 0, 2, "the connection is forgotten")


def test_a_delay_counts_in_both_directions_and_keeps_the_order(proxy):
    proxy.behave(Behaviour(delay_s=0.05, jitter_s=0.02))
    with dial(proxy) as sock:
        began = time.monotonic()
        assert said_back(sock, b"a") == b"a"
        assert time.monotonic() - began >= 0.1
        for number in range(20):
            sock.sendall(bytes([number]))
        assert heard(sock, 20) == bytes(range(20))


def test_a_cut_resets_what_is_open_and_new_connections_pass(proxy):
    with dial(proxy) as sock, dial(proxy) as other:
        assert said_back(sock, b"a") + said_back(other, b"b") == b"ab"
        assert proxy.cut() == 2
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with dial(proxy) as sock:
        assert said_back(sock, b"c") == b"c"


def test_a_refusing_proxy_keeps_open_connections_and_listens_at_the_same_port_later(proxy):
    with dial(proxy) as sock:
        assert said_back(sock, b"a") == b"a"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert said_back(sock, b"b") == b"b"
        proxy.heal()
        with dial(proxy) as other:
            assert said_back(other, b"c") == b"c"


def test_a_black_hole_carries_nothing_and_loses_nothing(proxy):
    with dial(proxy) as sock:
        assert said_back(sock, b"a") == b"a"
        proxy.behave(BLACK_HOLE)
        sock.sendall(b"b")
        with dial(proxy) as newcomer:
            newcomer.sendall(b"n")
            assert is_silent(sock)
            assert is_silent(newcomer)
            proxy.heal()
            assert heard(sock, 1) == b"b"
            assert heard(newcomer, 1) == b"n"


@pytest.mark.parametrize("hole", [Behaviour(hold_up=True), Behaviour(hold_down=True)])
def test_a_hole_may_be_one_way(proxy, hole):
    with dial(proxy) as sock:
        assert said_back(sock, b"a") == b"a"
        proxy.behave(hole)
        sock.sendall(b"b")
        assert is_silent(sock)
        proxy.heal()
        assert heard(sock, 1) == b"b"


def test_a_fault_may_be_meant_for_one_client(echo):
    mine = set()
    with (
        TcpProxy(echo, whose=lambda port: "me" if port in mine else "you") as proxy,
        socket.socket() as sock,
        dial(proxy) as other,
    ):
        sock.bind(("127.0.0.1", 0))
        mine.add(sock.getsockname()[1])
        proxy.behave(BLACK_HOLE, whose="me")
        sock.connect(("127.0.0.1", proxy.port))
        sock.sendall(b"a")
        assert is_silent(sock)
        assert said_back(other, b"b") == b"b"
        assert proxy.cut(whose="me") == 1
        assert said_back(other, b"c") == b"c"


def test_the_same_seed_flips_the_same_bytes_however_the_stream_is_cut(echo):
    def corrupted(seed, size):
        with TcpProxy(echo, seed=seed) as proxy:
            proxy.behave(Behaviour(corrupt=0.01))
            with dial(proxy) as sock:
                return b"".join(said_back(sock, bytes(size)) for _ in range(10_000 // size))

    whole = corrupted(1, 10_000)
    assert 100 < sum(byte != 0 for byte in whole) < 300  # 1 % each way
    assert corrupted(1, 2_500) == whole
    assert corrupted(2, 10_000) != whole


def test_connections_wait_until_it_is_known_who_stands_behind(echo):
    with TcpProxy() as proxy, dial(proxy) as sock:
        sock.sendall(b"a")
        assert is_silent(sock)
        proxy.stand_before(echo)
        assert heard(sock, 1) == b"a"


def test_a_server_that_is_gone_looks_like_a_reset(proxy):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy.stand_before(unused.getsockname()[1])
    with pytest.raises(ConnectionResetError), dial(proxy) as sock:  # while it dials or after
        sock.recv(1)
