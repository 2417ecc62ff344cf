import contextlib
import json
import os
import socket
import ssl
import threading

import pytest

from cli.client import (
    NOT_ALLOWED,
    REFUSED,
    TIMED_OUT,
    UNREACHABLE,
    USAGE,
    ControlError,
    Target,
    call,
    post,
)
from tests.system.certificates import make_certificate


@pytest.fixture
def target(data_dir):
    return Target(data_dir / "control.sock", timeout_s=5.0)


@pytest.fixture
def tcp(serve, tmp_path):
    """A fake daemon on TCP, and a target with a token for it."""
    daemon = serve(("127.0.0.1", 0))
    (tmp_path / "token").write_text("a-secret\n")
    url = f"http://127.0.0.1:{daemon.address[1]}"
    return daemon, Target(tmp_path / "none", url=url, token_file=tmp_path / "token")


def error_of(target, method="node.status"):
    with pytest.raises(ControlError) as caught:
        call(target, method)
    return caught.value


def test_a_call_gives_the_result(daemon, target):
    daemon.results["node.status"] = {"round": 3}
    assert call(target, "node.status", {"a": 1}) == {"round": 3}
    assert daemon.calls == [("node.status", {"a": 1})]
    assert "Authorization" not in daemon.headers[0]


def test_parameters_may_be_positional_or_absent(daemon, target):
    daemon.results["m"] = None
    call(target, "m", [1])
    call(target, "m")
    assert daemon.calls == [("m", [1]), ("m", {})]


def test_a_raw_text_gets_the_raw_answer(daemon, target):
    daemon.reply = (204, "")
    assert post(target, '[{"é": 1}]') == ""
    assert daemon.requests == ['[{"é": 1}]']


def test_over_tcp_the_token_is_sent(tcp):
    daemon, target = tcp
    daemon.results["m"] = 1
    assert call(target, "m") == 1
    assert daemon.headers[0]["Authorization"] == "Bearer a-secret"
    assert daemon.headers[0]["Host"] == target.url.removeprefix("http://")


def test_an_error_of_the_daemons_keeps_its_words_and_data(daemon, target):
    daemon.errors["node.status"] = {"code": -1, "message": "not today", "data": {"kind": "x"}}
    error = error_of(target)
    assert (error.exit_code, str(error), error.data) == (REFUSED, "not today", {"kind": "x"})


@pytest.mark.parametrize(
    ("reply", "exit_code"),
    [
        ((401, "send a token"), NOT_ALLOWED),
        ((403, "no"), NOT_ALLOWED),
        ((413, "too large"), REFUSED),
        ((500, "oh"), REFUSED),
        ((None, ""), UNREACHABLE),
    ],
)
def test_http_errors_have_exit_codes(daemon, target, reply, exit_code):
    daemon.reply = reply
    assert error_of(target).exit_code == exit_code


@pytest.mark.parametrize("text", ["", "<html>", "[]", "3"])
def test_an_answer_that_is_no_json_rpc_is_said_so(daemon, target, text):
    daemon.reply = (200, text)
    error = error_of(target)
    assert error.exit_code == UNREACHABLE
    assert "gossipd" in str(error)


def test_without_a_daemon_the_way_to_one_is_shown(tmp_path):
    error = error_of(Target(tmp_path / "control.sock"))
    assert error.exit_code == UNREACHABLE
    assert "gossipd start" in str(error)
    assert str(tmp_path) in str(error)


