"""Whether to believe that a member is dead: the votes must be those of its observers.

A verdict is made by the member's observers and told to everybody. It carries their signed votes,
and whoever hears it counts those by the observers that the member's place in its own table
designates. Tables differ for a moment, most when many die at once; what is not proven yet waits,
and is counted again as the table changes.

Rules kept here:
- as many distinct observers must have voted as share a doubt before it counts (`suspicion.SHARED`;
  fewer only where there are no more), in the life that the verdict ends;
- a verdict that waits is told to nobody, and is forgotten after a while.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from overlay.records import MAX_VOTES, Fate, State, Vote
from overlay.suspicion import SHARED

# More than this wait only where many die at once; the oldest go, and tables are compared later.
MAX_WAITING = 4096


@dataclass(slots=True)
class _Waiting:
    fate: Fate
    since: float
    votes: dict[str, Vote] = field(default_factory=dict)


class Verdicts:
    """The deaths that were told and are not proven yet."""

    def __init__(self, observers: Callable[[str], frozenset[str]], patience_s: float) -> None:
        """`observers(peer)`: those that the table designates."""
        self._observers = observers
        self._patience_s = patience_s
        self._waiting: dict[str, _Waiting] = {}

    def sift(self, fates: Iterable[Fate], now: float) -> list[Fate]:
        """Those of the fates that can be believed now: every one but a death without proof."""
        return [fate for fate in fates if fate.state is not State.DEAD or self._take(fate, now)]

    def review(self, now: float) -> list[Fate]:
        """The deaths that waited and are proven by now."""
        for peer in [p for p, w in self._waiting.items() if now - w.since > self._patience_s]:
            del self._waiting[peer]
        return [fate for fate in self._told() if self._is_proven(fate)]

    def settle(self, subjects: Iterable[str]) -> None:
        """These members are dead, or have refuted."""
        for peer in self._waiting.keys() & set(subjects):
            del self._waiting[peer]

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _take(self, fate: Fate, now: float) -> bool:
        if self._is_proven(fate):
            return True
        waiting = self._waiting.get(fate.peer_id)
        if waiting is None or waiting.fate.incarnation < fate.incarnation:
            if len(self._waiting) >= MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            waiting = self._waiting[fate.peer_id] = _Waiting(fate, now)
        for vote in fate.votes:
            if len(waiting.votes) < MAX_VOTES or vote.observer in self._observers(fate.peer_id):
                waiting.votes[vote.observer] = vote
        return self._is_proven(_of(waiting))

    def _told(self) -> list[Fate]:
        return [_of(waiting) for waiting in self._waiting.values()]

    def _is_proven(self, fate: Fate) -> bool:
        observers = self._observers(fate.peer_id)
        voted = {
            vote.observer
            for vote in fate.votes
            if vote.observer in observers and vote.incarnation >= fate.incarnation
        }
        return len(voted) >= max(1, min(SHARED, len(observers)))


def _of(waiting: _Waiting) -> Fate:
    peer, incarnation, state, _ = waiting.fate
    return Fate(peer, incarnation, state, tuple(waiting.votes.values())[-MAX_VOTES:])
