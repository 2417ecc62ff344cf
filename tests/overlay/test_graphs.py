import hashlib
import itertools
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import circulant

from overlay import graphs
from overlay.mixing_matrix import mixing_matrix, period_gap, spectral_gap
from overlay.schedule import graph

few = st.integers(0, 24)
seeds = st.text("abc", max_size=3)
schedules = st.one_of(
    st.builds(graphs.complete, few),
    st.builds(graphs.ring, few),
    st.builds(graphs.star, few),
    st.builds(graphs.torus, few),
    st.builds(graphs.random_regular, few, st.integers(1, 25), seeds),
    st.builds(graphs.erdos_renyi, few, st.floats(0, 1), seeds),
    st.builds(graphs.exponential, few),
    st.builds(graphs.one_peer_exponential, few),
    st.builds(graphs.random_matching, few, st.integers(1, 5), seeds),
)


def as_graph(schedule, round=0):
    return graph(schedule, round, range(schedule.count))


def matrices(schedule):
    """W of every round: explicit where the graph brings its weights, Metropolis elsewhere."""
    rule = "explicit" if schedule.explicit else "metropolis"
    return [mixing_matrix(as_graph(schedule, r), rule) for r in range(schedule.period)]


def same(one, other):
    return nx.utils.graphs_equal(nx.Graph(one), nx.Graph(other))


@given(schedule=schedules)
def test_every_graph_is_doubly_stochastic_without_loops(schedule):
    for matrix, rows in zip(matrices(schedule), schedule.rounds, strict=True):
        np.testing.assert_allclose(matrix.sum(axis=0), 1.0)
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
        assert matrix.min(initial=0) >= -1e-12
        assert all(position not in row for position, row in enumerate(rows))


@given(schedule=schedules)
def test_links_are_symmetric(schedule):
    for position in range(schedule.count):
        links = schedule.links(position)
        assert links <= set(range(schedule.count)) - {position}
        assert all(position in schedule.links(other) for other in links)


@pytest.mark.parametrize("n", range(2, 31))
def test_graphs_that_do_not_change_are_connected(n):
    for schedule in (
        graphs.complete(n),
        graphs.ring(n),
        graphs.star(n),
        graphs.torus(n),
        graphs.exponential(n),
        graphs.erdos_renyi(n, 0.1, "s"),
    ):
        assert nx.is_connected(as_graph(schedule).to_undirected())


@pytest.mark.parametrize("n", range(31))
def test_complete_ring_and_star_are_those_of_networkx(n):
    assert same(as_graph(graphs.complete(n)), nx.complete_graph(n))
    assert same(as_graph(graphs.star(n)), nx.star_graph(range(n)))
    if n > 2:
        assert same(as_graph(graphs.ring(n)), nx.cycle_graph(n))


@pytest.mark.parametrize(("n", "edges"), [(0, 0), (1, 0), (2, 1)])
def test_too_few_for_a_ring_or_a_torus_are_all_joined(n, edges):
    for schedule in (graphs.ring(n), graphs.torus(n)):
        assert as_graph(schedule).number_of_edges() == edges


