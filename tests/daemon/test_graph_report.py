"""What a graph is worth, in the daemon's words and by a process of its own."""

import pytest

from daemon.graph_report import describe
from daemon.overlay_api import reported

RING = {"a": {"b": None, "c": None}, "b": {"a": None, "c": None}, "c": {"a": None, "b": None}}
ONE_WAY = [{"a": {"b": 0.5}, "b": {"a": 0.25}}, {"a": {}, "b": {"a": 0.5}}]


def test_a_triangle_averages_at_once_and_weighs_everybody_the_same():
    report = describe([RING], 0, "metropolis", "a")
    third = pytest.approx(1 / 3)
    assert report["weights"] == {"b": third, "c": third}
    assert report["self_weight"] == third
    assert report["spectral_gap"] == pytest.approx(1.0)
    assert [(u, v) for u, v, _ in report["edges_list"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (report["directed"], report["period"], report["period_gap"]) == (False, 1, None)


def test_the_topologys_own_weights_are_told_and_the_gap_is_of_the_whole_period():
    report = describe(ONE_WAY, 1, "metropolis", "b")
    assert (report["weights_by"], report["directed"], report["period"]) == ("explicit", True, 2)
    assert report["weights"] == {"a": 0.5}
    assert report["edges_list"] == [("a", "b", 0.5)]
    assert 0 < report["period_gap"] <= 1


def test_who_is_not_in_the_graph_has_no_weights():
    report = describe([RING], 0, "uniform", "somebody else")
    assert (report["weights"], report["self_weight"]) == ({}, None)


async def test_a_process_of_its_own_says_the_same(tmp_path, monkeypatch):
    (tmp_path / "daemon.py").write_text("raise RuntimeError('code of the folder that it is in')")
    monkeypatch.chdir(tmp_path)
    for rounds, me in (([RING], "a"), (ONE_WAY, "b")):
        report = describe(rounds, 0, "metropolis", me)
        edges = [list(edge) for edge in report["edges_list"]]
        assert await reported(rounds, 0, "metropolis", me) == report | {"edges_list": edges}
