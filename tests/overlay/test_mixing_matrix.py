import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.mixing_matrix import (
    analyse,
    metropolis_matrix,
    metropolis_row,
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