@pytest.mark.parametrize(
    ("n", "rows"), [(4, 2), (6, 2), (9, 3), (12, 3), (16, 4), (24, 4), (30, 5), (36, 6)]
)
def test_a_torus_is_the_most_square_periodic_grid(n, rows):
    grid = nx.grid_2d_graph(rows, n // rows, periodic=True)
    places = {(row, column): row * (n // rows) + column for row, column in grid}
    assert same(as_graph(graphs.torus(n)), nx.relabel_nodes(grid, places))


@pytest.mark.parametrize("n", [5, 7, 11, 13])
def test_a_torus_of_a_prime_number_is_the_ring(n):
    assert graphs.torus(n) == graphs.ring(n)


@pytest.mark.parametrize("n", [3, 4, 9, 50])
def test_the_ring_has_its_closed_form_eigenvalue(n):
    (matrix,) = matrices(graphs.ring(n))
    second = max(abs(1 / 3 + 2 / 3 * math.cos(2 * math.pi * k / n)) for k in range(1, n))
    assert spectral_gap(matrix) == pytest.approx(1 - second)


def degrees_of(schedule):
    return [degree for _, degree in sorted(as_graph(schedule).degree)]


@pytest.mark.parametrize("n", [3, 4, 5, 8, 11, 16, 21])
@pytest.mark.parametrize("seed", ["a", "b"])
def test_random_regular_graphs_have_their_degree_and_are_connected(n, seed):
    for degree in range(1, n):
        schedule = graphs.random_regular(n, degree, seed)
        short = n * degree % 2
        assert degrees_of(schedule) == [degree] * (n - 1) + [degree - short]
        assert degree == 1 or nx.is_connected(as_graph(schedule))


def test_a_degree_beyond_the_others_gives_the_complete_graph():
    assert graphs.random_regular(5, 9, "s") == graphs.complete(5)


def test_a_random_regular_graph_of_many_is_an_expander():
    # Friedman's theorem: λ₂ of the adjacency matrix is close to 2·√(degree − 1).
    (matrix,) = matrices(graphs.random_regular(400, 6, "network"))
    bound = (1 + 2 * math.sqrt(5)) / 7
    assert spectral_gap(matrix) == pytest.approx(1 - bound, abs=0.03)


def test_all_graphs_of_a_degree_come_up():
    # Of 6 positions there are 70 3-regular graphs: 10 are K₃,₃, 60 are prisms.
    found = {
        frozenset(map(frozenset, as_graph(graphs.random_regular(6, 3, str(s))).edges))
        for s in range(700)
    }
    assert len(found) == 70


def test_the_edges_of_erdos_renyi_come_up_as_often_as_they_should():
    n, probability, draws = 12, 0.4, 300
    counts = {pair: 0 for pair in itertools.combinations(range(n), 2)}
    for seed in range(draws):
        for one, other in as_graph(graphs.erdos_renyi(n, probability, str(seed))).edges:
            counts[min(one, other), max(one, other)] += 1
    spread = math.sqrt(draws * probability * (1 - probability))
    assert np.mean([*counts.values()]) == pytest.approx(draws * probability, rel=0.03)
    assert all(abs(count - draws * probability) < 4.5 * spread for count in counts.values())


def test_the_extreme_probabilities_give_the_complete_graph_and_a_tree():
    assert graphs.erdos_renyi(9, 1.0, "s") == graphs.complete(9)
    assert nx.is_tree(as_graph(graphs.erdos_renyi(9, 0.0, "s")))


def test_components_are_joined_by_single_edges():
    # At np = 0.6 hardly a draw has a cycle, so what is joined sparingly is close to a tree.
    drawn = [as_graph(graphs.erdos_renyi(60, 0.01, str(seed))) for seed in range(40)]
    assert all(nx.is_connected(found) for found in drawn)
    assert sum(found.number_of_edges() - 59 for found in drawn) < 20


@pytest.mark.parametrize("n", [2, 3, 6, 8, 13, 16, 33])
def test_the_exponential_graph_is_the_circulant_of_powers_of_two(n):
    hops = [2**power for power in range(math.ceil(math.log2(n)))]
    column = np.zeros(n)
    column[[0, *hops]] = 1 / (len(hops) + 1)
    (matrix,) = matrices(graphs.exponential(n))
    np.testing.assert_allclose(matrix, circulant(column))


@pytest.mark.parametrize("n", [4, 6, 8, 14, 32, 100])
def test_the_gap_of_the_exponential_graph_is_the_published_one(n):
    (matrix,) = matrices(graphs.exponential(n))
    assert spectral_gap(matrix) == pytest.approx(2 / (math.ceil(math.log2(n)) + 1))
    (odd,) = matrices(graphs.exponential(n + 1))
    assert spectral_gap(odd) > 2 / (math.ceil(math.log2(n + 1)) + 1)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 32, 128])
def test_one_peer_rounds_average_exactly_for_powers_of_two(n):
    schedule = graphs.one_peer_exponential(n)
    assert schedule.period == max(1, n.bit_length() - 1)
    np.testing.assert_allclose(np.linalg.multi_dot([np.eye(n), *matrices(schedule)]), 1 / n)
    assert period_gap(matrices(schedule)) == 1.0


@pytest.mark.parametrize("n", [3, 5, 6, 7, 24])
def test_one_peer_rounds_take_in_one_peer_and_never_quite_agree_otherwise(n):
    schedule = graphs.one_peer_exponential(n)
    assert schedule.period == math.ceil(math.log2(n))
    assert all(list(row.values()) == [0.5] for rows in schedule.rounds for row in rows)
    assert 0 < period_gap(matrices(schedule)) < 1
    assert [row for row in schedule.rounds[1]] == [{(i - 2) % n: 0.5} for i in range(n)]


@pytest.mark.parametrize("n", [2, 3, 10, 11])
def test_a_matching_leaves_nobody_or_one_out(n):
    schedule = graphs.random_matching(n, 20, "s")
    assert schedule.period == 20
    for r in range(20):
        assert nx.is_maximal_matching(as_graph(schedule, r), set(as_graph(schedule, r).edges))
        assert as_graph(schedule, r).number_of_edges() == n // 2
        assert {weight for row in schedule.rounds[r] for weight in row.values()} == {0.5}


def test_all_perfect_matchings_come_up_equally_often():
    # 6 positions have 15; a thousand rounds bring 67 of each, give or take 8.
    rounds = graphs.random_matching(6, 1000, "s").rounds
    shapes = [tuple(next(iter(row)) for row in rows) for rows in rounds]
    found = {shape: shapes.count(shape) for shape in shapes}
    assert len(found) == 15
    assert all(35 < count < 100 for count in found.values())


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: graphs.random_regular(20, 3, seed),
        lambda seed: graphs.erdos_renyi(20, 0.3, seed),
        lambda seed: graphs.random_matching(20, 3, seed),
    ],
)
def test_a_seed_is_a_graph_and_another_seed_another(make):
    assert make("a") == make("a") != make("b")


