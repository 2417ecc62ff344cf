import math

import pytest

from overlay.health import LAG_SHARE, WORST, LocalHealth


@pytest.fixture
def health():
    return LocalHealth(heartbeat_s=1.0, memory_s=3.5)


def beats(health, count):
    scores = []
    for _ in range(count):
        health.beat()
        scores.append(health.score)
    return scores


@pytest.mark.parametrize(
    ("heartbeat", "late", "lag"), [(1.0, 0.49, False), (1.0, 0.5, True), (2.0, 0.99, False)]
)
def test_half_a_heartbeat_late_is_a_stall(heartbeat, late, lag):
    assert LAG_SHARE == 0.5
    assert LocalHealth(heartbeat, 3.5).is_lag(late) is lag


@pytest.mark.parametrize(
    ("heartbeat", "late", "score"),
    [(1.0, 0.5, 1), (1.0, 0.99, 1), (1.0, 1.0, 2), (1.0, 3.7, 4), (0.5, 1.6, 4), (1.0, 900.0, 8)],
)
def test_a_stall_costs_a_point_for_each_heartbeat_it_took(heartbeat, late, score):
    health = LocalHealth(heartbeat, 3.5)
    health.lagged(late)
    assert health.score == score


def test_patience_is_one_for_the_healthy_and_nine_at_the_worst(health):
    assert (health.score, health.patience) == (0, 1)
    for _ in range(20):
        health.lagged(5.0)
    assert (health.score, health.patience) == (WORST, WORST + 1)


def test_others_doubts_cost_a_point_each(health):
    health.doubted()
    health.doubted()
    assert health.score == 2


def test_a_calm_heartbeat_heals_a_point_and_one_with_trouble_none(health):
    health.lagged(2.0)
    assert beats(health, 5) == [3, 2, 1, 0, 0]
    health.doubted()
    health.beat()
    health.doubted()
    assert beats(health, 3) == [2, 1, 0]


@pytest.mark.parametrize(
    ("links", "mine"),
    [
        # links before the first silence, and whose trouble each of the silences is
        (1, [False]),  # a single neighbour may well be dead
        (2, [False, True]),
        (3, [False, True, False]),  # waited out once, then they are believed to be gone
        (4, [False, False, True]),
        (6, [False, False, False]),
        (6, [False, False, False, True, False, False]),
        (7, [False, False, False, True]),
    ],
)
def test_most_neighbours_silent_at_once_is_our_own_trouble(health, links, mine):
    found = []
    for _ in mine:
        found.append(health.is_it_me(links, 10.0))
        links -= not found[-1]  # the link of one that is held to be silent is closed
    assert found == mine
    assert health.hold_until == (10.0 + 3.5 if any(mine) else -math.inf)
    assert health.score == 0


def test_silences_long_apart_are_not_one_event(health):
    assert not health.is_it_me(4, 10.0)
    assert not health.is_it_me(3, 13.6)
    assert not health.is_it_me(2, 17.2)


def test_silences_within_the_memory_are_one_event(health):
    assert not health.is_it_me(3, 10.0)
    assert health.is_it_me(2, 13.4)


def test_the_next_event_may_be_waited_out_anew(health):
    assert [health.is_it_me(links, 10.0) for links in (2, 1, 1)] == [False, True, False]
    assert [health.is_it_me(links, 50.0) for links in (2, 1)] == [False, True]
    assert health.hold_until == 53.5


def test_a_trouble_of_our_own_is_no_calm_heartbeat(health):
    health.lagged(1.0)
    health.beat()
    for links in (2, 1):
        health.is_it_me(links, 10.0)
    assert beats(health, 3) == [2, 1, 0]
