import pytest

from overlay.heartbeat import Pulse, excuse, first_pulse, heard, seen, wait_s


def test_a_new_link_assumes_the_interval_and_half_of_it():
    assert first_pulse(10.0, 1.0) == Pulse(10.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("gap", "mean", "deviation"),
    [
        # deviation' = 3/4 · 0.4 + 1/4 · |gap − 1|, mean' = 7/8 · 1 + 1/8 · gap (RFC 6298, 2.3)
        (1.0, 1.0, 0.3),
        (2.0, 1.125, 0.55),
        (0.0, 0.875, 0.55),
        (9.0, 2.0, 2.3),
    ],
)
def test_mean_and_deviation_follow_rfc_6298(gap, mean, deviation):
    pulse = heard(Pulse(5.0, 1.0, 0.4), 5.0 + gap)
    assert pulse.last_heard_s == 5.0 + gap
    assert (pulse.mean_gap_s, pulse.deviation_s) == pytest.approx((mean, deviation))


def test_a_clock_that_seems_to_go_back_is_a_gap_of_nothing():
    assert heard(Pulse(5.0, 1.0, 0.4), 4.0) == heard(Pulse(4.0, 1.0, 0.4), 4.0)


def test_what_is_no_heartbeat_ends_the_silence_and_teaches_no_rhythm():
    assert seen(Pulse(5.0, 1.0, 0.4), 5.01) == Pulse(5.01, 1.0, 0.4)


@pytest.mark.parametrize(
    ("mean", "deviation", "wait"),
    [
        (1.0, 0.4, 2.6),  # mean + 4 deviations
        (1.0, 0.0, 2.2),  # never below the shortest
        (1.0, 5.0, 3.5),  # never above the longest
        (1.0, 0.3, 2.2),  # just at the bounds
        (1.5, 0.5, 3.5),
    ],
)
def test_the_wait_is_mean_plus_four_deviations_within_bounds(mean, deviation, wait):
    pulse = Pulse(100.0, mean, deviation)
    assert wait_s(pulse, shortest_s=2.2, longest_s=3.5) == pytest.approx(wait)


def test_a_steady_pulse_makes_the_wait_the_shortest():
    pulse = first_pulse(0.0, 1.0)
    waits = []
    for second in range(1, 30):
        pulse = heard(pulse, float(second))
        waits.append(wait_s(pulse, shortest_s=0.5, longest_s=9.0))
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == pytest.approx(1.0, abs=0.01)


def test_a_stall_of_our_own_puts_the_end_of_patience_off_by_as_much():
    excused = excuse(Pulse(10.0, 1.0, 0.5), 4.0)
    assert excused == Pulse(14.0, 1.0, 0.5)
    # The gap in which we stood still is not learned as the other side's.
    assert heard(excused, 15.0).mean_gap_s == pytest.approx(1.0)
