import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.base_k import base_k


def matrices(schedule):
    """W of every round, straight from the definition of a row."""
    for rows in schedule.rounds:
        matrix = np.zeros((schedule.count, schedule.count))
        for position, row in enumerate(rows):
            for other, weight in row.items():
                matrix[position, other] = weight
            matrix[position, position] = 1 - sum(row.values())
        yield matrix


def check(n, k):
    """Everything that the paper's theorem 1 and definitions promise."""
    schedule = base_k(n, k)
    product = np.eye(n)
    for matrix in matrices(schedule):
        assert (matrix == matrix.T).all()
        assert matrix.min() >= -1e-15
        np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-14)
        product = matrix @ product
    np.testing.assert_allclose(product, 1 / n, rtol=0, atol=1e-12)
    assert max(len(row) for rows in schedule.rounds for row in rows) <= k
    base = min(k + 1, n)
    assert schedule.period <= (2 * math.log(n, base) + 2 + 1e-9 if n > 1 else 1)


@pytest.mark.parametrize("k", range(1, 7))
def test_a_period_averages_exactly_in_few_rounds_of_few_partners(k):
    for n in range(1, 65):
        check(n, k)


@pytest.mark.parametrize(("n", "k"), [(997, 1), (1000, 1), (1023, 3), (777, 5), (500, 300)])
def test_a_period_averages_exactly_among_many(n, k):
    check(n, k)


@given(n=st.integers(65, 150), k=st.integers(1, 60))
def test_a_period_averages_exactly_for_any_number_and_degree(n, k):
    check(n, k)


@pytest.mark.parametrize(
    ("n", "k", "rounds"),
    [
        (8, 1, 3),  # 2 · 2 · 2, the hypercube
        (9, 2, 2),  # 3 · 3
        (12, 3, 2),  # 4 · 3
        (12, 5, 2),  # 6 · 2, not 2 · 2 · 3
        (5, 1, 5),  # blocks 4 and 1: two rounds, giving, two rounds
        (6, 1, 4),  # two of 3 by blocks 2 and 1 (three rounds), then pairs
        (7, 1, 5),  # blocks 4, 2 and 1: the smaller give while the largest settles
        (6, 5, 1),  # the complete graph
        (6, 99, 1),
    ],
)
def test_the_length_of_known_graphs(n, k, rounds):
    assert base_k(n, k).period == rounds


def test_the_hypercube_pairs_the_members_that_differ_in_one_digit():
    expected = tuple(tuple({i ^ bit: 0.5} for i in range(8)) for bit in (1, 2, 4))
    assert base_k(8, 1).rounds == expected


def test_three_average_as_a_block_of_two_and_a_block_of_one():
    # The pair averages, one of it gives the third two thirds, the pair averages again.
    pair, giving = ({1: 0.5}, {0: 0.5}, {}), ({2: 2 / 3}, {}, {0: 2 / 3})
    assert base_k(3, 1).rounds == (pair, giving, pair)


@pytest.mark.parametrize(("n", "rounds"), [(0, ((),)), (1, (({},),))])
def test_nobody_and_a_loner_have_one_empty_round(n, rounds):
    assert base_k(n, 3).rounds == rounds


def test_a_degree_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        base_k(5, 0)
