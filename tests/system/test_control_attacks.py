"""Attacks on the control port of a real daemon. Each ends with: the daemon serves its owner."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from cli.client import NOT_ALLOWED, ControlError, Target, call
from cli.local_peers import PeerFailed, local_peer
from daemon.listener import HEAD_LIMIT_S
from tests.system.certificates import make_certificate

STOP = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "node.stop"})


class Control:
    """A daemon with a TCP control port."""

    def __init__(self, peer):
        self.peer = peer
        self.url = next(b for b in peer.facts["control"] if not b.startswith("unix:"))
        parts = urlsplit(self.url)
        self.address = (parts.hostname, parts.port)

    def token(self, name="control.token"):
        return (self.peer.data_dir / name).read_text().strip()

    def target(self, name="control.token", **more):
        token_file = self.peer.data_dir / name
        unused = self.peer.data_dir / "none"
        return Target(unused, url=self.url, token_file=token_file, timeout_s=5.0, **more)

    def post(self, body, headers):
        connection = http.client.HTTPConnection(*self.address, timeout=5)
        with contextlib.closing(connection):
            connection.request("POST", "/rpc", body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def as_owner(self, body):
        authorization = f"Bearer {self.token()}"
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        status, text = self.post(body, headers)
        assert status == 200
        return json.loads(text)

    def is_well(self):
        return call(self.target(), "node.info") == self.peer.call("node.info")


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("control") / "a"
        flags = ["--no-learner", "--control-tcp", "127.0.0.1:0"]
        yield Control(stack.enter_context(local_peer("a", folder, flags)))


def test_a_cross_site_post_is_refused(control):
    """What a page may send without asking, and what it may send after it rebound its name; with
    the right token, so that only the check in question stands in the way."""
    ours = {"Authorization": f"Bearer {control.token()}", "Content-Type": "application/json"}
    for status, headers in (
        (401, {"Content-Type": "application/json"}),
        (403, {**ours, "Origin": "https://evil.example"}),
        (403, {**ours, "Origin": "null"}),
        (403, {**ours, "Sec-Fetch-Site": "cross-site"}),
        (403, {**ours, "Host": f"evil.example:{control.address[1]}"}),
        (415, {**ours, "Content-Type": "text/plain"}),
    ):
        assert control.post(STOP, headers)[0] == status
    assert control.is_well()


def test_a_slow_loris_is_cut_while_another_client_is_served(control):
    heads = [socket.create_connection(control.address) for _ in range(30)]
    began, served = time.monotonic(), 0
    try:
        while heads and time.monotonic() - began < HEAD_LIMIT_S + 2:
            for sock in list(heads):
                try:
                    sock.send(b"P")
                    time.sleep(0.002)
                    sock.setblocking(False)
                    if sock.recv(1) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    heads.remove(sock)
                    sock.close()
            served += control.is_well()
        assert not heads, f"{len(heads)} are still connected"
        assert served >= 5
    finally:
        for sock in heads:
            sock.close()


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" + "[]," * 300_000 + "[]]",
        "9" * 1_000_000,
    ],
    ids=["open lists", "lists", "objects", "wide", "number"],
)
def test_a_json_bomb_is_survived(control, bomb):
    assert control.as_owner(bomb)["error"]["code"] in (-32700, -32600)
    assert control.is_well()


def test_the_read_only_token_cannot_stop_the_daemon(control):
    reader = control.target("read.token")
    assert call(reader, "node.status")["members"]
    for method in ("node.stop", "overlay.leave", "train.stop"):
        with pytest.raises(ControlError) as caught:
            call(reader, method)
        assert caught.value.exit_code == NOT_ALLOWED
        assert caught.value.data["kind"] == "not_allowed"
    assert control.is_well()


def test_gossipctl_with_the_read_only_token_reads_and_is_not_allowed_to_stop(control):
    token_file = control.peer.data_dir / "read.token"
    command = [sys.executable, "-m", "cli.gossipctl", "--url", control.url]

    def run(*words):
        with_token = [*command, "--token-file", str(token_file), *words]
        return subprocess.run(with_token, capture_output=True, timeout=20, check=False)

    assert run("status").returncode == 0
    assert run("stop").returncode == NOT_ALLOWED
    assert control.is_well()


def test_tokens_are_the_owners_alone_and_in_no_log_status_or_event(control):
    shown = [control.peer.log, json.dumps(control.peer.events(""))]
    shown += [json.dumps(control.peer.call(method)) for method in ("node.info", "node.status")]
    for name in ("control.token", "read.token"):
        assert (control.peer.data_dir / name).stat().st_mode & 0o777 == 0o600
        assert not [text for text in shown if control.token(name) in text]


def test_beyond_loopback_the_api_is_served_over_tls_to_clients_that_verify_it(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    (folder / "other").mkdir()
    other, _ = make_certificate(folder / "other")
    config = folder / "gossipd.toml"
    config.write_text(
        f'[control]\ntcp = "0.0.0.0:0"\nhosts = ["localhost"]\n'
        f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    )
    with local_peer("a", folder / "a", ["--no-learner", "--config", str(config)]) as peer:
        control = Control(peer)
        assert control.url.startswith("https://0.0.0.0:")
        control.url = f"https://localhost:{control.address[1]}"
        assert call(control.target(ca_file=certificate), "node.info") == peer.call("node.info")
        with pytest.raises(ControlError, match="not trusted"):
            call(control.target(ca_file=other), "node.info")
        control.url = f"https://127.0.0.1:{control.address[1]}"
        with pytest.raises(ControlError, match="foreign host name"):
            call(control.target(ca_file=certificate), "node.info")
    key.chmod(0o644)
    with (
        pytest.raises(PeerFailed, match="chmod 600"),
        local_peer("b", folder / "b", ["--no-learner", "--config", str(config)]),
    ):
        pass


def test_who_reads_nothing_does_not_keep_the_daemon_from_leaving(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stuck") / "a"
    with local_peer("a", folder, ["--no-learner"]) as peer, socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(os.fspath(folder / "control.sock"))
        stuck.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stuck.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100_000)
        peer.process.terminate()
        assert peer.process.wait(6) == 0
