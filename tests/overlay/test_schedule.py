import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.schedule import Everybody, Schedule, from_edges, graph, mutual_rows, rows_graph

# 0 – 1 by the rule; then 2 takes in 0 one-way, with a weight.
TWO_ROUNDS = Schedule((mutual_rows(3, [(0, 1, None)]), ({}, {}, {0: 0.25})))

random_rounds = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.tuples(*(st.dictionaries(st.integers(0, n - 1), st.just(0.1)) for _ in range(n))),
        min_size=1,
        max_size=3,
    )
)


def without_loops(rounds):
    return tuple(
        tuple({other: w for other, w in row.items() if other != i} for i, row in enumerate(rows))
        for rows in rounds
    )


def test_rounds_repeat_after_the_period():
    assert (TWO_ROUNDS.count, TWO_ROUNDS.period) == (3, 2)
    assert TWO_ROUNDS.row(0, 0) == TWO_ROUNDS.row(0, 14) == {1: None}
    assert TWO_ROUNDS.row(2, 1) == TWO_ROUNDS.row(2, 7) == {0: 0.25}
    assert TWO_ROUNDS.row(2, 0) == {}


def test_both_ends_of_a_one_way_mixing_need_the_link():
    assert [TWO_ROUNDS.links(position) for position in range(3)] == [{1, 2}, {0}, {0}]


@given(rounds=random_rounds.map(without_loops))
def test_links_are_all_partners_of_all_rounds_in_both_directions(rounds):
    schedule = Schedule(rounds)
    union = nx.Graph()
    union.add_nodes_from(range(schedule.count))
    union.add_edges_from((i, j) for rows in rounds for i, row in enumerate(rows) for j in row)
    assert all(schedule.links(i) == set(union[i]) for i in range(schedule.count))


def test_a_schedule_is_explicit_when_no_weight_is_left_to_the_rule():
    assert not TWO_ROUNDS.explicit
    assert Schedule(TWO_ROUNDS.rounds[1:]).explicit


@pytest.mark.parametrize(
    ("rounds", "message"), [((), "at least one round"), (((), ({},)), "same number of positions")]
)
def test_a_schedule_without_rounds_or_with_uneven_rounds_is_refused(rounds, message):
    with pytest.raises(ValueError, match=message):
        Schedule(rounds)


def test_the_row_of_everybody_is_the_mapping_it_stands_for():
    row = Everybody(4, 2)
    assert row == {0: None, 1: None, 3: None}
    assert len(row) == 3
    assert all(absent not in row for absent in (2, -1, 4))


def test_undirected_edges_are_rows_both_ways():
    assert from_edges(3, [(0, 1), (2, 1)]).rounds == (({1: None}, {0: None, 2: None}, {1: None}),)
    assert mutual_rows(2, [(1, 0, 0.5)]) == ({1: 0.5}, {0: 0.5})


@pytest.mark.parametrize(
    ("rows", "mutual"),
    [
        ((), True),
        (({1: None}, {0: None}), True),
        (({1: 0.3}, {0: 0.3}), True),
        (({1: 0.3}, {0: 0.2}), False),
        (({1: None}, {}), False),
    ],
)
def test_mixing_is_mutual_when_both_take_in_the_other_alike(rows, mutual):
    assert rows_graph(dict(enumerate(rows))).is_directed() is not mutual


def test_a_mutual_round_is_an_undirected_graph_on_the_names():
    found = graph(TWO_ROUNDS, 2, ["a", "b", "c"])
    assert not found.is_directed()
    assert set(found.nodes) == {"a", "b", "c"}
    assert list(found.edges(data=True)) == [("a", "b", {})]


def test_a_one_way_round_is_directed_the_way_the_vector_travels():
    found = graph(TWO_ROUNDS, 1, ["a", "b", "c"])
    assert found.is_directed()
    assert list(found.nodes) == ["a", "b", "c"]
    assert list(found.edges(data=True)) == [("a", "c", {"weight": 0.25})]


def test_a_graph_needs_a_name_for_each_position():
    with pytest.raises(ValueError, match="2 names for 3 positions"):
        graph(TWO_ROUNDS, 0, ["a", "b"])


def test_computing_links_loads_no_scientific_library():
    program = (
        "import sys; from overlay import base_k, graphs, mixing_matrix, schedule;"
        "graphs.torus(9).links(3); base_k.base_k(6, 1); graphs.erdos_renyi(9, 0.5, 's');"
        "print(sorted({'networkx', 'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert (done.stdout, done.stderr) == ("[]\n", "")
