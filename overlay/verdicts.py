"""Whether to believe that a member is dead: the votes must be those of its observers.

A verdict is made by the member's observers and told to everybody. It carries their signed votes,
and whoever hears it counts those by the observers that the member's place in its own table
designates. Tables differ for a moment, most when many die at once; what is not proven yet waits,
and is counted again as the table changes.

Rules kept here:
- as many distinct observers must have voted as share a doubt before it counts (`suspicion.SHARED`;
  fewer only where there are no more), in the life that the verdict ends;
- unless their votes are hard, the member must have been suspect here for the shortest time in which
  it could refute: old doubts that came to nothing, kept by a liar, prove nothing;
- a verdict that waits is told to nobody, and is forgotten after a while.

Pure: time is an argument.
"""

from __future__ import annotations

import math
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

    def __init__(
        self,
        observers: Callable[[str], frozenset[str]],
        *,
        suspected_at: Callable[[str], float],
        refutable_s: float,
        patience_s: float,
    ) -> None:
        """`observers(peer)`: those that the table designates; `suspected_at(peer)`: since when a
        member is suspect here, infinity if it is not."""
        self._observers = observers
        self._suspected_at = suspected_at
        self._refutable_s = refutable_s
        self._patience_s = patience_s
        self._waiting: dict[str, _Waiting] = {}

    def sift(self, fates: Iterable[Fate], now: float) -> list[Fate]:
        """Those of the fates that can be believed now: every one but a death without proof. A
        death comes out with all the votes that prove it, for those to whom it is passed on; one
        that the member could still refute, as a suspicion."""
        taken = (self._take(f, now) if f.state is State.DEAD else f for f in fates)
        return [fate for fate in taken if fate is not None]

    def review(self, now: float) -> list[Fate]:
        """The deaths that waited and are proven by now."""
        for peer in [p for p, w in self._waiting.items() if now - w.since > self._patience_s]:
            del self._waiting[peer]
        whole = map(_of, list(self._waiting.values()))
        weighed = [self._weigh(fate, self._observers(fate.peer_id), now) for fate in whole]
        return [fate for fate in weighed if fate is not None]

    def is_proven(self, fate: Fate) -> bool:
        """Whether enough of those that the table designates now voted for a death."""
        votes = [vote for vote in fate.votes if vote.incarnation >= fate.incarnation]
        return _is_shared(votes, self._observers(fate.peer_id))

    def has_witness(self, fate: Fate) -> bool:
        """Whether at least one of them voted for a doubt or a death."""
        observers = self._observers(fate.peer_id)
        return any(
            v.observer in observers and v.incarnation >= fate.incarnation for v in fate.votes
        )

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _take(self, fate: Fate, now: float) -> Fate | None:
        waiting = self._waiting.get(fate.peer_id)
        if waiting is None or waiting.fate.incarnation < fate.incarnation:
            if len(self._waiting) >= MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            waiting = self._waiting[fate.peer_id] = _Waiting(fate, now)
        observers = self._observers(fate.peer_id)
        _add(waiting, fate.votes, observers)
        return self._weigh(_of(waiting), observers, now)

    def _weigh(self, fate: Fate, observers: frozenset[str], now: float) -> Fate | None:
        """A death that waits: believed, a suspicion, or nothing yet."""
        peer, incarnation, _, votes = fate
        current = [vote for vote in votes if vote.incarnation >= incarnation]
        if not _is_shared(current, observers):
            return None
        hard = [vote for vote in current if vote.hard]
        if _is_shared(hard, observers) or now - self._suspected_at(peer) >= self._refutable_s:
            del self._waiting[peer]
            return fate
        is_suspect = self._suspected_at(peer) < math.inf
        return None if is_suspect else Fate(peer, incarnation, State.SUSPECT, votes)


def _add(waiting: _Waiting, votes: Iterable[Vote], observers: frozenset[str]) -> None:
    for vote in votes:
        held = waiting.votes.pop(vote.observer, None)
        newer = vote if held is None or vote.incarnation > held.incarnation else held
        if held is not None or len(waiting.votes) < MAX_VOTES or vote.observer in observers:
            waiting.votes[vote.observer] = newer  # at the end, where `_of` looks


def _is_shared(votes: Iterable[Vote], observers: frozenset[str]) -> bool:
    voted = {vote.observer for vote in votes if vote.observer in observers}
    return len(voted) >= max(1, min(SHARED, len(observers)))


def _of(waiting: _Waiting) -> Fate:
    peer, incarnation, state, _ = waiting.fate
    return Fate(peer, incarnation, state, tuple(waiting.votes.values())[-MAX_VOTES:])