def test_random_graphs_are_the_same_on_every_machine():
    drawn = [
        graphs.random_regular(30, 4, "network").rounds,
        graphs.random_regular(30, 20, "network").rounds,
        graphs.erdos_renyi(30, 0.2, "network").rounds,
        graphs.random_matching(30, 3, "network").rounds,
    ]
    plain = [[[sorted(row) for row in rows] for rows in rounds] for rounds in drawn]
    assert hashlib.sha256(repr(plain).encode()).hexdigest()[:16] == "97501e84f08d1efd"


def test_an_explicit_graph_keeps_its_edges_weights_and_directions():
    schedule = graphs.static(4, [(0, 1, 0.5, False), (1, 2, 0.25, True), (2, 1, 0.125, True)])
    assert schedule.rounds == (({1: 0.5}, {0: 0.5, 2: 0.125}, {1: 0.25}, {}),)
    assert schedule.links(1) == {0, 2}


def test_an_explicit_graph_may_leave_all_weights_to_the_rule():
    schedule = graphs.static(3, [(0, 1, None, False), (2, 1, None, True)])
    assert schedule.rounds == (({1: None}, {0: None, 2: None}, {}),)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_an_explicit_graph_may_be_empty(n):
    assert graphs.static(n, []).rounds == (({},) * n,)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 3, None, False)], r"edge 0-3 leaves the graph; positions are 0 to 2"),
        ([(-1, 0, None, False)], r"edge -1-0 leaves the graph"),
        ([(1, 1, 0.5, False)], r"edge 1-1 is a loop; the weight that edges leave is one's own"),
        ([(0, 1, 0.0, False)], r"edge 0-1 has weight 0.0; a weight is in \(0, 1\]"),
        ([(0, 1, 1.5, True)], r"edge 0-1 has weight 1.5; a weight is in \(0, 1\]"),
        ([(0, 1, math.nan, True)], r"edge 0-1 has weight nan; a weight is in \(0, 1\]"),
        ([(0, 1, 0.1, False), (1, 0, 0.1, False)], r"edge 1-0 comes twice; give it once"),
        ([(0, 1, 0.1, False), (0, 1, 0.1, True)], r"edge 0-1 comes twice"),
        ([(0, 1, 0.1, False), (1, 2, None, False)], r"give one to all or to none"),
        ([(0, 1, 0.7, False), (1, 2, 0.7, False)], r"weights at position 1 add up to 1.4; at most"),
    ],
)
def test_a_wrong_explicit_graph_is_refused_with_what_is_right(edges, message):
    with pytest.raises(ValueError, match=message):
        graphs.static(3, edges)


def test_decimal_weights_may_add_up_to_one_with_rounding():
    third = 0.1 + 0.2  # 0.30000000000000004
    assert graphs.static(4, [(1, 0, third, True), (2, 0, third, True), (3, 0, 0.4, True)]).explicit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: graphs.random_regular(5, 0, "s"), "at least 1, not 0"),
        (lambda: graphs.erdos_renyi(5, 1.1, "s"), "between 0 and 1, not 1.1"),
        (lambda: graphs.random_matching(5, 0, "s"), "at least 1, not 0"),
    ],
)
def test_a_number_that_makes_no_graph_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
