"""`gossipd lab`: what it prints, where it writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from learner.lab.__main__ import main

ROOT = Path(__file__).parents[3]
JOB = """
algorithm = "dpsgd"
model.name = "linear"
data = { source = "two-moons", options = { samples = 120 } }
training = { rounds = 2, local_steps = 2, batch_size = 8 }
gossip.topology = "ring"
partition = { parts = PARTS }
"""


@pytest.fixture
def write(tmp_path):
    """An experiment on the small job: write(before="", after="", parts=4). Returns its path."""

    def make(before="", after="", parts=4):
        (tmp_path / "job.toml").write_text(JOB.replace("PARTS", str(parts)))
        path = tmp_path / "experiment.toml"
        path.write_text(f'name = "moons"\njob_file = "job.toml"\n{before}\n{after}')
        return path

    return make


@pytest.fixture
def call(capsys):
    """Run the command line: call(*arguments). Returns (status, output, error output)."""

    def run(*arguments):
        status = main([str(word) for word in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_an_experiment_prints_its_table_and_leaves_its_files(write, call, tmp_path):
    path = write("seeds = [1, 2]", '[grid]\n"optimizer.lr" = [0.05, 0.1]')
    out = tmp_path / "results"
    status, text, complaints = call("run", path, "--out", out, "--workers", 1, "--quiet")
    assert (status, complaints) == (0, "")
    head, *lines = text.splitlines()
    assert head.split()[:4] == ["lr", "kind", "accuracy", "±"]
    assert [line.split()[:2] for line in lines] == [["0.05", "gossip"], ["0.1", "gossip"]]
    assert {path.name for path in out.iterdir()} == {
        "results.sqlite", "runs.parquet", "rounds.parquet", "peers.parquet", "plot.png",
    }  # fmt: skip


def test_json_has_every_figure_of_the_table(write, call):
    path = write('kinds = ["gossip", "federated"]\nseeds = [3]')
    status, text, _ = call("run", path, "--json", "--workers", 1)
    told = json.loads(text)
    assert status == 0
    assert (told.keys(), told["seeds"]) == ({"experiment", "seeds", "table"}, [3])
    assert [line["kind"] for line in told["table"]] == ["gossip", "federated"]
    for line in told["table"]:
        assert line.keys() == {
            "point", "kind", "accuracy", "spread", "worst", "test_loss", "distance", "models_sent",
            "seconds", "diverged",
        }  # fmt: skip
        assert 0 <= line["worst"] <= line["accuracy"] <= 1
        assert (line["spread"], line["models_sent"], line["diverged"]) == (None, 2, 0)


def test_a_run_that_diverged_is_shown_as_such(write, call):
    after = "[job.optimizer]\nlr = 1000.0\nweight_decay = 10.0\nclip_norm = 0.0"
    after += "\n[job.training]\nrounds = 50\nevaluate_every = 50"
    status, text, _ = call("run", write(after=after), "--quiet")
    assert status == 0
    assert "diverged" in text.splitlines()[1]
    told = json.loads(call("run", write(after=after), "--json")[1])
    assert (told["table"][0]["diverged"], told["table"][0]["test_loss"]) == (1, None)


def test_values_without_anything_to_predict(call, tmp_path):
    path = tmp_path / "values.toml"
    path.write_text(
        'seeds = [1, 2]\n[job]\nalgorithm = "consensus"\ndata.source = "none"\n'
        'model = { name = "values", options = { start = [1.0, 2.0, 6.0] } }\n'
        'partition.parts = 3\ntraining.rounds = 3\ngossip.topology = "ring"\n'
    )
    status, text, _ = call("run", path, "--quiet", "--workers", 1, "--out", tmp_path / "out")
    assert status == 0
    assert text.splitlines()[1].split()[:4] == ["gossip", "–", "–", "–"]
    assert (tmp_path / "out" / "plot.png").exists()


@pytest.mark.parametrize(
    ("before", "after", "status", "complaint"),
    [
        ("sedes = [1]", "", 2, "experiment.toml: sedes: unknown key (did you mean 'seeds'?)"),
        ("", "[conditions]\nabsent = [4]", 1, "there is no peer 4: peers go from 0 to 3"),
        ("", "[job.partition]\nparts = 4000", 1, "parts"),
        ("", '[grid]\n"optimizer.lrr" = [1]', 2, "optimizer.lrr: unknown key"),
    ],
)
def test_bad_input_is_refused_with_the_reason(write, call, before, after, status, complaint):
    given, text, complaints = call("run", write(before, after), "--quiet")
    assert (given, text) == (status, "")
    assert complaint in complaints


def test_a_missing_file_is_named(call, tmp_path):
    status, _, complaints = call("run", tmp_path / "none.toml")
    assert status == 2
    assert "none.toml" in complaints


@pytest.mark.parametrize(
    ("flag", "number", "words"),
    [("--workers", "-1", "0 is all cores"), ("--threads", "0", "1 to 1024")],
)
def test_a_number_of_workers_or_threads_is_one(write, call, capsys, flag, number, words):
    with pytest.raises(SystemExit):
        call("run", write(), flag, number)
    assert words in capsys.readouterr().err


def test_a_split_is_shown_and_drawn(write, call, tmp_path):
    write()
    job, png = tmp_path / "job.toml", tmp_path / "split.png"
    status, text, _ = call("split", job, "--png", png)
    assert status == 0
    assert "4 parts" in text
    assert png.read_bytes().startswith(b"\x89PNG")
    told = json.loads(call("split", job, "--json")[1])
    assert isinstance(told, dict)


def test_a_broken_job_is_refused(call, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("rounds = 3")
    assert call("split", path)[0] == 2
    path.write_bytes(b"\xff\xfe\x00")
    status, _, complaints = call("split", path)
    assert status == 2
    assert complaints


def test_gossipd_lab_is_this_program(write):
    command = [sys.executable, "-m", "cli.gossipd", "lab", "run", str(write()), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["experiment"] == "moons"
