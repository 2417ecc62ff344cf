import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import mixing_matrix as module
from overlay.mixing_matrix import (
    analyse,
    estimated_gap,
    metropolis_matrix,
    metropolis_row,
    mixing_matrix,
    period_gap,
    spectral_gap,
    uniform_row,
)

# A published example graph of six peers; λ₂ of its Metropolis matrix is 0.4333.
KNOWN = nx.Graph(
    {0: [1, 2, 3, 5], 1: [0, 3, 4, 5], 2: [0, 3, 4], 3: [0, 1, 2, 4, 5], 4: [1, 2, 3, 5],
     5: [0, 1, 3, 4]}
)  # fmt: skip


def test_the_known_graph_has_the_known_second_eigenvalue():
    values = np.sort(np.linalg.eigvalsh(metropolis_matrix(KNOWN)))
    assert values[-1] == pytest.approx(1.0)
    assert values[-2] == pytest.approx(0.4333, abs=5e-5)
    assert spectral_gap(metropolis_matrix(KNOWN)) == pytest.approx(0.5667, abs=5e-5)


def test_weights_of_the_known_graph():
    matrix = metropolis_matrix(KNOWN)
    assert matrix[0].tolist() == pytest.approx([7 / 30, 1 / 5, 1 / 5, 1 / 6, 0, 1 / 5])
    assert matrix[2].tolist() == pytest.approx([1 / 5, 0, 13 / 30, 1 / 6, 1 / 5, 0])


@given(nodes=st.integers(1, 12), chance=st.floats(0, 1), seed=st.integers(0, 1000))
def test_rows_and_columns_sum_to_one_and_the_matrix_is_symmetric(nodes, chance, seed):
    matrix = metropolis_matrix(nx.gnp_random_graph(nodes, chance, seed=seed))
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert matrix.min() >= -1e-12
    assert -1e-9 <= spectral_gap(matrix) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("own", "degrees", "metropolis", "uniform"),
    [
        (2, {"a": 1, "b": 4}, {"a": 1 / 3, "b": 1 / 5}, {"a": 1 / 3, "b": 1 / 3}),
        (1, {"a": 1}, {"a": 1 / 2}, {"a": 1 / 2}),
        (0, {}, {}, {}),
    ],
)
def test_rows_of_weights(own, degrees, metropolis, uniform):
    assert metropolis_row(own, degrees) == pytest.approx(metropolis)
    assert uniform_row(own, degrees) == pytest.approx(uniform)


@pytest.mark.parametrize(
    ("graph", "gap"),
    [
        (nx.complete_graph(5), 1.0),
        (nx.complete_graph(2), 1.0),
        (nx.empty_graph(1), 1.0),
        (nx.empty_graph(2), 0.0),
        (nx.cycle_graph(6), 1 / 3),
    ],
)
def test_the_spectral_gap_of_graphs_with_a_formula(graph, gap):
    assert spectral_gap(metropolis_matrix(graph)) == pytest.approx(gap, abs=1e-12)


def test_the_analysis_of_a_path():
    found = analyse(nx.path_graph(4))
    assert (found.peers, found.edges, found.degree_min, found.degree_max) == (4, 3, 1, 2)
    assert found.connected
    assert found.diameter == 3


def test_two_halves_have_no_diameter_and_no_gap():
    found = analyse(nx.disjoint_union(nx.complete_graph(3), nx.complete_graph(3)))
    assert not found.connected
    assert found.diameter is None
    assert found.spectral_gap == pytest.approx(0.0, abs=1e-12)


def test_nobody_at_all_is_analysed_without_figures():
    found = analyse(nx.Graph())
    assert (found.peers, found.connected, found.diameter, found.spectral_gap) == (
        0, False, None, None,
    )  # fmt: skip


def directed(*edges):
    graph = nx.DiGraph()
    graph.add_nodes_from("abc")
    graph.add_weighted_edges_from(edges)
    return graph


