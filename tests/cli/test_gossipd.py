import json
import logging
import os
import tomllib
from types import SimpleNamespace

import pytest

from cli import gossipd
from daemon import node
from daemon.lock import AlreadyRunning
from daemon.node import StartFailed


@pytest.fixture
def run(environment, capsys):
    """run(*arguments) runs gossipd; its (exit code, standard output, standard error)."""

    def main(*arguments):
        try:
            code = gossipd.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return main


@pytest.fixture
def started(monkeypatch):
    """What `gossipd start` would run: (config, job), instead of running it."""
    seen = []

    async def fake(config, job, ready, read_config):
        seen.append((config, job))
        me = SimpleNamespace(addresses=("wss://127.0.0.1:7400",), name=config.display_name)
        table = SimpleNamespace(me=me)
        overlay = SimpleNamespace(
            my_id="a" * 52, address="wss://127.0.0.1:7400",
            machine=SimpleNamespace(network_id="n" * 52, table=table),
        )  # fmt: skip
        plain = config.overlay.insecure
        ready(
            SimpleNamespace(
                config=config, overlay=overlay, control_binds=["unix:/x"],
                notary=None if plain else object(),
                credentials=SimpleNamespace(may_enrol=config.node.name != "member"),
            )
        )  # fmt: skip

    monkeypatch.setattr(node, "run_node", fake)
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)
    return seen


def test_init_writes_two_files_that_parse(run, tmp_path):
    code, out, _ = run("init", tmp_path / "new" / "folder")
    assert code == 0
    for name in ("gossipd.toml", "job.toml"):
        path = tmp_path / "new" / "folder" / name
        assert str(path) in out
        assert all(isinstance(table, dict) for table in tomllib.loads(path.read_text()).values())


@pytest.mark.parametrize("taken", [["gossipd.toml"], ["job.toml"], ["gossipd.toml", "job.toml"]])
def test_init_never_overwrites(run, tmp_path, taken):
    for name in taken:
        (tmp_path / name).write_text("mine")
    code, out, err = run("init", tmp_path)
    assert (code, out) == (1, "")
    assert "nothing written" in err
    assert all(name in err for name in taken)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.toml")} == dict.fromkeys(
        taken, "mine"
    )


def test_init_into_what_is_no_folder_fails_politely(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("init", tmp_path / "file" / "below")
    assert code == 1
    assert err.startswith("gossipd: cannot write there")


def test_what_init_wrote_starts_a_daemon_with_the_defaults(run, tmp_path, started):
    run("init", tmp_path)
    files = ["--config", tmp_path / "gossipd.toml", "--job", tmp_path / "job.toml"]
    assert run("start", *files)[0] == 0
    config, job = started[0]
    assert config.overlay.profile == "lan"
    assert job.name == "digits"


def test_problems_of_configuration_and_job_are_reported_together(run, tmp_path, started):
    (tmp_path / "c.toml").write_text("[overlay]\nprofil = 'lan'\n")
    (tmp_path / "j.toml").write_text("sed = 3\n[training]\nrounds = 0\n")
    files = ["--config", tmp_path / "c.toml", "--job", tmp_path / "j.toml"]
    code, out, err = run("start", *files, "--part", "9/3")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("gossipd: ") for line in lines)
    for words in ("c.toml: overlay.profil", "j.toml: sed", "training.rounds", "data.part"):
        assert words in err
    assert not started


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_job_that_cannot_be_read_is_a_problem(run, tmp_path, started, content):
    if content is not None:
        (tmp_path / "j.toml").write_bytes(content)
    code, _, err = run("start", "--job", tmp_path / "j.toml")
    assert code == 2
    assert "cannot be read" in err


def test_flags_reach_the_configuration(run, started, tmp_path):
    line = (
        f"start --name me --data-dir {tmp_path} --listen 127.0.0.1:1 --advertise ws://127.0.0.1:2"
        " --join ws://127.0.0.1:3 --join ws://localhost:4 --insecure --profile local"
        " --control-tcp 127.0.0.1:0"
        " --no-learner --threads 2 --data folder:/x --datasets /sets --part 2/3 --log-level debug"
    )
    assert run(*line.split())[0] == 0
    ((config, job),) = started
    assert job is None
    assert (config.node.name, config.node.log_level) == ("me", "debug")
    assert config.data_dir == tmp_path
    assert config.overlay.listen == "127.0.0.1:1"
    assert config.overlay.advertise == ("ws://127.0.0.1:2",)
    assert config.overlay.join == ("ws://127.0.0.1:3", "ws://localhost:4")
    assert (config.overlay.insecure, config.overlay.profile) == (True, "local")
    assert config.control.tcp == "127.0.0.1:0"
    assert (config.learner.enabled, config.learner.threads) == (False, 2)
    assert (config.data.source, config.data.dir) == ("folder:/x", "/sets")
    assert config.own_part == (1, 3)


def test_flags_that_are_not_given_leave_the_variables_alone(run, started, environment):
    environment.setenv("GOSSIPD_NAME", "variable")
    environment.setenv("GOSSIPD_OVERLAY_INSECURE", "true")
    environment.setenv("GOSSIPD_LEARNER_ENABLED", "false")
    run("start")
    config = started[0][0]
    assert config.node.name == "variable"
    assert config.overlay.insecure
    assert not config.learner.enabled


def test_ready_is_said_to_people_and_to_scripts(run, started):
    _, out, _ = run("start", "--name", "me")
    assert "peer aaaaaaaa (me)" in out
    assert f"invite a peer:    gossipctl --data-dir {started[0][0].data_dir} invite" in out
    assert "PLAIN" not in out
    _, out, _ = run("start", "--json")
    facts = json.loads(out)
    assert (facts["listen"], facts["pid"]) == ("wss://127.0.0.1:7400", os.getpid())


def test_a_member_that_is_no_issuer_is_not_told_to_invite(run, started):
    _, out, _ = run("start", "--name", "member")
    assert "invite" not in out


def test_plain_links_are_said_loudly_when_ready(run, started):
    _, out, _ = run("start", "--insecure")
    assert "gossipd start --insecure --join wss://127.0.0.1:7400 --data-dir ANOTHER" in out
    assert "links are PLAIN, neither encrypted nor authenticated (--insecure)" in out


@pytest.mark.parametrize("error", [AlreadyRunning("in use"), StartFailed("no room")])
def test_a_daemon_that_cannot_start_says_why(run, started, monkeypatch, error):
    async def fail(config, job, ready, read_config):
        raise error

    monkeypatch.setattr(node, "run_node", fail)
    assert run("start") == (1, "", f"gossipd: {error}\n")


@pytest.mark.parametrize("line", ["", "begin", "start --profile lam", "start --threads many"])
def test_wrong_usage_is_2(run, line):
    assert run(*line.split())[0] == 2
