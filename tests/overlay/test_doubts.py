import pytest

from overlay.doubts import BURST, RATE, SMALLEST, Doubts

NOW = 100.0


def brought(doubts, members, now=NOW, source="a"):
    """How many doubts a neighbour gets rid of at once."""
    count = 0
    while doubts.may_bring(source, members, now):
        count += 1
    return count


@pytest.mark.parametrize(
    ("members", "at_once"), [(1, 64), (SMALLEST, 64), (100, 200), (1000, 2000), (10_000, 20_000)]
)
def test_a_neighbour_may_doubt_everybody_twice_at_once(members, at_once):
    assert brought(Doubts(), members) == pytest.approx(at_once, abs=1)


def test_and_everybody_once_in_ten_minutes_from_then_on():
    doubts = Doubts()
    brought(doubts, 1000)
    assert brought(doubts, 1000, NOW + 1.0) == pytest.approx(1000 * RATE, abs=1)
    assert brought(doubts, 1000, NOW + 1.0 + 1 / RATE) == pytest.approx(1000, abs=2)
    assert brought(doubts, 1000, NOW + 1e6) == pytest.approx(1000 * BURST, abs=1)


def test_one_neighbour_uses_nothing_of_anothers_allowance():
    doubts = Doubts()
    brought(doubts, 1000, source="a")
    assert brought(doubts, 1000, source="b") == pytest.approx(2000, abs=1)