def test_the_explicit_rule_reads_the_weights_of_undirected_edges_both_ways():
    graph = nx.Graph()
    graph.add_weighted_edges_from([("a", "b", 0.25), ("b", "c", 0.5)])
    expected = [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 0.5, 0.5]]
    assert mixing_matrix(graph, "explicit").tolist() == expected


def test_the_target_of_a_directed_edge_takes_in_its_source():
    graph = directed(("a", "b", 0.25), ("c", "b", 0.5), ("b", "a", 0.125))
    expected = [[0.875, 0.125, 0], [0.25, 0.25, 0.5], [0, 0, 1]]
    assert mixing_matrix(graph, "explicit").tolist() == expected


def test_the_rules_count_whom_a_peer_takes_in_and_who_takes_in_the_other():
    # b takes in 2, a 1; a is taken in by 2, the others by 1
    graph = directed(("a", "b", 0.1), ("c", "b", 0.1), ("b", "a", 0.1), ("a", "c", 0.1))
    third = pytest.approx(1 / 3)
    assert mixing_matrix(graph, "metropolis")[0].tolist() == [0.5, 0.5, 0]
    assert mixing_matrix(graph, "metropolis")[2].tolist() == [third, 0, pytest.approx(2 / 3)]
    assert mixing_matrix(graph, "uniform")[0].tolist() == [0.5, 0.5, 0]
    assert mixing_matrix(graph, "uniform")[1].tolist() == [third, third, third]


def test_uniform_rows_sum_to_one_and_columns_need_not():
    matrix = mixing_matrix(nx.star_graph(3), "uniform")
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert matrix.sum(axis=0)[0] == pytest.approx(1 / 4 + 3 / 2)


def test_the_explicit_rule_refuses_an_edge_without_a_weight():
    with pytest.raises(ValueError, match="edge 1-0 has no weight"):
        mixing_matrix(nx.path_graph(2), "explicit")


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'median'; known: metropolis, uniform, explicit"):
        mixing_matrix(nx.path_graph(2), "median")


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_the_gap_of_the_hypercube(dimensions):
    # λ of the adjacency matrix are d − 2j; Metropolis makes them (1 + d − 2j) / (1 + d).
    expected = 1 - max(abs(dimensions - 1), abs(1 - dimensions)) / (dimensions + 1)
    assert spectral_gap(metropolis_matrix(nx.hypercube_graph(dimensions))) == pytest.approx(
        expected
    )


def test_the_gap_of_a_matrix_that_is_not_symmetric_is_that_of_its_eigenvalues():
    # A directed ring with half the weight on oneself: λ = (1 + e^{2πik/n}) / 2.
    n = 7
    matrix = (np.eye(n) + np.roll(np.eye(n), 1, axis=1)) / 2
    assert spectral_gap(matrix) == pytest.approx(1 - np.cos(np.pi / n))


def test_the_gap_of_rows_that_agree_on_one_peer_is_the_rate_of_agreement():
    # Stochastic, not doubly: everybody ends at peer 0's value, halving the distance each round.
    matrix = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])
    assert spectral_gap(matrix) == pytest.approx(0.5)


@given(nodes=st.integers(2, 10), chance=st.floats(0.3, 1), seed=st.integers(0, 100))
def test_a_period_of_one_symmetric_round_has_the_spectral_gap(nodes, chance, seed):
    matrix = metropolis_matrix(nx.gnp_random_graph(nodes, chance, seed=seed))
    gap = pytest.approx(spectral_gap(matrix), abs=1e-9)
    assert period_gap([matrix]) == gap
    assert period_gap([matrix] * 3) == gap


def test_rounds_that_average_only_together_have_a_period_gap_of_one():
    bits = [metropolis_matrix(nx.Graph([(i, i ^ bit) for i in range(8)])) for bit in (1, 2, 4)]
    orders = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 3, 4, 6, 5, 7], [0, 4, 1, 5, 2, 6, 3, 7]]
    places = [np.argsort(order) for order in orders]
    rounds = [matrix[np.ix_(at, at)] for matrix, at in zip(bits, places, strict=True)]
    assert [spectral_gap(matrix) for matrix in rounds] == pytest.approx([0, 0, 0])
    assert period_gap(rounds) == 1.0
    assert period_gap(rounds[:2]) == pytest.approx(0.0)


