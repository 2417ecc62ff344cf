import pytest

from daemon.parts import PartImpossible, configured_part, free_part, must_yield
from learner.job import Partition

A, B, C = ("a" * 52, "b" * 52, "c" * 52)


@pytest.mark.parametrize(
    ("own", "partition", "part"),
    [
        ((None, None), Partition("iid", 3), None),
        ((2, None), Partition("iid", 3), 2),
        ((2, 3), Partition("dirichlet", 3), 2),
        ((2, 3), Partition("none", 3), None),
    ],
)
def test_the_configuration_names_the_part(own, partition, part):
    assert configured_part(own, partition) == part


@pytest.mark.parametrize(
    ("own", "advice"), [((1, 5), r"one of 5 parts.*has 3; write 2/3"), ((3, None), "only 3 parts")]
)
def test_a_part_that_the_job_does_not_have_is_refused_with_advice(own, advice):
    with pytest.raises(PartImpossible, match=advice):
        configured_part(own, Partition("iid", 3))


def test_the_lowest_free_part_is_taken(record):
    others = [record(A, part=0), record(C, part=2)]
    assert free_part(4, B, others, -1) == 1
    assert free_part(4, B, [], -1) == 0


def test_the_remembered_part_is_kept_if_nobody_has_it(record):
    assert free_part(4, B, [record(A, part=0)], 3) == 3
    assert free_part(4, B, [record(A, part=3)], 3) == 0
    assert free_part(4, B, [], 9) == 0


def test_ones_own_claim_is_no_obstacle(record):
    others = [record(B, part=0), record(A)]
    assert free_part(2, B, others, -1) == 0
    assert free_part(2, B, others, 1) == 1


def test_when_every_part_is_taken_there_is_none(record):
    assert free_part(2, B, [record(A, part=0), record(C, part=1)], -1) is None


def test_of_two_equal_claims_the_lower_id_keeps_it(record):
    assert must_yield(1, B, [record(A, part=1)])
    assert not must_yield(1, B, [record(C, part=1)])
    assert not must_yield(1, B, [record(B, part=1), record(A, part=0)])
