"""What is known of each live link: its rhythm, whether somebody asked after the other end, whether
the tables on both ends agree, and for how long nobody has wanted it.

Rules kept here:
- a link is silent after a time that its own rhythm sets; sooner if others doubt the other end,
  later if this peer itself runs late or finds most of its neighbours silent (`health`);
- tables are compared by the digests in heartbeats. They differ for good when nothing changed on
  either end between two heartbeats, or when they have differed for long: otherwise it is news under
  way;
- an unwanted link is kept for a while, in case the tables still differ; a shorter while if every
  wanted link is up.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from overlay import heartbeat
from overlay.health import LocalHealth
from overlay.profile import Profile
from overlay.records import Fate

# Heartbeats for which two tables may differ while news goes on.
DIFFERENT_BEATS = 5


@dataclass(slots=True)
class LinkState:
    """One link."""

    pulse: heartbeat.Pulse
    up_since: float
    unwanted_since: float = math.inf
    asked_at: float = math.inf  # since when an answer is due: others doubt the member
    disputed: Fate | None = None  # what others say of it, who find no link to it
    # The digests when they were last compared, and since when they have differed.
    compared: tuple[int, int] = (0, 0)
    compared_at: float = -math.inf
    differs_since: float = math.inf


class Links:
    """The live links of one peer, by the id at the other end."""

    def __init__(self, profile: Profile, health: LocalHealth) -> None:
        self._profile = profile
        self._health = health
        self._links: dict[str, LinkState] = {}
        self.look_at = math.inf  # no link is silent before
        self._drain_at = math.inf  # nor kept long enough for nothing

    def __contains__(self, peer: str) -> bool:
        return peer in self._links

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def get(self, peer: str) -> LinkState | None:
        """The link to a peer, None without one."""
        return self._links.get(peer)

    def up(self, peer: str, now: float) -> None:
        """A link is ready, perhaps in place of an older one."""
        link = LinkState(heartbeat.first_pulse(now, self._profile.heartbeat_s), now)
        self._links[peer] = link
        self._look_in_time(link)

    def drop(self, peer: str) -> LinkState | None:
        """A link is over; what was known of it."""
        return self._links.pop(peer, None)

    # The rhythm.

    def heard(self, link: LinkState, now: float, *, beat: bool) -> None:
        """Something came in: a heartbeat, which teaches the rhythm, or a word between two."""
        link.asked_at = math.inf
        link.pulse = (heartbeat.heard if beat else heartbeat.seen)(link.pulse, now)

    def ask(self, peer: str, now: float) -> None:
        """Others doubt a member: if it is not heard from now, its link is silent. (It may have
        answered before the question came here.)"""
        link = self._links.get(peer)
        if link is not None and now - link.pulse.last_heard_s >= self._profile.probe_s:
            link.asked_at = min(link.asked_at, now)
            self._look_in_time(link)

    def dispute(self, fate: Fate, now: float) -> bool:
        """Others say that a member is gone to which there is a link; whether that is new. If it is
        not heard from now, the link is silent; a refutation makes the word void."""
        link = self._links[fate.peer_id]
        if not fate.graver_than(link.disputed):
            return False
        link.disputed = fate
        link.asked_at = min(link.asked_at, now)
        self._look_in_time(link)
        return True

    def silent(self, now: float) -> list[str]:
        """The peers that were not heard for too long."""
        if now < self.look_at:
            return []
        return [peer for peer, link in self._links.items() if now >= self._silent_at(link)]

    def wake_at(self, now: float) -> float:
        """When a link needs attention next, at the latest.

        What puts it off needs no word: looking at a link for nothing costs little, and every
        message that comes in puts it off.
        """
        if now >= self.look_at:
            self.look_at = math.inf
            for link in self._links.values():
                self._look_in_time(link)
        return min(self.look_at, self._drain_at)

    def look_again(self) -> None:
        """This peer's patience changed: every link is to be looked at anew."""
        self.look_at = -math.inf

    def excuse(self, stalled_s: float) -> None:
        """This peer stood still: nobody had a chance to be heard."""
        for link in self._links.values():
            link.pulse = heartbeat.excuse(link.pulse, stalled_s)
            link.asked_at += stalled_s

    def _silent_at(self, link: LinkState) -> float:
        patience = self._health.patience
        wait_s = heartbeat.wait_s(
            link.pulse,
            shortest_s=self._profile.silence_shortest_s,
            longest_s=self._profile.silence_longest_s,
        )
        at = min(
            link.pulse.last_heard_s + wait_s * patience,
            link.asked_at + self._profile.probe_s * patience,
        )
        return max(at, self._health.hold_until)

    # The tables.

    def differs(self, link: LinkState, theirs: int, mine: int, now: float) -> bool:
        """Whether the table at the other end differs for good; asked with each heartbeat."""
        period = self._profile.heartbeat_s
        if theirs == mine:
            link.differs_since = math.inf
            return False
        link.differs_since = min(link.differs_since, now)
        if now - link.compared_at < period / 2:  # an answer to a doubt, not the next heartbeat
            return False
        is_still = link.compared == (mine, theirs)
        link.compared, link.compared_at = (mine, theirs), now
        if is_still or now - link.differs_since > DIFFERENT_BEATS * period:
            link.compared, link.differs_since = (0, 0), math.inf
            return True
        return False

    # Who is wanted.

    def guests(self, wanted: frozenset[str]) -> int:
        """How many links nobody wants."""
        return sum(peer not in wanted for peer in self._links)

    def drained(self, wanted: frozenset[str], now: float) -> list[str]:
        """The peers whose links were kept long enough for nothing."""
        settled = wanted <= self._links.keys()
        wait_s = self._profile.settled_s if settled else self._profile.drain_s
        drained = []
        self._drain_at = math.inf
        for peer, link in self._links.items():
            if peer in wanted or link.differs_since < math.inf:
                link.unwanted_since = math.inf
                continue
            link.unwanted_since = min(link.unwanted_since, now)
            if now >= link.unwanted_since + wait_s:
                drained.append(peer)
            else:
                self._drain_at = min(self._drain_at, link.unwanted_since + wait_s)
        return drained

    def _look_in_time(self, link: LinkState) -> None:
        self.look_at = min(self.look_at, self._silent_at(link))