def test_the_first_round_of_a_period_is_applied_first():
    # Peers 0 and 1 meet, then everybody takes what 1 has and half of the average.
    meet = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    copy = np.array([[0, 1.0, 0], [0, 1.0, 0], [0, 0.5, 0.5]])
    average = np.full((3, 3), 1 / 3)
    expected = 1 - np.sqrt(np.linalg.norm(copy @ meet - average, 2))
    assert period_gap([meet, copy]) == pytest.approx(expected)
    assert period_gap([copy, meet]) != pytest.approx(expected)


def test_a_long_period_that_agrees_slowly_is_not_taken_for_exact():
    matrix = metropolis_matrix(nx.cycle_graph(6))  # (2/3)^200 is 6e-36
    assert period_gap([matrix] * 200) == pytest.approx(1 / 3)


@pytest.mark.parametrize("matrices", [[], [np.ones((1, 1))], [np.zeros((0, 0))]])
def test_nobody_has_anything_to_agree_on(matrices):
    assert period_gap(matrices) == 1.0


@pytest.mark.parametrize(
    "graph",
    [
        nx.cycle_graph(100),
        nx.random_regular_graph(6, 300, seed=1),
        nx.star_graph(200),
        nx.barabasi_albert_graph(300, 3, seed=1),
        nx.complete_graph(80),
        nx.disjoint_union(nx.cycle_graph(70), nx.cycle_graph(50)),
        nx.empty_graph(100),
    ],
)
def test_the_estimate_by_lanczos_is_the_dense_gap(graph):
    dense = spectral_gap(metropolis_matrix(graph))
    assert estimated_gap(graph) == pytest.approx(dense, abs=1e-6)
    assert estimated_gap(graph) == estimated_gap(graph)


def test_the_estimate_for_a_large_torus_is_its_closed_form():
    # λ₂ = (3 + 2·cos(2π/60)) / 5 by the eigenvalues of the two rings.
    graph = nx.grid_2d_graph(60, 60, periodic=True)
    expected = 1 - (3 + 2 * np.cos(2 * np.pi / 60)) / 5
    assert estimated_gap(graph) == pytest.approx(expected, abs=1e-6)
    assert analyse(graph).spectral_gap == pytest.approx(expected, abs=1e-6)


def test_the_estimate_takes_symmetric_matrices_only():
    with pytest.raises(ValueError, match="not symmetric"):
        estimated_gap(nx.star_graph(100), "uniform")


def test_a_directed_graph_is_analysed_by_whom_its_peers_take_in():
    ring = nx.cycle_graph(5, create_using=nx.DiGraph)
    nx.set_edge_attributes(ring, 0.5, "weight")
    found = analyse(ring, "explicit")
    assert (found.peers, found.edges, found.degree_min, found.degree_max) == (5, 5, 1, 1)
    assert (found.connected, found.diameter) == (True, 4)
    assert found.spectral_gap == pytest.approx(1 - np.cos(np.pi / 5))
    assert not analyse(nx.DiGraph([(0, 1), (1, 2)])).connected


def test_the_figures_that_take_too_long_are_left_out_of_large_graphs(monkeypatch):
    monkeypatch.setattr(module, "MAX_DENSE", 80)
    found = analyse(nx.cycle_graph(100))
    assert found.connected
    assert found.diameter is None
    assert found.spectral_gap == pytest.approx(2 / 3 * (1 - np.cos(np.pi / 50)), abs=1e-6)
    assert analyse(nx.cycle_graph(100, create_using=nx.DiGraph)).spectral_gap is None
    assert analyse(nx.cycle_graph(100), "uniform").spectral_gap is None
