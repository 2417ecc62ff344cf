"""Heartbeats on one link: when silence becomes suspicious. Arithmetic only.

Rules kept here:
- the timeout follows what was observed on this link (mean and deviation of the gaps, as TCP's
  retransmission timer does: Jacobson, SIGCOMM 1988; RFC 6298 section 2), within bounds;
- time in which this peer itself did not run is nobody's silence.
"""

from __future__ import annotations

from dataclasses import dataclass

# RFC 6298: alpha = 1/8 for the mean, beta = 1/4 for the deviation, timeout = mean + 4 deviations.
MEAN_GAIN = 1 / 8
DEVIATION_GAIN = 1 / 4
DEVIATIONS = 4.0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one link's traffic looked like so far; all in seconds."""

    last_heard_s: float
    mean_gap_s: float
    deviation_s: float


def first_pulse(now: float, interval_s: float) -> Pulse:
    """A new link: assume the configured interval, with half of it as deviation."""
    return Pulse(now, interval_s, interval_s / 2)


def heard(pulse: Pulse, now: float) -> Pulse:
    """A heartbeat came in at `now`."""
    gap = max(0.0, now - pulse.last_heard_s)
    deviation = pulse.deviation_s + DEVIATION_GAIN * (
        abs(gap - pulse.mean_gap_s) - pulse.deviation_s
    )
    mean = pulse.mean_gap_s + MEAN_GAIN * (gap - pulse.mean_gap_s)
    return Pulse(now, mean, deviation)


def excuse(pulse: Pulse, stalled_s: float) -> Pulse:
    """This peer stood still for `stalled_s`: the other side had no chance to be heard."""
    return Pulse(pulse.last_heard_s + stalled_s, pulse.mean_gap_s, pulse.deviation_s)


def seen(pulse: Pulse, now: float) -> Pulse:
    """Something else came in at `now`: the other side is there, its rhythm is not learned."""
    return Pulse(now, pulse.mean_gap_s, pulse.deviation_s)


def wait_s(pulse: Pulse, *, shortest_s: float, longest_s: float) -> float:
    """How long after the last word silence becomes suspicious."""
    wait = pulse.mean_gap_s + DEVIATIONS * pulse.deviation_s
    return min(longest_s, max(shortest_s, wait))
