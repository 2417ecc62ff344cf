import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.data import Dataset
from learner.errors import LearnerError
from learner.job import Partition
from learner.partition import MINIMUM_SAMPLES, split, take

label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=200).map(torch.tensor)
kinds = st.sampled_from(["iid", "dirichlet"])


@settings(max_examples=60)
@given(label_lists, kinds, st.integers(1, 30), st.sampled_from([0.001, 0.1, 1, 1e6]), st.data())
def test_no_sample_is_lost_and_none_is_doubled(labels, kind, parts, alpha, data):
    parts = min(parts, len(labels))
    seed = data.draw(st.integers(0, 2**31 - 1))
    shares = split(labels, Partition(kind, parts, alpha), seed)
    assert len(shares) == parts
    assert torch.cat(shares).sort().values.tolist() == list(range(len(labels)))
    assert min(map(len, shares)) >= min(MINIMUM_SAMPLES, len(labels) // parts)
    again = split(labels, Partition(kind, parts, alpha), seed)
    assert all(torch.equal(a, b) for a, b in zip(shares, again, strict=True))


@given(label_lists, st.integers(1, 30))
def test_iid_sizes_differ_by_at_most_one(labels, parts):
    parts = min(parts, len(labels))
    sizes = [len(part) for part in split(labels, Partition("iid", parts), 1)]
    assert max(sizes) - min(sizes) <= 1


def skew(alpha):
    """The mean share of a part's largest class, for ten even classes in ten parts."""
    labels = torch.arange(5000) % 10
    parts = split(labels, Partition("dirichlet", 10, alpha), 3)
    return sum(float(torch.bincount(labels[p]).max()) / len(p) for p in parts) / len(parts)


def test_a_smaller_alpha_is_more_skewed():
    assert skew(0.05) > skew(0.5) + 0.1 > skew(1000) + 0.2
    assert skew(1e6) < 0.12


def test_different_seeds_give_different_parts():
    labels = torch.arange(100) % 4
    for kind in ("iid", "dirichlet"):
        first, second = (split(labels, Partition(kind, 4), seed)[0] for seed in (1, 2))
        assert first.tolist() != second.tolist()


def test_none_is_one_part_with_everything():
    assert split(torch.zeros(5).long(), Partition("none", 9), 1)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_more_parts_than_samples_says_what_is_possible(kind):
    with pytest.raises(LearnerError, match="at most 5") as caught:
        split(torch.zeros(5).long(), Partition(kind, 6), 1)
    assert caught.value.kind == "data"


@pytest.fixture
def dataset():
    x, y = torch.arange(20.0)[:, None], torch.arange(20) % 2
    return Dataset(x, y, x, y, 2)


def test_a_part_keeps_all_test_samples(dataset):
    mine = take(dataset, Partition("iid", 4), 3, 1)
    assert (len(mine.y_train), len(mine.y_test)) == (5, 20)
    assert torch.equal(mine.x_train[:, 0].long() % 2, mine.y_train)


def test_any_part_has_everything_where_nothing_is_shared_out(dataset):
    assert take(dataset, Partition("none", 2), 7, 1) is dataset


@pytest.mark.parametrize(("kind", "part"), [("iid", 4), ("iid", -1), ("none", -1)])
def test_a_part_that_does_not_exist_says_which_do(dataset, kind, part):
    with pytest.raises(LearnerError, match="from 0 to 3"):
        take(dataset, Partition(kind, 4), part, 1)
