"""What the benchmark decides from its figures; the figures themselves need real daemons."""

import pytest

from benchmarks.detection import BOUNDS, failed, main, make_plan, report

NAMES = [f"p{index:02}" for index in range(30)]
MACHINE = {"cores": 2, "python": "3.11.7"}
FIGURES = {
    "start_s": 9.0, "converged_s": 0.4, "converged_from_launch_s": 1.2, "kill_known_first_s": 0.1,
    "kill_known_median_s": 0.2, "kill_known_last_s": 0.3, "silence_known_last_s": 3.0,
    "silence_returned_s": 0.5, "idle_cpu_percent_total": 20.0, "rss_mb_max": 45.0,
    "busy_false_deaths": 0, "busy_suspicions": 2, "busy_cpu_percent_total": 25.0,
    "kills": [{"victim": "p04", "first_s": 0.1, "median_s": 0.2, "last_s": 0.3}],
}  # fmt: skip


def result(figures, serf=None):
    settings = {"peers": 30, "profile": "lan", "seed": 1, "machine": MACHINE, "bounds": BOUNDS}
    return {**figures, "serf": serf, **settings, "failed": failed(figures)}


def test_figures_at_their_bounds_hold():
    assert failed({**FIGURES, **BOUNDS}) == []


@pytest.mark.parametrize("name", BOUNDS)
def test_each_bound_is_looked_at(name):
    assert failed({**FIGURES, name: BOUNDS[name] + 0.01}) == [name]


def test_no_peer_is_killed_twice_and_the_seed_decides():
    plan = make_plan(NAMES, 30, 5, idle_s=1, busy_s=1)
    assert sorted(plan.victims) == NAMES
    assert plan == make_plan(NAMES, 30, 5, idle_s=1, busy_s=1)
    assert plan != make_plan(NAMES, 30, 6, idle_s=1, busy_s=1)


def test_the_table_shows_bounds_and_what_failed():
    lines = report(result({**FIGURES, "kill_known_last_s": 1.5})).splitlines()
    row = next(line for line in lines if line.startswith("kill_known_last_s"))
    assert row.split() == ["kill_known_last_s", "1.5", "–", "1", "FAILED"]
    assert lines[-1] == "serf is not installed"


def test_the_table_shows_serf_beside_us():
    text = report(result(FIGURES, {**FIGURES, "kill_known_last_s": 4.25, "version": "Serf v1"}))
    row = next(line for line in text.splitlines() if line.startswith("kill_known_last_s"))
    assert row.split() == ["kill_known_last_s", "0.3", "4.25", "1"]
    assert "FAILED" not in text
    assert text.endswith("Serf v1")


def test_more_kills_than_peers_are_refused(capsys):
    assert main(["--peers", "3", "--kills", "4"]) == 2
    assert "between 1 and --peers" in capsys.readouterr().err
