"""Graphs as Graphviz text and as pictures."""

import sys

import pytest

from cli import drawing
from cli.client import USAGE, ControlError

A, B, C = ("a" * 52, "b" * 52, "c" * 52)


def test_dot_names_every_peer_once_and_every_edge(topology_answer):
    lines = drawing.dot(topology_answer).splitlines()
    assert lines[0] == "graph gossipd {"
    assert lines[-1] == "}"
    assert f'  "{A}" [label="ann"];' in lines
    assert f'  "{B}" [label="bo\\"b"];' in lines  # a name cannot break out of its quotes
    assert f'  "{C}" [label="cccccccc"];' in lines
    assert sum(" -- " in line for line in lines) == 2
    assert f'  "{B}" -- "{C}" [weight=0.5, tooltip="0.5"];' in lines


def test_dot_of_a_one_way_graph_has_arrows(topology_answer):
    text = drawing.dot(topology_answer | {"directed": True})
    assert text.startswith("digraph")
    assert text.count(" -> ") == 2


@pytest.mark.parametrize("directed", [False, True])
def test_a_picture_is_drawn(topology_answer, tmp_path, directed):
    pytest.importorskip("matplotlib")
    drawing.png(topology_answer | {"directed": directed, "period": 3}, tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_says_so(topology_answer, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ControlError, match="cannot write") as caught:
        drawing.png(topology_answer, tmp_path / "nowhere" / "graph.png")
    assert caught.value.exit_code == USAGE


def test_without_matplotlib_it_is_said_what_to_install(topology_answer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ControlError, match=r"gossipd\[plot\]"):
        drawing.png(topology_answer, tmp_path / "graph.png")
