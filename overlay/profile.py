"""The overlay's time constants: two figures of the network, and what follows from them.

`lan` is the default. `local` is for many peers on one machine (tests, demonstrations): it beats
twice as fast. `wan` allows for slow lines. docs/failure-detection.md shows the formulas as a table
and how long each kind of failure takes with them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything in seconds.

    `heartbeat_s`: one heartbeat a link and interval. Traffic against how soon silence is noticed;
    SWIM's protocol period and memberlist's ProbeInterval are 1 s as well.
    `trip_s`: what a round trip between two neighbours takes at the worst, short of trouble: on a
    LAN a scheduling delay on both sides, across a continent the line (memberlist's ProbeTimeout
    plays this part: 0.5 s on a LAN, 3 s on a WAN, without adapting).
    """

    heartbeat_s: float = 1.0
    trip_s: float = 0.1

    # Detection.

    @property
    def silence_shortest_s(self) -> float:
        """2 beats + 2 trips: one lost heartbeat, and the next one late, are no silence yet."""
        return 2 * self.heartbeat_s + 2 * self.trip_s

    @property
    def silence_longest_s(self) -> float:
        """3 beats + 5 trips: the bound of the adaptive timeout, however irregular a link is; a
        lower one doubts slow links more often, a higher one finds their end later."""
        return 3 * self.heartbeat_s + 5 * self.trip_s

    @property
    def probe_s(self) -> float:
        """5 trips: an observer that was told of a doubt gives the member so long to be heard before
        it shares the doubt (SWIM's indirect probe: there and back, with room for one
        retransmission by TCP, 0.2 s at least: RFC 6298 and Linux's TCP_RTO_MIN)."""
        return 5 * self.trip_s

    @property
    def hard_wait_s(self) -> float:
        """10 trips: refused re-dials of different observers come within a trip of each other, and
        their testimonies a few floods later even when half the network dies at once; if their
        quorum is not complete then, the member is called suspect as after silence."""
        return 10 * self.trip_s

    @property
    def lapse_s(self) -> float:
        """2 probes: what a single observer found and no other shares by then is its own trouble (a
        cut line between two, a firewall), and the member is not called suspect for it."""
        return 2 * self.probe_s

    @property
    def suspicion_shortest_s(self) -> float:
        """8 trips: how long a doubt that a quorum shares waits for the refutation. That crosses
        the overlay twice: degree 6 reaches 10,000 peers in 6 hops, so 12 one-way trips, a third
        more for queues. Lifeguard's minimum is likewise a multiple of log n (section IV-B)."""
        return 8 * self.trip_s

    @property
    def suspicion_longest_s(self) -> float:
        """6 times the shortest, as memberlist's SuspicionMaxTimeoutMult: a doubt that nobody
        confirms."""
        return 6 * self.suspicion_shortest_s

    # Dialling.

    @property
    def dial_timeout_s(self) -> float:
        """2 beats + 10 trips: a dial that neither succeeds nor fails (SIGSTOP, a black hole)."""
        return 2 * self.heartbeat_s + 10 * self.trip_s

    @property
    def quick_dial_s(self) -> float:
        """3 trips: the same for the first dial after a lost link, which is then repeated after
        half a trip. A process that is being killed takes connections for some milliseconds after
        its links were reset, and never answers on them; the repetition is refused."""
        return 3 * self.trip_s

    @property
    def redial_first_s(self) -> float:
        """3 trips: the first wait before a failed dial is repeated, doubled each time, ±50 %."""
        return 3 * self.trip_s

    @property
    def redial_last_s(self) -> float:
        """8 beats: the longest such wait."""
        return 8 * self.heartbeat_s

    @property
    def courtesy_s(self) -> float:
        """5 trips: the higher id of a pair waits so long for the lower one to dial. Spares double
        links, and still connects a pair of which only one side can dial out."""
        return 5 * self.trip_s

    @property
    def heal_s(self) -> float:
        """4 beats, ±50 %: each peer tries one dead member so often. With halves of n / 2 peers a
        cut of any length heals in about heal_s / n + a dial; costs a quarter dial a second."""
        return 4 * self.heartbeat_s

    @property
    def drain_s(self) -> float:
        """3 beats: a link that the graph does not want is kept so long, should tables differ."""
        return 3 * self.heartbeat_s

    @property
    def settled_s(self) -> float:
        """5 trips: the same where every link that is wanted is up. Frees a seed for others."""
        return 5 * self.trip_s

    @property
    def founding_s(self) -> float:
        """30 trips: peers that find only others without a network wait so long for a better
        candidate (they repeat their dials every 3 trips, so candidates travel 10 hops) before
        the lowest id among them founds one."""
        return 30 * self.trip_s

    # Talking.

    @property
    def flush_s(self) -> float:
        """Half a trip: news that comes in a burst is sent at most so often, the first at once.
        Costs a burst half a trip a hop; saves a message an item."""
        return self.trip_s / 2

    @property
    def goodbye_s(self) -> float:
        """5 trips: a leaver waits so long for its goodbyes to be written."""
        return 5 * self.trip_s


PROFILES = {
    "lan": Profile(),
    "local": Profile(heartbeat_s=0.5),
    "wan": Profile(heartbeat_s=2.0, trip_s=0.5),
}
