"""A fake daemon: HTTP and websocket on a Unix socket or TCP port, answering canned JSON-RPC."""

import http.server
import json
import socketserver
import threading
import time
import warnings

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

with warnings.catch_warnings():
    # It reads its schema in a way that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import jsonrpcserver  # noqa: F401

from cli import gossipctl

TOKEN = "a-secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self):
        daemon = self.server.daemon
        body = self.rfile.read(int(self.headers["Content-Length"]))
        daemon.requests.append(body.decode())
        daemon.headers.append(dict(self.headers))
        status, text = daemon.answer(body)
        if status is None:  # hang up
            self.close_connection = True
            return
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        """The websocket: a subscription is acknowledged, then the canned events are sent."""
        self.close_connection = True
        daemon = self.server.daemon
        daemon.headers.append(dict(self.headers))
        if not daemon.accepts_websockets:
            self.send_error(403)
            return
        state = WSConnection(ConnectionType.SERVER)
        head = f"{self.requestline}\r\n{self.headers}"
        state.receive_data(head.replace("\r\n", "\n").replace("\n", "\r\n").encode())
        while True:
            for event in state.events():
                if isinstance(event, Request):
                    self.wfile.write(state.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    daemon.requests.append(event.data)
                    for message in daemon.stream:
                        if message == "ping":
                            self.wfile.write(state.send(Ping(b"?")))
                        else:
                            self.wfile.write(state.send(TextMessage(json.dumps(message))))
                    if daemon.closes_in_order:
                        self.wfile.write(state.send(CloseConnection(1000)))
                    return
            state.receive_data(self.connection.recv(65536))

    def address_string(self):
        return "client"

    def log_message(self, *arguments):
        pass


class _Quiet:
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hung up is what some tests are about."""


class _UnixServer(_Quiet, socketserver.ThreadingUnixStreamServer):
    pass


class _TcpServer(_Quiet, socketserver.ThreadingTCPServer):
    pass


class FakeDaemon:
    """`results` are answered by method; `reply` replaces the whole (status, text) of every call."""

    def __init__(self):
        self.results = {}
        self.errors = {}
        self.reply = None
        self.stream = []
        self.accepts_websockets = True
        self.closes_in_order = True
        self.requests = []
        self.headers = []
        self.address = None

    def answer(self, body):
        if self.reply is not None:
            return self.reply
        request = json.loads(body)
        response = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] in self.errors:
            return 200, json.dumps(response | {"error": self.errors[request["method"]]})
        return 200, json.dumps(response | {"result": self.results[request["method"]]})

    @property
    def calls(self):
        """(method, params) of every request."""
        return [(r["method"], r["params"]) for r in map(json.loads, self.requests)]


@pytest.fixture
def serve():
    """serve(Unix path or (host, port)) gives a FakeDaemon that ends with the test."""
    servers = []

    def start(address):
        kind = _TcpServer if isinstance(address, tuple) else _UnixServer
        server = kind(address if kind is _TcpServer else str(address), _Handler)
        server.daemon = FakeDaemon()
        server.daemon.address = server.server_address
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return server.daemon

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def data_dir(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def daemon(serve, data_dir):
    """A fake daemon in `data_dir`."""
    return serve(data_dir / "control.sock")


@pytest.fixture
def environment(monkeypatch, tmp_path_factory):
    """No GOSSIPD_* variables but those that the test sets, and an empty home (with a short path: a
    Unix socket's has at most 107 bytes)."""
    for name in ("DATA_DIR", "SOCKET", "URL", "TOKEN_FILE", "TIMEOUT", "CONFIG", "NAME", "LISTEN"):
        monkeypatch.delenv(f"GOSSIPD_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("h")))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return monkeypatch


@pytest.fixture
def ctl(environment, capsys):
    """ctl(*arguments) runs gossipctl; its (exit code, standard output, standard error)."""
    # The program takes SIGPIPE's default, with which a fake daemon's thread could end the tests.
    environment.setattr(gossipctl.signal, "signal", lambda number, handler: None)

    def run(*arguments):
        try:
            code = gossipctl.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def train_status():
    """The training part of an answer, as a daemon that just joined gives it."""
    return {
        "state": "training", "reason": "", "round": 7, "rounds": 100, "part": 2, "samples": 287,
        "layout": "3bc6", "model": "2 tensors, 650 values", "learner_pid": 12,
        "checkpoint_round": None, "checkpoint_error": "", "loss": 0.123456,
        "accuracy_before": 0.9, "accuracy_after": 0.934, "test_loss": 0.2,
        "consensus_distance": 0.00012, "spectral_gap": 0.5, "staleness": None,
        "neighbours": 2, "missing": 0, "round_s": 0.25,
        "wait_s": 0.1, "bytes_sent": 5200,
    }  # fmt: skip


@pytest.fixture
def status(train_status):
    return {
        "version": "0.1.0", "pid": 11, "peer": "a" * 52, "name": "host", "network": "n" * 52,
        "listen": "wss://127.0.0.1:7400", "addresses": ["wss://127.0.0.1:7400"],
        "encrypted": True, "role": "member", "certificate_expires_at": time.time() + 30 * 86400,
        "revoked": None, "control": [], "data_dir": "/srv/gossipd", "learner": True,
        "uptime_s": 130.0, "members": 3, "neighbours": ["b" * 52], "wanted": ["b" * 52],
        "train": train_status,
        "paused": False, "traffic": {}, "cpu_s": 1.0, "rss_bytes": 60_500_000,
        "job": {"name": "digits", "version": 2, "digest": "d1", "run": "2-d1", "refused": "",
                "author": "a" * 52},
    }  # fmt: skip


@pytest.fixture
def members():
    def member(letter, **changes):
        return {
            "peer": letter * 52, "name": f"host-{letter}", "state": "alive",
            "addresses": ["wss://127.0.0.1:1"], "incarnation": 1, "learner": True, "part": None,
            "self": False, "neighbour": True, "role": "member",
            "expires_at": time.time() + 30 * 86400, "train": "training", **changes,
        }  # fmt: skip

    return [member("a", self=True, neighbour=False, part=1), member("b", state="dead")]


@pytest.fixture
def topology_answer():
    """What `overlay.topology` says of a path a – b – c, as b sees it."""
    a, b, c = ("a" * 52, "b" * 52, "c" * 52)
    return {
        "peer": b, "graph": "mixing", "topology": "static", "degree": 6, "round": 4,
        "peers": 3, "edges": 2,
        "degree_min": 1, "degree_max": 2, "connected": True, "diameter": 2, "spectral_gap": 0.25,
        "weights_by": "explicit", "directed": False, "period": 1, "period_gap": None,
        "weights": {a: 0.25, c: 0.5}, "self_weight": 0.25, "neighbours": [a, c], "links": [a, c],
        "edges_list": [[a, b, 0.25], [b, c, 0.5]], "names": {a: "ann", b: 'bo"b', c: ""},
        "robust": {"rule": "mean", "liars": 0, "tolerated": 0, "advice": ""},
    }  # fmt: skip
