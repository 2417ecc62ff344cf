"""The open suspicions of one peer: evidence counted against who may testify, verdicts when due.

Rules kept here:
- evidence counts only from a member that the graph designates as an observer, each once;
- observers that are themselves under suspicion do not raise the quorum: when half a network dies at
  once, the living half still reaches its verdicts;
- a case ends with its verdict, or with a higher incarnation of the member.

Pure: time is an argument.
"""

from __future__ import annotations

import math

from overlay.neighbourhood import Neighbourhood
from overlay.profile import Profile
from overlay.records import Record, State
from overlay.suspicion import Suspicion, quorum
from overlay.wire import Evidence


class Cases:
    """Suspicions by the member they are about."""

    def __init__(self, graph: Neighbourhood, profile: Profile) -> None:
        self._graph = graph
        self._profile = profile
        self._open: dict[str, Suspicion] = {}

    def add(self, evidence: Evidence, about: Record, now: float) -> bool:
        """Count a testimony about a live member; False if it is no news or does not count."""
        if evidence.incarnation < about.incarnation:
            return False
        if evidence.observer not in self._graph.observers(evidence.subject):
            return False
        fresh = Suspicion(about.incarnation, now)
        case = self._open.setdefault(evidence.subject, fresh)
        return case.add(evidence.observer, evidence.hard)

    def is_proven(self, subject: str) -> bool:
        """Whether the hard evidence is enough for a verdict at once."""
        votes = self._open[subject].hard_votes(self._graph.observers(subject))
        return votes >= quorum(self._standing(subject))

    def follow(self, record: Record, now: float) -> None:
        """A member's record changed: open its case, or close it."""
        case = self._open.get(record.peer_id)
        if case is not None and (record.incarnation > case.incarnation or not record.is_live):
            del self._open[record.peer_id]
        elif record.state is State.SUSPECT and case is None:
            self._open[record.peer_id] = Suspicion(record.incarnation, now)

    def take_due(self, now: float) -> list[str]:
        """The members whose time to refute is over; their cases end."""
        due = [peer for peer in self._open if now >= self._verdict_at(peer)]
        for peer in due:
            del self._open[peer]
        return due

    def wake_at(self) -> float:
        """When the next verdict is due; infinity without a case."""
        return min((self._verdict_at(peer) for peer in self._open), default=math.inf)

    def excuse(self, stalled_s: float) -> None:
        """This peer stood still: nobody's time to refute went by."""
        for case in self._open.values():
            case.since += stalled_s

    def _verdict_at(self, peer: str) -> float:
        return self._open[peer].deadline(
            self._standing(peer),
            shortest_s=self._profile.suspicion_shortest_s,
            longest_s=self._profile.suspicion_longest_s,
        )

    def _standing(self, subject: str) -> int:
        """How many observers of a member are not themselves under suspicion."""
        return sum(peer not in self._open for peer in self._graph.observers(subject))
