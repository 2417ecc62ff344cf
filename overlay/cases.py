"""The cases that this peer judges: those against the members that it observes.

Rules kept here:
- evidence counts only from a member that the graph designates as an observer, each once;
- observers that are themselves doubted do not raise the quorum: when half a network dies at once,
  the living half still reaches its verdicts;
- a case ends with its verdict, with a higher incarnation of the member, when nobody shares a single
  observer's doubt, or when this peer no longer observes the member.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from overlay.neighbourhood import Neighbourhood
from overlay.profile import Profile
from overlay.records import MAX_VOTES, Fate, State, Vote
from overlay.rumours import Rumours
from overlay.suspicion import Suspicion

# A member, and who voted for its death.
Verdict = tuple[str, tuple[Vote, ...]]


class Cases:
    """Suspicions by the member they are about."""

    def __init__(self, graph: Neighbourhood, profile: Profile, rumours: Rumours) -> None:
        self._graph = graph
        self._profile = profile
        self._rumours = rumours
        self._open: dict[str, Suspicion] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def open(self, subject: str, incarnation: int, now: float) -> None:
        """There is testimony about a member in the life that began with `incarnation`."""
        case = self._open.get(subject)
        if case is None or case.incarnation < incarnation:
            self._open[subject] = Suspicion(incarnation, now)
        self._weigh(subject)

    def suspect(self, subject: str, incarnation: int, now: float) -> None:
        """Others call a member suspect: its time to refute runs here too."""
        self.open(subject, incarnation, now)
        case = self._open[subject]
        if not case.told:
            case.tell(now)

    def close(self, subjects: Iterable[str]) -> None:
        """Verdicts, or refutations."""
        for subject in self._open.keys() & set(subjects):
            del self._open[subject]

    def review(self, watched: Iterable[str]) -> None:
        """The members or the doubts about them changed; this peer observes just `watched`."""
        for subject in self._open.keys() - set(watched):
            del self._open[subject]
        for subject in self._open:
            self._weigh(subject)

    def take_proven(self) -> list[Verdict]:
        """The members against whom the hard evidence is enough; their cases end."""
        return self._take(lambda case: case.is_proven)

    def take_due(self, now: float) -> list[Verdict]:
        """The members whose time to refute is over; their cases end."""
        return self._take(lambda case: case.told and now >= self._verdict_at(case))

    def drop_lapsed(self, now: float) -> None:
        """End the cases that stayed one observer's own trouble."""
        self._take(lambda case: now >= self._lapses_at(case))

    def take_shared(self, now: float) -> list[Fate]:
        """The members that are to be called suspect now, with the votes for that."""
        shared = []
        for subject, case in self._open.items():
            if not case.told and now >= self._shared_at(case):
                case.tell(now)
                votes = tuple(case.votes.values())[:MAX_VOTES]
                shared.append(Fate(subject, case.incarnation, State.SUSPECT, votes))
        return shared

    def wake_at(self) -> float:
        """When something is due next; infinity without a case."""
        return min((self._next(case) for case in self._open.values()), default=math.inf)

    def excuse(self, stalled_s: float) -> None:
        """This peer stood still: nobody's time to refute went by."""
        for case in self._open.values():
            case.since += stalled_s

    def restart(self, now: float) -> None:
        """This peer was cut off and is linked again: what it missed meanwhile, refutations among
        it, comes now."""
        for case in self._open.values():
            case.since = now

    def _take(self, is_ripe: Callable[[Suspicion], bool]) -> list[Verdict]:
        ripe = [subject for subject, case in self._open.items() if is_ripe(case)]
        return [(subject, tuple(self._open.pop(subject).votes.values())) for subject in ripe]

    def _weigh(self, subject: str) -> None:
        """Count what the member's observers said, and how many of them are in no doubt."""
        case, observers = self._open[subject], self._graph.observers(subject)
        for evidence in self._rumours.about(subject):
            if evidence.observer in observers and evidence.incarnation >= case.incarnation:
                case.add(evidence.vote)
        # Whoever testifies is there: two that doubt each other do not clear the way for themselves.
        case.standing = sum(
            peer in case.votes or not self._rumours.is_doubted(peer) for peer in observers
        )

    def _next(self, case: Suspicion) -> float:
        if case.told:
            return self._verdict_at(case)
        return min(self._shared_at(case), self._lapses_at(case))

    def _lapses_at(self, case: Suspicion) -> float:
        return math.inf if case.told else case.since + self._profile.lapse_s

    def _shared_at(self, case: Suspicion) -> float:
        return case.shared_at(hard_wait_s=self._profile.hard_wait_s)

    def _verdict_at(self, case: Suspicion) -> float:
        return case.deadline(
            shortest_s=self._profile.suspicion_shortest_s,
            longest_s=self._profile.suspicion_longest_s,
        )
