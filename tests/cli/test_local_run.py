"""`gossipd local` with daemons that only pretend."""

import json
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
from safetensors.numpy import save_file

from cli import gossipd, local_run
from cli.client import TIMED_OUT, USAGE, ControlError
from cli.local_peers import PeerFailed
from learner.job_file import job_from_table
from learner.schema import SchemaError

EDGES = ["ann bob 0.5", "bob cem 0.25"]


def job(parts=3, rounds=4, **tables):
    table = {"partition": {"parts": parts}, "training": {"rounds": rounds}, **tables}
    return job_from_table(table, source="test")


def static(*edges, parts=3):
    return job(parts, gossip={"topology": "static", "edges": list(edges)})


class FakeDaemon:
    """Does a round a question, unless told to fail or to stay as it is."""

    def __init__(self, world, name, data_dir, flags):
        self.world, self.name, self.data_dir, self.flags = world, name, data_dir, list(flags)
        self.peer_id, self.ticket = f"id-{name}", f"ticket-of-{name}"
        self.process = SimpleNamespace(terminate=lambda: world.ended.append(name))
        self.done = 0

    def call(self, method, **params):
        self.world.calls.append((self.name, method, params))
        if method == "model.export":
            import numpy

            save_file({"w": numpy.ones(2, numpy.float32)}, params["path"])
        return {"members": 3}

    def ask(self, method, **params):
        world = self.world
        if method == "overlay.members":
            return [{"state": "alive"} for _ in world.daemons]
        if world.interrupt:
            raise KeyboardInterrupt
        if self.name == world.fails:
            return {"current": {"state": "failed", "reason": "no data"}, "history": []}
        self.done = min(self.done + 1, world.rounds) if not world.stuck else 0
        history = [world.row(self, number) for number in range(params["since"], self.done + 1)]
        state = "finished" if self.done == world.rounds else "training"
        return {
            "current": {"state": state, "reason": "", "round": self.done, "part": 1},
            "history": [row for row in history if row["round"]],
        }


class World:
    def __init__(self):
        self.daemons, self.calls, self.ended = [], [], []
        self.rounds, self.fails, self.stuck, self.interrupt = 4, "", False, False
        self.predicts = True

    @contextmanager
    def local_peer(self, name, data_dir, flags=()):
        daemon = FakeDaemon(self, name, data_dir, flags)
        self.daemons.append(daemon)
        try:
            yield daemon
        finally:
            self.ended.append(name)

    def row(self, daemon, number):
        others = {d.peer_id: 0.25 for d in self.daemons if d is not daemon}
        return {
            "at": 100.0 + number, "round": number, "round_s": 1.0, "loss": 1 / (number + 1),
            "accuracy_after": 0.5 + number / 10 if self.predicts else None,
            "test_loss": 0.7 if self.predicts else None, "consensus_distance": 0.1 / (number + 1),
            "own_weight": 0.5, "weights": others, "missing": int(number == 1), "bytes_sent": 1000,
        }  # fmt: skip


@pytest.fixture
def world(monkeypatch, tmp_path):
    world = World()
    monkeypatch.setattr(local_run, "local_peer", world.local_peer)
    monkeypatch.setattr(local_run, "interrupt_on_sigterm", lambda: None)
    monkeypatch.setattr(local_run, "POLL_S", 0)
    monkeypatch.setattr(local_run.tempfile, "mkdtemp", lambda prefix: str(made(tmp_path)))
    return world


