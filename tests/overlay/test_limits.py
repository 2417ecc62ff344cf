import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.limits import (
    CONTROL_BYTES,
    DEFAULT_ALLOWANCES,
    STRAY,
    Allowance,
    Limits,
    PeerRates,
    RateTable,
    TokenBucket,
)
from overlay.news import ITEMS_PER_PAGE
from overlay.profile import PROFILES
from overlay.wire import MAX_CONTROL_BYTES

COUNTED = [kind for kind in DEFAULT_ALLOWANCES if kind != CONTROL_BYTES]


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        ([(0, 5)], [True]),
        ([(0, 6)], [False]),
        ([(0, 5), (0, 1)], [True, False]),
        ([(0, 5), (0.4, 1), (0.5, 1)], [True, False, True]),
        ([(0, 5), (9, 5), (9, 1)], [True, True, False]),
        ([(0, 6), (0, 5)], [False, True]),
        ([(5, 5), (0, 1), (5, 1), (5.5, 1)], [True, False, False, True]),
    ],
)
def test_a_bucket_gives_its_burst_and_then_its_rate(takes, expected):
    bucket = TokenBucket(Allowance(rate=2, burst=5))
    assert [bucket.take(amount, now) for now, amount in takes] == expected


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 1000),
    waits=st.lists(st.floats(0, 3), max_size=200),
    amounts=st.lists(st.integers(1, 20), min_size=200, max_size=200),
)
def test_no_bucket_gives_more_than_its_burst_and_its_rate(rate, burst, waits, amounts):
    bucket, now, given_out = TokenBucket(Allowance(rate, burst)), 100.0, 0
    for wait, amount in zip(waits, amounts, strict=False):
        now += wait
        given_out += amount if bucket.take(amount, now) else 0
        assert given_out <= burst + rate * (now - 100.0) + 1e-6


@given(rate=st.integers(1, 1000), steps=st.integers(1, 500))
def test_who_keeps_to_the_rate_is_never_refused(rate, steps):
    bucket = TokenBucket(Allowance(rate, 2))
    assert all(bucket.take(1, step / rate) for step in range(steps))


@pytest.mark.parametrize("kind", COUNTED)
def test_ten_thousand_messages_a_second_are_over_the_limit_within_half_a_second(kind):
    rates = PeerRates()
    said = next(n for n in range(10_000) if rates.excess(kind, 100, n / 10_000))
    assert said <= 5000


def test_the_largest_messages_in_a_flood_are_over_the_limit_sooner():
    rates = PeerRates()
    reasons = (rates.excess("Note", MAX_CONTROL_BYTES, n / 10_000) for n in range(10_000))
    assert next(filter(None, reasons)) == "more than 8388608 bytes a second"


def test_the_reason_names_the_limit():
    rates = PeerRates({"News": Allowance(rate=200, burst=1)})
    assert rates.excess("News", 10, 0.0) == ""
    assert rates.excess("News", 10, 0.0) == "more than 200 News a second"
    assert rates.excess("Hello", 10, 0.0) == ""


def test_one_kind_does_not_use_up_another():
    rates = PeerRates()
    while not rates.excess("Heartbeat", 20, 0.0):
        pass
    assert not rates.excess("News", 20, 0.0)


def test_messages_on_the_data_link_are_not_counted_as_control_bytes():
    rates = PeerRates({"Want": Allowance(1, 1), CONTROL_BYTES: Allowance(1, 1)})
    assert not rates.excess_of("Want", 1, 0.0)
    assert rates.excess_of("Want", 1, 0.0)


# What honest peers say.


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_most_that_a_peer_says_by_itself_stays_below_half_of_the_rate(profile):
    beats = 1 / profile.heartbeat_s + 1 / profile.flush_s
    assert beats <= DEFAULT_ALLOWANCES["Heartbeat"].rate / 2
    assert 1 / profile.trip_s <= DEFAULT_ALLOWANCES["SyncRequest"].rate / 2
    assert 4 / profile.flush_s <= DEFAULT_ALLOWANCES["News"].rate / 2
    assert profile.silence_longest_s * beats <= DEFAULT_ALLOWANCES["Heartbeat"].burst


def test_half_of_ten_thousand_peers_may_die_at_once():
    items = 5000 * 12
    pages = items // ITEMS_PER_PAGE + 2 * 5000 // ITEMS_PER_PAGE
    rates = PeerRates()
    assert not any(rates.excess("News", 25_000, 0.0) for _ in range(pages + 2))


def test_a_table_of_ten_thousand_may_come_several_times_at_once():
    rates = PeerRates()
    assert not any(rates.excess("SyncPage", 16_000, 0.0) for _ in range(20 * 80))


def test_the_quickest_rounds_may_go_on_for_ever_and_after_a_stall():
    rates = PeerRates()
    for number in range(20 * 400):
        now = number / 400
        for kind in ("Note", "Want", STRAY):
            assert not rates.excess_of(kind, 1, now)
    assert not any(rates.excess("Note", 1000, 30.0) for _ in range(int(8.5 * 400)))


# By peer.


def test_a_new_link_brings_no_new_allowance():
    table = RateTable(Limits({"Note": Allowance(1, 1)}))
    assert not table.of("a").excess("Note", 1, 0.0)
    assert table.of("a").excess("Note", 1, 0.0)
    assert not table.of("b").excess("Note", 1, 0.0)


def test_the_counts_that_were_not_used_for_longest_are_dropped():
    table = RateTable(Limits(peers=2))
    first, second = table.of("a"), table.of("b")
    assert table.of("a") is first
    table.of("c")
    assert len(table) == 2
    assert table.of("a") is first
    assert table.of("b") is not second
