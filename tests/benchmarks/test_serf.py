"""The Serf side of the benchmark, against a stand-in for the program."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.course import News, Plan, run_course
from benchmarks.serf import SerfFailed, find_serf, read_line, serf_agents, serf_version

FAKE = Path(__file__).with_name("fake_serf.py")
NAMES = ["p00", "p01", "p02", "p03"]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The stand-in, on PATH as `serf`."""
    programs, members = tmp_path / "bin", tmp_path / "members"
    programs.mkdir()
    members.mkdir()
    script = programs / "serf"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_SERF", str(members))
    return find_serf()


def test_the_whole_course_gives_every_figure_and_leaves_no_process(program):
    plan = Plan(
        victims=("p00", "p02"), silent="p01", idle_s=0.3, busy_s=0.2, start_settle_s=0.2,
        kill_settle_s=0.2, silence_settle_s=0.2, return_settle_s=0.2, quiet_s=0.0, poll_s=0.05,
        limit_s=10.0,
    )  # fmt: skip
    with serf_agents(program, NAMES, profile="lan") as group:
        figures = run_course(group, plan, lambda text: None)
        pids = group.pids()
    assert [kill["victim"] for kill in figures["kills"]] == ["p00", "p02"]
    assert all(0 < k["first_s"] <= k["median_s"] <= k["last_s"] < 5 for k in figures["kills"])
    assert 0 < figures["silence_known_last_s"] < 5
    assert 0 < figures["silence_returned_s"] < 5
    assert figures["converged_s"] <= figures["converged_from_launch_s"] < 5
    assert figures["rss_mb_max"] > 1
    assert figures["idle_cpu_percent_total"] >= 0
    assert figures["busy_false_deaths"] == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_agent_that_cannot_join_is_an_error_with_its_own_words(program, monkeypatch):
    monkeypatch.setenv("FAKE_SERF_FAILS", "p01")
    with (
        serf_agents(program, NAMES, profile="lan") as group,
        pytest.raises(SerfFailed, match=r"p01 did not start: .*connection refused"),
    ):
        group.start()


def test_the_program_says_which_version_it_is(program):
    assert serf_version(program) == "Serf v0.0.0-fake"


def test_another_program_of_that_name_is_told_apart(tmp_path):
    script = tmp_path / "serf"
    script.write_text("#!/bin/sh\nexit 2\n")
    script.chmod(0o755)
    with pytest.raises(SerfFailed, match="does not answer as Serf"):
        serf_version(script)


@pytest.mark.parametrize(
    ("line", "subject", "kind"),
    [
        ("2018/01/11 11:23:38 [INFO] serf: EventMemberFailed: p3 127.0.0.1", "p3", "dead"),
        ("    2018/01/11 11:23:38 [INFO] serf: EventMemberJoin: p3 127.0.0.1", "p3", "alive"),
        ("[INFO] memberlist: Suspect p3 has failed, no acks received", "p3", "suspect"),
    ],
)
def test_news_is_read_from_the_log(line, subject, kind):
    assert read_line(line, "p1", 12.5) == News(12.5, "p1", subject, kind)


@pytest.mark.parametrize(
    "line",
    [
        "[INFO] memberlist: Marking p3 as failed, suspect timeout reached (2 peer confirmations)",
        "[INFO] agent: Received event: member-failed",
        "[INFO] serf: EventMemberLeave: p3 127.0.0.1",
        "",
    ],
)
def test_other_lines_are_no_news(line):
    assert read_line(line, "p1", 12.5) is None
