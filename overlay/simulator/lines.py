"""Simulated lines: how long a message takes, and what a lost packet costs.

Links are TCP, so nothing is lost for good: a lost packet comes a retransmission timeout later, and
everything sent after it on the same link waits behind it. That is what `loss` means here.

Source of the timeout: RFC 6298 sections 2.4 and 5.5, with Linux's bounds (TCP_RTO_MIN 0.2 s,
TCP_RTO_MAX 120 s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

RTO_MIN_S, RTO_MAX_S = 0.2, 120.0
# What travels beside a message of n bytes: websocket frame and mask, TCP and IP headers with
# timestamps, and the packet that acknowledges it.
FRAME_BYTES, PACKET_BYTES = 6, 52
SEGMENT_BYTES = 1448

Draw = Callable[[Random], float]


@dataclass(frozen=True, slots=True)
class Lines:
    """One way of a message, in seconds, and the probability that a packet is lost."""

    latency: Draw
    loss: float = 0.0

    def delay_s(self, rng: Random) -> float:
        """What one message takes, retransmissions included."""
        delay = self.latency(rng)
        if self.loss:
            timeout = max(RTO_MIN_S, 2 * delay)
            while rng.random() < self.loss:
                delay += timeout
                timeout = min(2 * timeout, RTO_MAX_S)
        return delay


def next_retransmission_s(held_s: float) -> float:
    """How long after a line works again the first held packet comes: TCP tries 0.2, 0.6, 1.4, … s
    after the first loss, and the line was cut for `held_s`."""
    tried, timeout = RTO_MIN_S, RTO_MIN_S
    while tried < held_s:
        timeout = min(2 * timeout, RTO_MAX_S)
        tried += timeout
    return tried - held_s


def wire_bytes(message_bytes: int) -> int:
    """What a message costs on the wire, frames, headers and acknowledgements included."""
    framed = message_bytes + FRAME_BYTES
    return framed + 2 * PACKET_BYTES * math.ceil(framed / SEGMENT_BYTES)


def parse_latency(text: str) -> Draw:
    """`lan`, `wan`, `constant:S`, `uniform:LOW,HIGH` or `lognormal:MEDIAN,SIGMA` (seconds).

    Raises ValueError that says what is right.
    """
    name, _, numbers = NAMED.get(text, text).partition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
        return _draw(name, values)
    except ValueError:
        raise ValueError(
            f"{text!r} is no latency; write lan, wan, constant:0.01, uniform:0.001,0.02 or"
            " lognormal:MEDIAN,SIGMA (seconds, one way)"
        ) from None


# Measured nowhere in particular: a switched network with busy hosts, and paths across continents.
NAMED = {"lan": "uniform:0.001,0.02", "wan": "lognormal:0.05,0.5"}


def _draw(name: str, values: list[float]) -> Draw:
    if any(not 0 <= value < 60 for value in values):
        raise ValueError
    match name, values:
        case "constant", [seconds]:
            return lambda rng: seconds
        case "uniform", [low, high] if low <= high:
            return lambda rng: low + (high - low) * rng.random()
        case "lognormal", [median, sigma] if median > 0:
            return lambda rng: median * math.exp(sigma * rng.gauss(0.0, 1.0))
    raise ValueError
