import statistics
from random import Random

import pytest

from overlay.simulator.lines import (
    NAMED,
    RTO_MAX_S,
    Lines,
    next_retransmission_s,
    parse_latency,
    wire_bytes,
)


class Scripted(Random):
    """A generator that draws what it was told to."""

    def __new__(cls, *draws):
        return super().__new__(cls)

    def __init__(self, *draws):
        super().__init__(0)
        self._draws = list(draws)

    def random(self):
        return self._draws.pop(0)


@pytest.mark.parametrize(
    ("draws", "loss", "delay"),
    [
        ([], 0.0, 0.01),
        ([0.5], 0.1, 0.01),
        ([0.05, 0.5], 0.1, 0.01 + 0.2),  # the shortest timeout
        ([0.05, 0.05, 0.05, 0.5], 0.1, 0.01 + 0.2 + 0.4 + 0.8),
        ([0.1], 0.1, 0.01),  # the probability is that of below
    ],
)
def test_each_loss_costs_a_timeout_that_doubles(draws, loss, delay):
    lines = Lines(parse_latency("constant:0.01"), loss)
    assert lines.delay_s(Scripted(*draws)) == pytest.approx(delay)


def test_a_slow_line_waits_two_trips_for_the_first_retransmission():
    lines = Lines(parse_latency("constant:0.3"), 0.1)
    assert lines.delay_s(Scripted(0.05, 0.5)) == pytest.approx(0.3 + 0.6)


def test_the_timeout_is_bounded():
    lines = Lines(parse_latency("constant:0"), 0.5)
    losses = 12
    plain = [min(0.2 * 2**n, RTO_MAX_S) for n in range(losses)]
    assert plain[-1] == RTO_MAX_S
    assert lines.delay_s(Scripted(*[0.0] * losses, 1.0)) == pytest.approx(sum(plain))


@pytest.mark.parametrize(
    ("held", "wait"),
    [
        (0.0, 0.2),
        (0.1, 0.1),
        (0.2, 0.0),
        (0.5, 0.1),  # tried at 0.2, 0.6, 1.4, 3.0, …
        (0.7, 0.7),
        (1.5, 1.5),
        (10.0, 2.6),
        (300.0, 24.6),  # … 102.2, 204.6, then every 120 s
    ],
)
def test_what_a_cut_line_held_comes_with_the_next_retransmission(held, wait):
    assert next_retransmission_s(held) == pytest.approx(wait)


@pytest.mark.parametrize("held", [0.3, 2.0, 77.0, 1000.0])
def test_the_next_retransmission_is_never_long_after_nor_before(held):
    assert 0 <= next_retransmission_s(held) <= min(max(0.2, held + 0.2), RTO_MAX_S)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (0, 6 + 104),
        (10, 16 + 104),
        (1442, 1448 + 104),  # just one segment
        (1443, 1449 + 208),
        (2890, 2896 + 208),
        (2891, 2897 + 312),
    ],
)
def test_a_message_costs_its_frame_and_two_packets_a_segment(message, wire):
    assert wire_bytes(message) == wire


@pytest.mark.parametrize(
    ("text", "draws", "seconds"),
    [
        ("constant:0.05", [], 0.05),
        ("constant:0", [], 0.0),
        ("uniform:0.001,0.021", [0.5], 0.011),
        ("uniform:0.02,0.02", [0.9], 0.02),
        ("lan", [0.0], 0.001),
        ("lan", [1.0], 0.02),
    ],
)
def test_a_latency_is_drawn_as_it_is_written(text, draws, seconds):
    assert parse_latency(text)(Scripted(*draws)) == pytest.approx(seconds)


def test_a_lognormal_latency_has_its_median_and_spread():
    draw, rng = parse_latency("lognormal:0.05,0.5"), Random(1)
    drawn = sorted(draw(rng) for _ in range(4000))
    assert statistics.median(drawn) == pytest.approx(0.05, rel=0.05)
    # One sigma up is a factor of e ** 0.5.
    assert drawn[int(0.8413 * 4000)] == pytest.approx(0.05 * 1.6487, rel=0.05)
    assert parse_latency("lognormal:0.05,0")(rng) == 0.05


def test_the_named_latencies_are_what_they_stand_for():
    for name, text in NAMED.items():
        assert parse_latency(name)(Random(3)) == parse_latency(text)(Random(3))


@pytest.mark.parametrize(
    "text",
    [
        "", "moon", "constant", "constant:", "constant:x", "constant:1,2", "constant:-1",
        "constant:60", "constant:nan", "constant:inf", "uniform:0.2", "uniform:0.2,0.1",
        "uniform:1,2,3", "lognormal:0,0.5", "lognormal:0.05", "lognormal:0.05,-1", "lan:1",
        "normal:0.1,0.1",
    ],
)  # fmt: skip
def test_what_is_no_latency_is_refused_with_what_is_right(text):
    with pytest.raises(ValueError, match=r"is no latency; write lan, wan, constant:0\.01") as told:
        parse_latency(text)
    assert repr(text) in str(told.value)
