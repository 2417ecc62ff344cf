import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli import gossipctl
from learner.job import Job
from learner.schema import as_table

NO_GRUDGE = {"refused": {}, "suspicious": {}, "blocked": []}


@pytest.fixture
def answers(daemon, status, members, train_status, topology_answer):
    """A daemon that answers everything."""
    daemon.results = {
        "node.status": status,
        "node.stop": {"stopping": True},
        "overlay.members": members,
        "overlay.topology": topology_answer,
        "overlay.join": {"peer": "b" * 52, "network": "n" * 52},
        "overlay.leave": {"leaving": True},
        "train.status": train_status | {"neighbour_states": {}, "trust": NO_GRUDGE},
        "network.invite": {
            "ticket": "gossipd-ticket-abc", "network": "n" * 52, "addresses": ["wss://h:1"],
            "expires_at": 1, "uses": 1, "role": "member",
        },
        "network.revoke": {"revoked": "b" * 52, "name": "host-b", "reason": "gone"},
        "network.rotate": {
            "before": "a" * 52, "peer": "c" * 52, "spelled": "cccccc-" * 8 + "cccc12",
            "restarting": True,
        },
        "train.start": {"state": "starting"},
        "train.stop": {"state": "stopped"},
        "train.pause": {"paused": True},
        "train.resume": {"paused": False},
        "train.block": {"peer": "b" * 52, "blocked": True},
        "train.unblock": {"peer": "b" * 52, "blocked": False},
        "job.show": {
            "version": 1, "digest": "d", "refused": "", "author": None,
            "job": json.loads(json.dumps(as_table(Job()))),
        },
        "job.submit": {"version": 2, "digest": "e", "run": "2-e"},
        "model.evaluate": {"round": 7, "accuracy": 0.93, "test_loss": 0.2, "samples": 360},
        "model.export": {"path": "/x", "size_bytes": 3},
        "model.import": {"path": "/x", "round": 7, "accuracy": 0.93, "test_loss": 0.2},
        "metrics.get": {"current": train_status, "history": []},
        "events.list": {"events": [{"seq": 1, "at": 0.0, "kind": "link.up", "data": {}}]},
    }  # fmt: skip
    return daemon


COMMANDS = [
    ("status", "node.status", {}, "aaaaaaaa (host)"),
    ("members", "overlay.members", {}, "host-b"),
    ("topology", "overlay.topology", {"graph": "", "round": 0}, "spectral gap"),
    ("topology --links --round 3", "overlay.topology", {"graph": "overlay", "round": 3}, "ann"),
    ("topology --dot", "overlay.topology", {"graph": "", "round": 0}, "graph gossipd {"),
    ("join wss://h:1", "overlay.join", {"address": "wss://h:1"}, "linked to bbbbbbbb"),
    ("invite", "network.invite", {"ttl_s": 3600.0, "uses": 1, "role": "member"}, "gossipd-ticket-"),
    (
        "invite --ttl 7d --uses 3 --role issuer",
        "network.invite",
        {"ttl_s": 604_800.0, "uses": 3, "role": "issuer"},
        "gossipd-ticket-",
    ),
    (
        "revoke host-b --reason gone",
        "network.revoke",
        {"peer": "host-b", "reason": "gone"},
        "revoked  bbbb",
    ),
    ("rotate", "network.rotate", {}, "this peer is now cccccc-"),
    ("leave", "overlay.leave", {}, "leaving  True"),
    ("stop", "node.stop", {}, "stopping  True"),
    ("train status", "train.status", {}, "7 of 100"),
    ("train start", "train.start", {}, "starting"),
    ("train stop", "train.stop", {}, "stopped"),
    ("train pause", "train.pause", {}, "paused  True"),
    ("train resume", "train.resume", {}, "paused  False"),
    ("block host-b", "train.block", {"peer": "host-b"}, "blocked  True"),
    ("unblock bbbb", "train.unblock", {"peer": "bbbb"}, "blocked  False"),
    ("job show", "job.show", {}, 'name = "digits"'),
    ("model evaluate", "model.evaluate", {}, "0.93"),
    ("model export /tmp/m", "model.export", {"path": "/tmp/m"}, "size bytes"),
    ("model import /tmp/m", "model.import", {"path": "/tmp/m"}, "0.93"),
    ("metrics", "metrics.get", {"since": 0, "limit": 20}, "no rounds yet"),
    ("metrics --since 3 --limit 5", "metrics.get", {"since": 3, "limit": 5}, "no rounds"),
    ("events", "events.list", {"since": 0, "prefix": ""}, "link.up"),
    ("events --since 4 --prefix m", "events.list", {"since": 4, "prefix": "m"}, "link.up"),
]


