"""The overlay's time constants, each with its formula and what it trades.

`lan` is the default. `local` is for many peers on one machine (tests, demonstrations): quicker
everywhere. `wan` waits longer before it doubts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """All in seconds."""

    # One heartbeat a link and interval: traffic against how soon silence is noticed. SWIM's period
    # and memberlist's ProbeInterval are 1 s as well.
    heartbeat_s: float = 1.0
    # Bounds of the adaptive silence timeout: two lost heartbeats at the least; at the most what
    # keeps detection under 5 s together with `suspicion_shortest_s`.
    silence_shortest_s: float = 2.2
    silence_longest_s: float = 3.5
    # Lifeguard's bounds for a suspicion nobody, or everybody, confirms. The time a doubted member
    # has to refute; it needs about a round trip over the overlay's diameter.
    suspicion_shortest_s: float = 0.8
    suspicion_longest_s: float = 4.0
    # A dial that neither succeeds nor fails (SIGSTOP, a black hole) is given up after this.
    dial_timeout_s: float = 3.0
    # Re-dials of a wanted neighbour: first wait, doubled up to the last; each with ±50 % jitter.
    redial_first_s: float = 0.3
    redial_last_s: float = 8.0
    # The higher id of a pair waits this long for the lower one to dial: spares double links, and
    # still connects a pair of which only one side can dial out.
    courtesy_s: float = 0.5
    # One dead member or seed is tried this often (±50 % jitter): how fast partitions heal.
    heal_s: float = 4.0
    # A link that the graph does not want is kept this long, in case the tables still differ.
    drain_s: float = 3.0
    # A leaver waits this long for its goodbye to be written.
    goodbye_s: float = 0.5


PROFILES = {
    "lan": Profile(),
    "local": Profile(
        heartbeat_s=0.5,
        silence_shortest_s=1.2,
        silence_longest_s=2.5,
        suspicion_shortest_s=0.5,
        suspicion_longest_s=2.5,
        dial_timeout_s=2.0,
        heal_s=1.5,
        drain_s=2.0,
    ),
    "wan": Profile(
        heartbeat_s=2.0,
        silence_shortest_s=5.0,
        silence_longest_s=12.0,
        suspicion_shortest_s=3.0,
        suspicion_longest_s=15.0,
        dial_timeout_s=10.0,
        redial_first_s=1.0,
        redial_last_s=30.0,
        courtesy_s=1.5,
        heal_s=8.0,
        drain_s=10.0,
    ),
}
