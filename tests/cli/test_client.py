import json
import os

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
    import socket

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
    import socket

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
