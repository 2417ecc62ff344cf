import math

import pytest
import torch

from learner import mixing


@pytest.fixture
def _small_chunks(monkeypatch):
    monkeypatch.setattr(mixing, "CHUNK_VALUES", 4)


@pytest.mark.usefixtures("_small_chunks")
def test_the_weighted_mean_is_a_row_of_w_times_x_in_a_new_tensor():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(4, 11, generator=generator)
    before = rows.clone()
    mixed = mixing.weighted_mean(rows[0], rows[1:], 0.4, [0.3, 0.2, 0.1])
    expected = torch.tensor([0.4, 0.3, 0.2, 0.1]) @ rows
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(rows, before)
    assert mixed.data_ptr() != rows.data_ptr()


def test_an_empty_inbox_leaves_the_own_vector():
    own = torch.randn(5)
    assert torch.equal(mixing.weighted_mean(own, torch.empty(0, 5), 1.0, []), own)


@pytest.mark.usefixtures("_small_chunks")
def test_the_consensus_distance_is_the_documented_one():
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    mean = rows.mean(0)
    expected = math.sqrt(float((rows - mean).square().sum(1).mean())) / float(mean.norm())
    assert mixing.consensus_distance(rows[0], rows[1:]) == pytest.approx(expected)


def test_the_consensus_distance_of_equals_is_zero_even_when_they_are_large():
    own = torch.full((6,), 1e20)
    assert mixing.consensus_distance(own, own.expand(3, 6)) == 0


def test_the_consensus_distance_without_meaning_is_none():
    own = torch.ones(3)
    assert mixing.consensus_distance(own, torch.empty(0, 3)) is None
    assert mixing.consensus_distance(own, -own[None]) is None


def test_finite_rows_finds_nan_and_infinity():
    rows = torch.tensor([[1, 3e38], [math.nan, 0], [0, math.inf], [3e38, 3e38]])
    assert mixing.finite_rows(rows) == [True, False, False, True]
