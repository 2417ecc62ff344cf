"""`python -m overlay.simulator`: what it prints, and how it says what it cannot run."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.simulator.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def simulator(capsys):
    """simulator("--peers 5 …"): (exit code, standard output, standard error)."""

    def run(line):
        try:
            code = main(line.split())
        except SystemExit as error:
            code = error.code
        finally:
            gc.enable()  # which the command line does without
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def in_a_process(line, *, hash_seed):
    """What a process with that seed of hashes prints."""
    result = subprocess.run(
        [sys.executable, "-m", "overlay.simulator", *line.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert result.stderr == b""
    return result.stdout


@pytest.mark.parametrize(
    "line",
    [
        "--peers 12 --scenario kill --seed 3 --json",
        "--peers 10 --scenario churn --duration 6 --leaves 0.3 --seed 4 --loss 0.05 --json",
    ],
)
def test_one_seed_prints_one_report_whatever_the_order_of_hashes(line):
    reports = {in_a_process(line, hash_seed=hash_seed) for hash_seed in ("0", "1", "4711")}
    assert len(reports) == 1, reports


def test_json_is_one_line_with_sorted_keys(simulator):
    code, out, _ = simulator("--peers 5 --json")
    assert code == 0
    assert out.count("\n") == 1
    report = json.loads(out)
    assert list(report) == sorted(report)
    assert (report["peers"], report["scenario"], report["seed"]) == (5, "kill", 1)


def test_people_get_a_table_with_labels(simulator):
    code, out, _ = simulator("--peers 5 --seed 2")
    assert code == 0
    head, blank, *rows = out.splitlines()
    assert head == "kill: 5 peers, seed 2, profile lan, latency lan, loss 0"
    assert blank == ""
    assert any(row.split("  ")[1] == "healthy members declared dead" for row in rows)
    assert all(row.startswith("  ") for row in rows)


def test_what_is_asked_for_is_what_is_simulated(simulator):
    _, out, _ = simulator(
        "--peers 6 --scenario flap --fraction 0.2 --duration 4 --down 1 --up 2 --limit 30"
        " --profile local --latency constant:0.01 --loss 0.01 --seed 9 --json"
    )
    report = json.loads(out)
    expected = {"fraction": 0.2, "duration_s": 4.0, "down_s": 1.0, "up_s": 2.0, "limit_s": 30.0}
    assert expected.items() <= report["options"].items()
    assert report["hit"] == 1
    assert (report["profile"], report["latency"], report["loss"]) == (
        "local", "constant:0.01", 0.01,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("--peers 1", "at least 2"),
        ("--peers many", "at least 2"),
        ("--peers 2.5", "at least 2"),
        ("--groups 1", "at least 2"),
        ("--loss 0.95", "from 0 to 0.9"),
        ("--loss -0.1", "from 0 to 0.9"),
        ("--loss nan", "from 0 to 0.9"),
        ("--loss some", "from 0 to 0.9"),
        ("--fraction 1.5", "from 0 to 0.9"),
        ("--fraction half", "from 0 to 0.9"),
        ("--latency fast", "write lan, wan, constant:0.01"),
        ("--latency constant:quick", "write lan, wan, constant:0.01"),
        ("--latency uniform:2,1", "write lan, wan, constant:0.01"),
        ("--latency constant:nan", "write lan, wan, constant:0.01"),
        ("--duration 0", "seconds, above 0"),
        ("--limit soon", "seconds, above 0"),
        ("--joins -1", "0 or more"),
        ("--leaves inf", "0 or more"),
        ("--scenario fire", "'partition'"),
        ("--how poison", "'blackhole'"),
        ("--profile moon", "'wan'"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_what_can(simulator, line, right):
    code, out, err = simulator(line)
    assert code == 2
    assert out == ""
    option = line.split()[0]
    message = err.splitlines()[-1]
    assert f"argument {option}" in message
    assert right in message
    assert "_" not in message  # no name of a function


def test_help_says_what_every_scenario_does(simulator):
    code, out, _ = simulator("--help")
    assert code == 0
    for line in ("kill", "churn", "partition", "slow", "flap"):
        assert any(row.strip().startswith(f"{line} ") for row in out.splitlines())
