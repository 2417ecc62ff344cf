import itertools

from overlay.doubts import KEPT, MOST, PERIOD_S, Doubts

NOW = 100.0
lives = itertools.count()


def brought(doubts, now=NOW, source="a", subject="x", tries=50):
    """How many questions after a member, each after another life, a neighbour gets rid of."""
    return sum(doubts.may_bring(source, subject, next(lives), now) for _ in range(tries))


def test_a_neighbour_may_ask_after_each_member_a_few_times_in_a_period():
    doubts = Doubts()
    assert brought(doubts) == MOST
    assert brought(doubts, NOW + PERIOD_S - 0.1) == 0
    assert brought(doubts, subject="y") == MOST
    assert brought(doubts, source="b") == MOST
    assert brought(doubts, NOW + PERIOD_S) == MOST


def test_a_question_is_passed_on_once_whoever_brings_it():
    doubts = Doubts()
    assert doubts.may_bring("a", "x", 7, NOW)
    for source, life in (("a", 7), ("b", 7), ("b", 6)):
        assert not doubts.may_bring(source, "x", life, NOW)
    assert doubts.may_bring("b", "x", 8, NOW)
    assert brought(doubts, source="b", subject="z") == MOST  # what was asked before costs nothing
    assert doubts.may_bring("a", "x", 7, NOW + PERIOD_S)


def test_a_cut_that_ends_is_within_the_limits_at_any_size():
    doubts = Doubts()
    assert all(doubts.may_bring("a", f"member {number}", 1, NOW) for number in range(10_000))


def test_what_is_kept_is_bounded():
    doubts = Doubts()
    for number in range(3 * KEPT):
        brought(doubts, source=f"neighbour {number}", tries=1)
    assert len(doubts._brought) == KEPT
