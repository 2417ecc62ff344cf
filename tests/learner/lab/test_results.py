"""What is stored: SQLite, added to run by run, and the same as Parquet."""

import json
import sqlite3
import sys
from contextlib import closing

import pytest

from learner.errors import LearnerError
from learner.job_file import job_from_json
from learner.lab.conditions import Conditions
from learner.lab.experiment import Experiment, run_spec, specs
from learner.lab.results import Results
from learner.lab.run import Figures, Outcome


@pytest.fixture
def done(make_table):
    """Two runs of an experiment and their outcomes."""
    experiment = Experiment(
        job=make_table(training={"rounds": 4, "evaluate_every": 2}),
        grid={"gossip.topology": ["ring", "complete"]},
        conditions=Conditions(absent=(5,), joins=((3, 5),)),
    )
    return [(spec, run_spec(spec)) for spec in specs(experiment)]


@pytest.fixture
def folder(tmp_path, done):
    """Where both are stored."""
    results = Results(tmp_path / "deep" / "results")
    for spec, outcome in done:
        results.add("ring", spec, outcome)
    return results.folder


def read(folder, query):
    with closing(sqlite3.connect(folder / "results.sqlite")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


def test_a_run_is_stored_whole(folder, done):
    rows = read(folder, "SELECT * FROM runs")
    assert [row["run"] for row in rows] == [1, 2]
    for row, (spec, outcome) in zip(rows, done, strict=True):
        assert (row["experiment"], row["kind"], row["seed"]) == ("ring", "gossip", 1)
        assert json.loads(row["point"]) == spec.point
        assert job_from_json(row["job"], source="results") == spec.job
        assert json.loads(row["conditions"])["joins"] == [[3, 5]]
        assert json.loads(row["federation"])["share"] == 1.0
        assert (row["seconds"], row["models_sent"]) == (outcome.seconds, 4)
        assert (row["error"], row["threads"], row["ended"] > 1.7e9) == ("", 1, True)


def test_a_file_of_an_earlier_version_is_gone_on_with(folder, done):
    with closing(sqlite3.connect(folder / "results.sqlite")) as database, database:
        database.execute("ALTER TABLE runs DROP COLUMN threads")
    spec, outcome = done[0]
    Results(folder).add("ring", spec, outcome)
    assert [row["threads"] for row in read(folder, "SELECT * FROM runs")] == [None, None, 1]


def test_every_figure_of_every_peer_is_there(folder, done):
    rounds = read(folder, "SELECT * FROM rounds WHERE run = 2 ORDER BY round")
    expected = done[1][1].rounds
    assert [(r["round"], r["peers"], r["distance"]) for r in rounds] == [
        (f.round, len(f.peers), f.distance) for f in expected
    ]
    assert [r["peers"] for r in rounds] == [5, 6]
    for figures in expected:
        at = f"SELECT * FROM peers WHERE run = 2 AND round = {figures.round} ORDER BY peer"
        rows = read(folder, at)
        assert [row["peer"] for row in rows] == figures.peers
        assert [row["accuracy"] for row in rows] == figures.accuracy
        assert [row["test_loss"] for row in rows] == figures.test_loss
        assert [row["loss"] for row in rows] == figures.loss


def test_results_are_added_to_those_of_before(folder, done):
    spec, outcome = done[0]
    Results(folder).add("again", spec, outcome)
    assert [row["experiment"] for row in read(folder, "SELECT * FROM runs")] == [
        "ring", "ring", "again",
    ]  # fmt: skip
    counts = read(folder, "SELECT run, count(*) AS n FROM peers GROUP BY run")
    assert [(row["run"], row["n"]) for row in counts] == [(1, 11), (2, 11), (3, 11)]


def test_a_run_without_predictions_and_one_that_diverged_are_stored(tmp_path, done):
    spec, _ = done[0]
    results = Results(tmp_path)
    figures = [Figures(1, [0, 1], [], [], [None, None], None)]
    results.add("values", spec, Outcome(spec.job, "gossip", figures))
    results.add("diverged", spec, Outcome(spec.job, "gossip", error="the loss is not finite"))
    rows = read(tmp_path, "SELECT accuracy, test_loss, loss FROM peers")
    assert rows == [{"accuracy": None, "test_loss": None, "loss": None}] * 2
    errors = read(tmp_path, "SELECT error FROM runs")
    assert [row["error"] for row in errors] == ["", "the loss is not finite"]


def test_half_a_run_is_not_stored(tmp_path, done):
    spec, _ = done[0]
    results = Results(tmp_path)
    broken = Outcome(spec.job, "gossip", [Figures(1, [0, 1], [0.5], [0.5], [0.5], 0.1)])
    with pytest.raises(ValueError, match="shorter"):
        results.add("broken", spec, broken)
    assert read(tmp_path, "SELECT * FROM runs") == []


def test_parquet_holds_the_same_tables(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = Results(folder).write_parquet()
    assert [path.name for path in paths] == ["runs.parquet", "rounds.parquet", "peers.parquet"]
    for path in paths:
        assert parquet.read_table(path).to_pylist() == read(folder, f"SELECT * FROM {path.stem}")


def test_empty_tables_have_their_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    runs, _, peers = Results(tmp_path).write_parquet()
    assert parquet.read_table(runs).column_names[:3] == ["run", "experiment", "kind"]
    assert parquet.read_table(peers).num_rows == 0


def test_without_pyarrow_it_is_said_where_the_results_are(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LearnerError, match=r"gossipd\[lab\].*results\.sqlite"):
        Results(folder).write_parquet()
