from overlay.doubts import KEPT, MOST, PERIOD_S, Doubts

NOW = 100.0


def brought(doubts, now=NOW, source="a", subject="x", tries=50):
    """How many doubts of a member a neighbour gets rid of at once."""
    return sum(doubts.may_bring(source, subject, now) for _ in range(tries))


def test_a_neighbour_may_doubt_each_member_a_few_times_in_a_period():
    doubts = Doubts()
    assert brought(doubts) == MOST
    assert brought(doubts, NOW + PERIOD_S - 0.1) == 0
    assert brought(doubts, subject="y") == MOST
    assert brought(doubts, source="b") == MOST
    assert brought(doubts, NOW + PERIOD_S) == MOST


def test_a_cut_that_ends_is_within_the_limits_at_any_size():
    doubts = Doubts()
    assert all(doubts.may_bring("a", f"member {number}", NOW) for number in range(10_000))


def test_what_is_kept_is_bounded():
    doubts = Doubts()
    for number in range(3 * KEPT):
        brought(doubts, source=f"neighbour {number}", tries=1)
    assert len(doubts._brought) == KEPT