def test_a_socket_whose_daemon_died_is_unreachable(serve, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    assert error_of(Target(tmp_path / "control.sock")).exit_code == UNREACHABLE


def test_a_path_too_long_for_a_socket_is_unreachable(tmp_path):
    assert error_of(Target(tmp_path / ("x" * 200))).exit_code == UNREACHABLE


@pytest.mark.parametrize("url", ["http://127.0.0.1:notaport", "http://127.0.0.1:99999", "nonsense"])
def test_an_url_that_is_none_is_wrong_usage(tmp_path, url):
    error = error_of(Target(tmp_path / "none", url=url))
    assert error.exit_code == USAGE
    assert "http://127.0.0.1:PORT" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_somebody_elses_socket_is_not_allowed(daemon, target):
    target.socket_path.chmod(0)
    assert error_of(target).exit_code == NOT_ALLOWED


def test_without_the_token_file_tcp_is_not_allowed(tcp, tmp_path):
    daemon, target = tcp
    error = error_of(Target(target.socket_path, url=target.url, token_file=tmp_path / "absent"))
    assert error.exit_code == NOT_ALLOWED
    assert not daemon.requests


def test_a_daemon_that_does_not_answer_is_given_up(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        error = error_of(Target(tmp_path / "control.sock", timeout_s=0.05))
    assert error.exit_code == TIMED_OUT
    assert "0.05 s" in str(error)


def test_the_request_is_json_rpc(daemon, target):
    daemon.results["m"] = 1
    call(target, "m", {"a": [None, "ü"]})
    assert json.loads(daemon.requests[0]) == {
        "jsonrpc": "2.0", "id": 1, "method": "m", "params": {"a": [None, "ü"]},
    }  # fmt: skip


def test_what_the_token_does_not_allow_has_its_exit_code(daemon, target):
    data = {"kind": "not_allowed"}
    daemon.errors["node.stop"] = {"code": -32020, "message": "needs admin", "data": data}
    error = error_of(target, "node.stop")
    assert (error.exit_code, error.data) == (NOT_ALLOWED, data)


@pytest.mark.parametrize("host", ["192.0.2.7", "gossip.example.org", "[2001:db8::7]"])
def test_no_token_travels_in_the_clear(tmp_path, host):
    error = error_of(Target(tmp_path / "none", url=f"http://{host}:7401"))
    assert error.exit_code == USAGE
    assert "https" in str(error)


# TLS.


@pytest.fixture
def https(tmp_path):
    """(port, certificate) of a server that answers one call over TLS."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    body = b'{"jsonrpc": "2.0", "id": 1, "result": "fine"}'
    with socket.create_server(("", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                plain.settimeout(5)
                with context.wrap_socket(plain, server_side=True) as stream:
                    while b'"method"' not in stream.recv(65536):
                        pass
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                    stream.sendall(head.encode() + body)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], certificate
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_over_tls_a_call_gives_the_result(https, tmp_path, host):
    port, certificate = https
    url = f"https://{host}:{port}"
    assert call(Target(tmp_path / "none", url=url, ca_file=certificate, timeout_s=5.0), "m") == (
        "fine"
    )


@pytest.mark.parametrize("is_other", [False, True])
def test_a_certificate_of_nobody_we_know_is_refused(https, tmp_path, is_other):
    port, _ = https
    url = f"https://127.0.0.1:{port}"
    (tmp_path / "other").mkdir()
    other, _ = make_certificate(tmp_path / "other")
    error = error_of(
        Target(tmp_path / "none", url=url, ca_file=other if is_other else None, timeout_s=5.0)
    )
    assert error.exit_code == NOT_ALLOWED
    assert "--ca-file" in str(error)


def test_a_certificate_for_another_name_is_refused(https, tmp_path):
    port, certificate = https
    url = f"https://127.0.0.2:{port}"
    error = error_of(Target(tmp_path / "none", url=url, ca_file=certificate, timeout_s=5.0))
    assert error.exit_code == NOT_ALLOWED


def test_a_ca_file_that_is_none_is_wrong_usage(tmp_path):
    for ca_file in (tmp_path / "absent", tmp_path / "nonsense"):
        (tmp_path / "nonsense").write_text("x")
        error = error_of(Target(tmp_path / "none", url="https://127.0.0.1:1", ca_file=ca_file))
        assert error.exit_code == USAGE
        assert str(ca_file) in str(error)