def made(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_there_are_as_many_peers_as_parts_and_all_begin_together():
    plan = local_run.plan(job(parts=4), peers=None, source="test")
    assert plan.names == ("peer0", "peer1", "peer2", "peer3")
    assert plan.job.training.min_peers == 4
    assert local_run.plan(job(parts=4), peers=2, source="test").names == ("peer0", "peer1")


def test_the_names_are_those_of_the_edges():
    plan = local_run.plan(static(*EDGES), peers=None, source="test")
    assert plan.names == ("ann", "bob", "cem")


def test_usual_names_in_edges_come_in_their_usual_order():
    plan = local_run.plan(static("peer0 peer2", "peer2 peer1"), peers=None, source="test")
    assert plan.names == ("peer0", "peer1", "peer2")


@pytest.mark.parametrize(
    ("given", "peers", "says"),
    [
        (static(*EDGES), 2, "name 3 peers"),
        (static(*EDGES, parts=2), None, "too few for 3 peers"),
        (job(parts=3), 4, "too few for 4 peers"),
    ],
)
def test_a_job_that_so_many_cannot_run_is_refused(given, peers, says):
    with pytest.raises(SchemaError, match=says):
        local_run.plan(given, peers=peers, source="test")


def test_where_nothing_is_shared_out_any_number_may_run():
    plan = local_run.plan(job(partition={"kind": "none", "parts": 2}), peers=5, source="test")
    assert len(plan.names) == 5


def test_every_peer_has_its_part_and_may_use_what_the_job_names(world, tmp_path):
    given = job(model={"name": "ours.models:build"}, data={"source": "npz:some.npz"})
    with ExitStack() as stack:
        plan = local_run.plan(given, peers=None, source="test")
        local_run.start(plan, tmp_path, stack, data_dir="/sets")
        assert sorted(d.name for d in world.daemons) == ["peer0", "peer1", "peer2"]
    for daemon in world.daemons:
        number = int(daemon.name[-1])
        flags = " ".join(daemon.flags)
        assert f"--part {number + 1}/3" in flags
        assert "--datasets /sets" in flags
        assert ("--join ticket-of-peer0" in flags) == (number > 0)
    text = (tmp_path / "gossipd.toml").read_text()
    assert text == '[learner]\nallow = ["ours.models:build", "npz:some.npz"]\n'
    (submitted,) = [call for call in world.calls if call[1] == "job.submit"]
    assert submitted[0] == "peer0"
    assert submitted[2]["job"]["training"]["min_peers"] == 3


def test_the_table_has_a_line_a_peer_and_a_summary(world, capsys):
    assert local_run.run_local(static(*EDGES), source="test") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["ann", "bob", "cem"]
    assert "90.0 %" in lines[1]
    assert "bob 0.25, cem 0.25" in lines[1]
    assert lines[1].split()[-5] == "0.5"  # own weight
    assert lines[5].startswith("3 peers, 4 rounds in 4.0 s, mean accuracy 90.0 %")
    assert "models 0.0e+00 of their norm from their mean" in lines[5]
    assert err == ""  # it is no terminal
    assert set(world.ended) == {"ann", "bob", "cem"}


def test_json_has_every_round_of_every_peer(world, capsys):
    assert local_run.run_local(job(), source="test", as_json=True) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seconds"] >= 0
    assert summary["finished"] is True
    assert [peer["name"] for peer in summary["peers"]] == ["peer0", "peer1", "peer2"]
    for peer in summary["peers"]:
        assert [row["round"] for row in peer["history"]] == [1, 2, 3, 4]
        assert peer["missing"] == 1
        assert peer["bytes_sent"] == 4000
    assert summary["peers"][0]["weights"] == {"peer1": 0.25, "peer2": 0.25}


def test_models_are_exported_by_name(world, tmp_path):
    local_run.run_local(static(*EDGES), source="test", export=tmp_path / "new" / "out")
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == ["ann.safetensors", "bob.safetensors", "cem.safetensors"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("predicts", [True, False])
def test_a_picture_is_drawn(world, tmp_path, predicts):
    pytest.importorskip("matplotlib")
    world.predicts = predicts
    assert local_run.run_local(job(), source="test", png=tmp_path / "rounds.png") == 0
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(world, monkeypatch, tmp_path):
    monkeypatch.setattr(local_run.importlib.util, "find_spec", lambda name: None)
    assert local_run.run_local(job(), source="test", png=tmp_path / "rounds.png") == USAGE
    assert world.daemons == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(world, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert local_run.run_local(job(), source="test", export=tmp_path / "file" / "out") == USAGE
    assert "cannot write into" in capsys.readouterr().err
    assert world.daemons == []


def test_the_limit_ends_the_run_and_shows_how_far_it_came(world, capsys):
    world.stuck = True
    assert local_run.run_local(job(), source="test", limit_s=0.01) == TIMED_OUT
    out, err = capsys.readouterr()
    assert out.startswith("PEER")
    assert "not finished within 0.01 s" in err
    assert len(set(world.ended)) == 3


def test_a_peer_that_cannot_train_ends_the_run_with_its_reason(world, capsys, tmp_path):
    world.fails = "peer1"
    assert local_run.run_local(job(), source="test") == 1
    assert "peer1: no data" in capsys.readouterr().err
    assert len(set(world.ended)) == 3
    assert (tmp_path / "run").is_dir()  # the logs


def test_ctrl_c_ends_every_daemon(world, capsys, tmp_path):
    world.interrupt = True
    assert local_run.run_local(job(), source="test") == 130
    assert "every process was stopped" in capsys.readouterr().err
    assert len(set(world.ended)) == 3
    assert not (tmp_path / "run").exists()


def test_the_progress_of_a_terminal_is_one_line(world, monkeypatch, capsys):
    monkeypatch.setattr(local_run.sys.stderr, "isatty", lambda: True, raising=False)
    local_run.run_local(job(), source="test")
    err = capsys.readouterr().err
    assert "\n" not in err
    shown = err.split("\r\x1b[K")
    assert shown[1] == "starting 3 daemons"
    assert "round 2 of 4, accuracy 70.0 %" in shown
    assert shown[-1] == ""


def test_without_predictions_the_progress_is_the_consensus_distance(world):
    world.predicts = False
    peer = local_run.Peer(FakeDaemon(world, "ann", None, ()))
    peer.refresh()
    assert local_run.progress([peer], job()) == "round 1 of 4, consensus distance 0.05"


def test_a_daemon_that_does_not_answer_just_now_keeps_what_it_said(world):
    peer = local_run.Peer(FakeDaemon(world, "ann", None, ()))
    peer.refresh()
    peer.daemon.ask = lambda method, **params: None
    peer.refresh()
    assert peer.now["round"] == 1
    assert [row["round"] for row in peer.history] == [1]


@pytest.fixture
def asked(monkeypatch):
    """What `gossipd local` would run."""
    seen = []

    def fake(job, **settings):
        seen.append((job, settings))
        return 0

    monkeypatch.setattr(local_run, "run_local", fake)
    return seen


def test_the_command_line_reads_the_job(asked, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[partition]\nparts = 2\n")
    arguments = ["--peers", "2", "--json", "--png", "a.png", "--export", "out", "--limit", "5"]
    assert gossipd.main(["local", str(path), *arguments, "--data-dir", "sets"]) == 0
    ((read, settings),) = asked
    assert read.partition.parts == 2
    assert settings["peers"] == 2
    assert settings["as_json"] is True
    assert (settings["limit_s"], settings["data_dir"]) == (5.0, "sets")


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_no_number_of_daemons_is_a_usage_error(asked, count, capsys):
    with pytest.raises(SystemExit) as caught:
        gossipd.main(["local", "job.toml", "--peers", count])
    assert caught.value.code == 2
    assert asked == []


def test_a_job_that_cannot_be_read_is_a_usage_error(asked, tmp_path, capsys):
    assert gossipd.main(["local", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


class Unreachable:
    """Stands in for a LocalPeer whose daemon does not answer."""

    name, log = "ann", "it said why"

    def __init__(self, code):
        self.process = SimpleNamespace(poll=lambda: code)

    def call(self, method, **params):
        raise ControlError(3, "no daemon")


def test_asking_a_daemon_that_is_gone_says_what_it_logged():
    from cli.local_peers import LocalPeer

    assert LocalPeer.ask(Unreachable(None), "node.status") is None
    with pytest.raises(PeerFailed, match="ann ended: it said why"):
        LocalPeer.ask(Unreachable(1), "node.status")
