import math

import pytest
import torch

from learner.errors import LearnerError
from learner.robust import distances


@pytest.fixture
def _small_chunks(monkeypatch):
    monkeypatch.setattr(distances, "CHUNK_COLUMNS", 4)


def rows(n=6, d=11):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(2)) * 3 + 1


@pytest.mark.usefixtures("_small_chunks")
def test_the_gram_matrix_knows_distances_to_rows_and_to_their_combinations():
    x, point = rows(), torch.full((11,), 0.5)
    found = distances.gram(x, point=point)
    every = torch.cat([x, point[None]]).double()
    torch.testing.assert_close(found.squares, torch.cdist(every, every).square())
    assert torch.equal(found.squares.diagonal(), torch.zeros(7, dtype=torch.float64))
    weights = torch.tensor([0.5, -0.25, 0.25, 0, 0.25, 0.125, 0.125], dtype=torch.float64)
    torch.testing.assert_close(
        distances.squares_from(found.products, weights),
        (every - weights @ every).square().sum(1),
    )


@pytest.mark.usefixtures("_small_chunks")
def test_distances_to_one_row_norms_and_projections():
    x, direction = rows(), torch.arange(11.0)
    away = (x.double() - x[2]).norm(dim=1)
    torch.testing.assert_close(distances.norms(x, x[2]), away, rtol=1e-6, atol=0)
    torch.testing.assert_close(distances.norms(x), x.double().norm(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        distances.projections(x, direction, 1), (x.double() - x[1]) @ direction.double()
    )


@pytest.mark.parametrize("size", [3e38, 1e-30])
def test_norms_of_huge_and_tiny_rows(size):
    assert distances.norms(torch.full((2, 4), size)).tolist() == pytest.approx([2 * size] * 2)


def test_equal_rows_are_at_distance_zero_beside_a_huge_one():
    x = rows()[:1].repeat(5, 1)
    x[0] = 1e30
    assert float(distances.gram(x).squares[1:, 1:].max()) == 0


def test_all_finite_rows_are_admitted_without_a_copy_even_where_their_sum_overflows():
    x = rows()
    admitted = distances.admit(x, 2)
    assert admitted.vectors.data_ptr() == x.data_ptr()
    assert (admitted.f, admitted.places) == (2, tuple(range(6)))
    assert distances.admit(torch.full((3, 4), 3e38), 1).f == 1


def test_rows_that_are_not_finite_are_left_out():
    x = rows()
    x[1, 2], x[4, 0] = math.nan, math.inf
    admitted = distances.admit(x, 1)
    assert admitted.places == (0, 2, 3, 5)
    assert admitted.f == 0
    assert torch.equal(admitted.vectors, x[[0, 2, 3, 5]])


def test_a_minority_is_less_than_half():
    distances.check_minority("Krum", 2, rows(5))
    with pytest.raises(LearnerError, match="at least 5 vectors, or f ≤ 1"):
        distances.check_minority("Krum", 2, rows(4))