@pytest.mark.parametrize(("command", "method", "params", "shown"), COMMANDS)
def test_every_command_calls_its_method_and_shows_the_answer(
    ctl, answers, data_dir, command, method, params, shown
):
    code, out, err = ctl("--data-dir", data_dir, *command.split())
    assert (code, err) == (0, "")
    assert answers.calls == [(method, params)]
    assert shown in out


@pytest.mark.parametrize(("command", "method", "params", "shown"), COMMANDS)
def test_json_may_stand_before_or_after_the_command(
    ctl, answers, data_dir, command, method, params, shown
):
    for line in (f"--json {command}", f"{command} --json"):
        code, out, _ = ctl("--data-dir", data_dir, *line.split())
        assert code == 0
        assert json.loads(out) == answers.results[method]


TICKET = "gossipd-ticket-secret"


def test_a_ticket_may_be_read_from_standard_input(ctl, answers, data_dir, environment):
    """Where no list of processes shows it."""
    answers.results["overlay.join"] = {"peer": None, "network": "n" * 52, "restarting": True}
    environment.setattr(sys, "stdin", io.StringIO(f"  {TICKET}\nand more\n"))
    code, out, _ = ctl("--data-dir", data_dir, "join", "-")
    assert (code, out) == (0, "a member of network nnnnnnnn; its links come up now\n")
    assert answers.calls == [("overlay.join", {"address": TICKET})]


def test_an_invitation_is_the_ticket_alone_so_that_it_can_be_piped(ctl, answers, data_dir):
    assert ctl("--data-dir", data_dir, "invite") == (0, "gossipd-ticket-abc\n", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800), ("0.5h", 1800)],
)
def test_a_tickets_life_is_said_in_the_units_of_people(ctl, answers, data_dir, text, seconds):
    ctl("--data-dir", data_dir, "invite", "--ttl", text)
    ((_, params),) = answers.calls
    assert params["ttl_s"] == seconds


@pytest.mark.parametrize("line", ["--ttl soon", "--ttl h", "--ttl 3w", "--role boss", "--uses x"])
def test_what_no_ticket_can_have_is_a_mistake_of_usage(ctl, answers, data_dir, line):
    code, _, err = ctl("--data-dir", data_dir, "invite", *line.split())
    assert (code, answers.calls) == (2, [])
    assert line.split()[1] in err


def test_a_refused_ticket_is_not_quoted(ctl, answers, data_dir):
    answers.errors["overlay.join"] = {
        "code": -32020, "message": "the ticket is refused: it was used already",
        "data": {"kind": "join_failed"},
    }  # fmt: skip
    code, out, err = ctl("--data-dir", data_dir, "join", TICKET)
    assert (code, out) == (1, "")
    assert err == "gossipctl: the ticket is refused: it was used already\n"


def test_a_job_is_submitted_as_it_stands(ctl, answers, data_dir, tmp_path):
    file = tmp_path / "job.toml"
    file.write_text("seed = 3  # a comment\n")
    code, out, _ = ctl("--data-dir", data_dir, "job", "submit", file)
    assert code == 0
    assert answers.calls == [("job.submit", {"toml": "seed = 3  # a comment\n"})]
    assert "2-e" in out


@pytest.mark.parametrize("action", ["export", "import"])
def test_a_models_path_is_made_absolute(ctl, answers, data_dir, environment, tmp_path, action):
    environment.chdir(tmp_path)
    ctl("--data-dir", data_dir, "model", action, "m.safetensors")
    assert answers.calls == [(f"model.{action}", {"path": str(tmp_path / "m.safetensors")})]


def test_any_method_can_be_called(ctl, answers, data_dir):
    code, out, _ = ctl("--data-dir", data_dir, "rpc", "train.pause")
    assert (code, json.loads(out)) == (0, {"paused": True})
    ctl("--data-dir", data_dir, "rpc", "events.list", '{"since": 3}')
    ctl("--data-dir", data_dir, "rpc", "events.list", "[3]")
    assert answers.calls[1:] == [("events.list", {"since": 3}), ("events.list", [3])]


def test_a_raw_text_goes_through(ctl, answers, data_dir, environment):
    answers.reply = (200, '[{"jsonrpc": "2.0"}]')
    environment.setattr(sys, "stdin", io.StringIO("[1, 2"))
    code, out, _ = ctl("--data-dir", data_dir, "raw")
    assert (code, out, answers.requests) == (0, '[{"jsonrpc": "2.0"}]\n', ["[1, 2"])


