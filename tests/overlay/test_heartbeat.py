import pytest

from overlay.heartbeat import Pulse, deadline, excuse, first_pulse, heard


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


@pytest.mark.parametrize(
    ("mean", "deviation", "patience"),
    [
        (1.0, 0.4, 2.6),  # mean + 4 deviations
        (1.0, 0.0, 2.2),  # never below the shortest
        (1.0, 5.0, 3.5),  # never above the longest
    ],
)
def test_the_deadline_is_mean_plus_four_deviations_within_bounds(mean, deviation, patience):
    at = deadline(Pulse(100.0, mean, deviation), shortest_s=2.2, longest_s=3.5)
    assert at == pytest.approx(100.0 + patience)


def test_a_steady_pulse_makes_the_deadline_the_shortest():
    pulse = first_pulse(0.0, 1.0)
    for second in range(1, 30):
        pulse = heard(pulse, float(second))
    assert pulse.mean_gap_s == pytest.approx(1.0)
    assert pulse.deviation_s < 0.001
    assert deadline(pulse, shortest_s=0.5, longest_s=9.0) == pytest.approx(30.0, abs=0.01)


def test_a_stall_of_our_own_puts_the_deadline_off_by_as_much():
    pulse = Pulse(10.0, 1.0, 0.5)
    limits = {"shortest_s": 0.1, "longest_s": 9.0}
    assert deadline(excuse(pulse, 4.0), **limits) == deadline(pulse, **limits) + 4.0
