import math

import pytest

from overlay.records import Vote
from overlay.suspicion import MAX_QUORUM, Suspicion, quorum, timeout_s

LIMITS = {"shortest_s": 1.0, "longest_s": 5.0}
SECOND_OF_THREE = 5 - 4 * math.log(2) / math.log(3)


def vote(observer, *, hard):
    """The word of an observer, called by a letter."""
    return Vote(observer * 52, 1, hard, b"")


@pytest.fixture
def case_of():
    """case_of(**votes): a case since 100 s with six observers, of which these testified."""

    def case_of(*, standing=6, **votes):
        case = Suspicion(incarnation=1, since=100.0, standing=standing)
        for observer, hard in votes.items():
            case.add(vote(observer, hard=hard))
        return case

    return case_of


@pytest.mark.parametrize(
    ("observers", "votes"),
    [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 3), (8, 3), (100, 3)],
)
def test_the_quorum_is_a_majority_of_at_most_three(observers, votes):
    assert quorum(observers) == votes
    assert quorum(observers) <= MAX_QUORUM


@pytest.mark.parametrize(
    ("confirmations", "wanted", "seconds"),
    [
        (0, 2, 5.0),
        (1, 2, SECOND_OF_THREE),
        (2, 2, 1.0),
        (7, 2, 1.0),  # more than wanted does not go below the shortest
        (0, 1, 5.0),
        (1, 1, 1.0),
        (0, 0, 1.0),  # nobody else to ask
        (0, -1, 1.0),
    ],
)
def test_the_suspicion_timeout_is_lifeguards(confirmations, wanted, seconds):
    assert timeout_s(confirmations, wanted=wanted, **LIMITS) == pytest.approx(seconds)


def test_a_vote_counts_once_and_a_hard_one_upgrades_a_soft_one(case_of):
    case = case_of()
    assert case.add(vote("a", hard=False))
    assert not case.add(vote("a", hard=False))
    assert case.add(vote("a", hard=True))
    assert not case.add(vote("a", hard=True))
    assert not case.add(vote("a", hard=False))
    assert case.votes == {"a" * 52: vote("a", hard=True)}


@pytest.mark.parametrize(
    ("votes", "standing", "proven"),
    [
        ({"a": True, "b": True}, 6, False),
        ({"a": True, "b": True, "c": True}, 6, True),
        ({"a": True, "b": True, "c": False}, 6, False),  # soft votes prove nothing
        ({"a": False, "b": False, "c": False, "d": False}, 6, False),
        ({"a": True}, 2, False),
        ({"a": True, "b": True}, 2, True),
        ({"a": True}, 1, True),  # nobody else is left to ask
        ({"a": False}, 1, False),
        ({}, 0, False),
    ],
)
def test_a_quorum_of_hard_votes_is_proof(case_of, votes, standing, proven):
    assert case_of(standing=standing, **votes).is_proven is proven


@pytest.mark.parametrize("observers", [2, 3, 6, 20])
def test_one_liar_cannot_reach_a_verdict_however_often_it_speaks(case_of, observers):
    case = case_of(standing=observers)
    for _ in range(100):
        case.add(vote("l", hard=True))
    assert not case.is_proven
    assert case.shared_at(hard_wait_s=0.3) == math.inf
    assert case.deadline(**LIMITS) == 105.0  # and its word shortens nothing


@pytest.mark.parametrize(
    ("votes", "standing", "after"),
    [
        ({}, 6, math.inf),
        ({"a": False}, 6, math.inf),
        ({"a": False, "b": False}, 6, 0.0),
        ({"a": True, "b": False}, 6, 0.0),
        ({"a": True, "b": True}, 6, 0.3),  # more hard evidence may be on its way
        ({"a": False}, 1, 0.0),
        ({"a": True}, 1, 0.3),
        ({"a": False}, 2, math.inf),
    ],
)
def test_a_doubt_is_shared_from_the_second_observer_or_the_only_one(
    case_of, votes, standing, after
):
    case = case_of(standing=standing, **votes)
    assert case.shared_at(hard_wait_s=0.3) == 100.0 + after


def test_agreement_shortens_the_wait(case_of):
    case = case_of()
    waits = []
    for observer in "abcd":
        case.add(vote(observer, hard=False))
        waits.append(case.deadline(**LIMITS) - 100.0)
    assert waits == pytest.approx([5.0, SECOND_OF_THREE, 1.0, 1.0])


def test_the_time_to_refute_begins_when_the_member_is_called_suspect(case_of):
    case = case_of(a=False, b=False, c=False)
    assert not case.told
    case.tell(107.0)
    assert case.told
    assert case.deadline(**LIMITS) == 108.0


def test_a_suspicion_that_was_only_heard_of_waits_longest(case_of):
    assert case_of().deadline(**LIMITS) == 105.0