def test_watching_shows_the_answer_again_and_again(ctl, answers, data_dir, environment):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    environment.setattr(gossipctl.time, "sleep", nap)
    code, out, _ = ctl("--data-dir", data_dir, "--json", "status", "--watch", "0.5")
    assert (code, naps) == (130, [0.5] * 3)
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["host"] * 3


# Events as they happen.


def event(seq):
    return {"seq": seq, "at": 0.0, "kind": "link.up", "data": {"n": seq}}


def test_events_are_followed_until_the_daemon_goes(ctl, answers, data_dir):
    answers.stream = [
        {"jsonrpc": "2.0", "id": 1, "result": {"subscribed": "link."}},
        {"jsonrpc": "2.0", "method": "event", "params": event(3)},
        "ping",
        {"jsonrpc": "2.0", "method": "event", "params": event(4)},
    ]
    line = ["events", "--follow", "--prefix", "link.", "--since", "2", "--json"]
    code, out, _ = ctl("--data-dir", data_dir, *line)
    assert code == 0
    assert [json.loads(text)["seq"] for text in out.splitlines()] == [3, 4]
    assert answers.calls == [("events.subscribe", {"prefix": "link.", "since": 2})]


def test_a_daemon_that_hangs_up_on_a_follower_is_unreachable(ctl, answers, data_dir):
    answers.closes_in_order = False
    answers.stream = [{"jsonrpc": "2.0", "method": "event", "params": event(3)}]
    code, out, err = ctl("--data-dir", data_dir, "events", "--follow")
    assert code == 3
    assert "link.up" in out
    assert "hung up" in err


def test_a_refused_event_stream_is_not_allowed(ctl, answers, data_dir):
    answers.accepts_websockets = False
    code, _, err = ctl("--data-dir", data_dir, "events", "--follow")
    assert code == 4
    assert "refused" in err


def test_a_refused_subscription_is_refused(ctl, answers, data_dir):
    answers.stream = [{"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "not today"}}]
    code, _, err = ctl("--data-dir", data_dir, "events", "--follow")
    assert (code, err) == (1, "gossipctl: not today\n")


# Exit codes.


def test_refused_by_the_daemon_is_1_and_json_says_it_too(ctl, daemon, data_dir):
    data = {"kind": "not_training"}
    daemon.errors["train.pause"] = {"code": -32001, "message": "no learner", "data": data}
    code, out, err = ctl("--data-dir", data_dir, "train", "pause", "--json")
    assert (code, err) == (1, "gossipctl: no learner\n")
    assert json.loads(out) == {"error": {"message": "no learner", "exit_code": 1, "data": data}}


def test_a_peer_that_nobody_knows_cannot_be_blocked(ctl, daemon, data_dir):
    message = "no known peer is called 'x'; gossipctl members lists them"
    daemon.errors["train.block"] = {
        "code": -32010, "message": message, "data": {"kind": "unknown_peer"},
    }  # fmt: skip
    assert ctl("--data-dir", data_dir, "block", "x") == (1, "", f"gossipctl: {message}\n")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "train",
        "join",
        "block",
        "unblock",
        "--timeout soon status",
        "--timeout -1 status",
        "--timeout nan status",
        "status --watch -1",
        "rpc node.status {",
        "rpc node.status 3",
        "job submit /does/not/exist",
        "--url http://127.0.0.1:port status",
    ],
)
def test_wrong_usage_is_2(ctl, answers, data_dir, line):
    (data_dir / "control.token").write_text("t")
    code, out, err = ctl("--data-dir", data_dir, *line.split())
    assert (code, out) == (2, "")
    assert "gossipctl" in err
    assert "Traceback" not in err


def test_a_job_that_is_no_text_is_wrong_usage(ctl, answers, data_dir, tmp_path):
    file = tmp_path / "job.toml"
    file.write_bytes(b"\xff\xfe")
    code, _, err = ctl("--data-dir", data_dir, "job", "submit", file)
    assert code == 2
    assert "cannot read the job" in err


def test_a_timeout_variable_that_is_no_number_is_2(ctl, environment, data_dir):
    environment.setenv("GOSSIPD_TIMEOUT", "soon")
    code, _, err = ctl("--data-dir", data_dir, "status")
    assert code == 2
    assert "GOSSIPD_TIMEOUT" in err


def test_without_a_daemon_it_is_3(ctl, data_dir):
    code, out, err = ctl("--data-dir", data_dir, "status")
    assert (code, out) == (3, "")
    assert "gossipd start" in err


