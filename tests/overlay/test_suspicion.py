import math

import pytest

from overlay.suspicion import MAX_QUORUM, Suspicion, quorum, timeout_s

LIMITS = {"shortest_s": 1.0, "longest_s": 5.0}


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
        (1, 2, 5 - 4 * math.log(2) / math.log(3)),
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


def test_a_vote_counts_once_and_a_hard_one_upgrades_a_soft_one():
    case = Suspicion(incarnation=1, since=0.0)
    assert case.add("a", hard=False)
    assert not case.add("a", hard=False)
    assert case.add("a", hard=True)
    assert not case.add("a", hard=True)
    assert not case.add("a", hard=False)
    assert case.votes == {"a": True}


def test_only_hard_votes_of_designated_observers_count():
    case = Suspicion(incarnation=1, since=0.0)
    case.add("a", hard=True)
    case.add("b", hard=False)
    case.add("stranger", hard=True)
    assert case.hard_votes(frozenset("ab")) == 1


@pytest.mark.parametrize("observers", [2, 3, 6, 20])
def test_one_liar_cannot_reach_a_verdict_however_often_it_speaks(observers):
    names = frozenset(str(n) for n in range(observers))
    case = Suspicion(incarnation=1, since=0.0)
    for _ in range(100):
        case.add("0", hard=True)
    assert case.hard_votes(names) < quorum(observers)
    assert case.deadline(observers, **LIMITS) == 5.0  # and its word shortens nothing


def test_agreement_shortens_the_wait_from_when_the_suspicion_began():
    case = Suspicion(incarnation=1, since=100.0)
    waits = []
    for observer in "abc":
        case.add(observer, hard=False)
        waits.append(case.deadline(6, **LIMITS) - 100.0)
    assert waits == pytest.approx([5.0, 5 - 4 * math.log(2) / math.log(3), 1.0])


def test_a_suspicion_that_was_only_heard_of_waits_longest():
    assert Suspicion(incarnation=1, since=7.0).deadline(6, **LIMITS) == 12.0
