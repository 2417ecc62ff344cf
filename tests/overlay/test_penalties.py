import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.penalties import Penalties, PenaltySettings

DEFAULTS = PenaltySettings()


@pytest.fixture
def penalties():
    return Penalties(DEFAULTS)


def test_a_penalty_passes(penalties):
    assert penalties.remaining_s("a", 10.0) == 0
    assert penalties.punish("a", 10.0) == 1
    assert penalties.remaining_s("a", 10.0) == 1
    assert penalties.remaining_s("a", 10.75) == 0.25
    assert penalties.remaining_s("a", 11.0) == 0
    assert penalties.remaining_s("b", 10.0) == 0


def test_each_breach_costs_twice_as_long_up_to_five_minutes(penalties):
    now, lengths = 0.0, []
    for _ in range(11):
        lengths.append(penalties.punish("a", now))
        now += lengths[-1]
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_breaches_during_a_penalty_cost_nothing_more(penalties):
    penalties.punish("a", 0.0)
    assert penalties.punish("a", 0.25) == 0.75
    assert penalties.punish("a", 1.0) == 2


@pytest.mark.parametrize(("quiet_s", "expected"), [(599.0, 2), (600.0, 1), (10_000.0, 1)])
def test_a_penalty_is_forgotten_after_ten_quiet_minutes(penalties, quiet_s, expected):
    penalties.punish("a", 0.0)
    assert penalties.punish("a", 1.0 + quiet_s) == expected


def test_a_full_table_lets_go_of_what_is_forgotten_and_then_of_what_ends_first():
    penalties = Penalties(PenaltySettings(entries=3))
    for _ in range(3):
        penalties.punish("long", 0.0 + penalties.remaining_s("long", 0.0))
    penalties.punish("b", 0.5)
    penalties.punish("c", 0.6)
    penalties.punish("d", 0.7)
    assert len(penalties) == 3
    assert penalties.remaining_s("b", 0.7) == 0
    assert penalties.remaining_s("c", 0.7) > 0
    assert penalties.punish("e", 1000.0) == 1
    assert len(penalties) == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 700)), max_size=100))
def test_a_table_stays_bounded_and_every_penalty_within_its_bounds(breaches):
    penalties, now = Penalties(PenaltySettings(entries=8)), 0.0
    for key, wait in breaches:
        now += wait
        length = penalties.punish(str(key), now)
        assert 0 < length <= DEFAULTS.longest_s
        assert penalties.remaining_s(str(key), now) == pytest.approx(length)
        assert len(penalties) <= 8