def test_not_allowed_is_4(ctl, serve, tmp_path):
    daemon = serve(("127.0.0.1", 0))
    daemon.reply = (401, "send a token")
    (tmp_path / "token").write_text("wrong")
    url = f"http://127.0.0.1:{daemon.address[1]}"
    code, _, err = ctl("--url", url, "--token-file", tmp_path / "token", "status")
    assert (code, err) == (4, "gossipctl: send a token\n")
    assert daemon.headers[0]["Authorization"] == "Bearer wrong"


def test_no_answer_in_time_is_5(ctl, tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        code, _, err = ctl("--data-dir", tmp_path, "--timeout", "0.05", "status")
    assert (code, err) == (5, "gossipctl: no answer within 0.05 s\n")


def test_a_reader_that_hangs_up_ends_it_quietly(answers, data_dir):
    command = [sys.executable, "-m", "cli.gossipctl", "--data-dir", str(data_dir)]
    command += ["status", "--watch", "0.01"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert "aaaaaaaa (host)" in client.stdout.readline()
        client.stdout.close()
        assert client.stderr.read() == ""
        assert client.wait(10) == -signal.SIGPIPE


# Where the daemon is.


def test_the_socket_is_found_by_flag_variable_or_default(ctl, serve, environment, tmp_path):
    home = Path(os.environ["HOME"]) / ".local" / "share" / "gossipd"
    for folder in (home, tmp_path / "variable", tmp_path / "flag"):
        folder.mkdir(parents=True)
    daemons = {
        "default": serve(home / "control.sock"),
        "variable": serve(tmp_path / "variable" / "control.sock"),
        "socket": serve(tmp_path / "s"),
        "flag": serve(tmp_path / "flag" / "control.sock"),
    }
    for daemon in daemons.values():
        daemon.results["m"] = 1

    def asked(*arguments):
        assert ctl(*arguments, "rpc", "m")[0] == 0
        (name,) = [name for name, daemon in daemons.items() if daemon.requests]
        daemons[name].requests.clear()
        return name

    assert asked() == "default"
    environment.setenv("GOSSIPD_DATA_DIR", str(tmp_path / "variable"))
    assert asked() == "variable"
    environment.setenv("GOSSIPD_SOCKET", str(tmp_path / "s"))
    assert asked() == "socket"
    assert asked("--data-dir", tmp_path / "flag") == "flag"
    assert asked("--data-dir", tmp_path / "variable", "--socket", tmp_path / "s") == "socket"


def test_the_xdg_variable_moves_the_default(ctl, serve, environment, tmp_path):
    (tmp_path / "xdg" / "gossipd").mkdir(parents=True)
    serve(tmp_path / "xdg" / "gossipd" / "control.sock").results["m"] = 1
    environment.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert ctl("rpc", "m")[0] == 0


def test_url_and_token_come_from_variables_too(ctl, serve, environment, tmp_path):
    daemon = serve(("127.0.0.1", 0))
    daemon.results["m"] = 1
    (tmp_path / "token").write_text("a-secret")
    environment.setenv("GOSSIPD_URL", f"http://127.0.0.1:{daemon.address[1]}")
    environment.setenv("GOSSIPD_TOKEN_FILE", str(tmp_path / "token"))
    assert ctl("rpc", "m")[0] == 0
    assert daemon.headers[0]["Authorization"] == "Bearer a-secret"


def test_the_token_lies_in_the_data_dir_by_default(ctl, serve, data_dir):
    daemon = serve(("127.0.0.1", 0))
    daemon.results["m"] = 1
    (data_dir / "control.token").write_text("t")
    url = f"http://127.0.0.1:{daemon.address[1]}"
    assert ctl("--data-dir", data_dir, "--url", url, "rpc", "m")[0] == 0
    assert daemon.headers[0]["Authorization"] == "Bearer t"


def test_the_client_carries_neither_trio_nor_torch():
    code = "import sys, cli.gossipctl; print({'trio', 'torch', 'numpy'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout == "set()\n"


def test_the_certificates_to_trust_come_from_a_flag_or_a_variable(monkeypatch, data_dir):
    def ca_file(*words):
        return gossipctl._target(gossipctl.parser().parse_args([*words, "status"])).ca_file

    assert ca_file() is None
    monkeypatch.setenv("GOSSIPD_CA_FILE", "/etc/variable.pem")
    assert str(ca_file()) == "/etc/variable.pem"
    assert str(ca_file("--ca-file", "/etc/flag.pem")) == "/etc/flag.pem"
