"""From evidence to a verdict. Arithmetic and a small record per suspect; no I/O, no clock.

Rules kept here:
- only the observers that the member table designates count, each once, and each signs for itself:
  one liar kills nobody;
- hard evidence (a link was reset and the re-dial was refused: no process listens there any more)
  from a quorum of observers is a verdict at once;
- a doubt that a second observer shares makes the member suspect, and starts a timer that shrinks as
  more agree (Lifeguard: Dadgar, Phillips & Currey, DSN-W 2018, section IV-B) and gives the member
  time to refute; a doubt that nobody shares lapses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from overlay.records import Vote

# Three agreeing observers outnumber liars that hold less than a third of degree 6.
MAX_QUORUM = 3
# Observers that must share a doubt before the member is called suspect (SWIM's direct and indirect
# probe: one that found nothing, and one that was asked to look).
SHARED = 2


def quorum(observers: int) -> int:
    """Hard votes needed for an immediate verdict: a majority, but never more than MAX_QUORUM."""
    return max(1, min(MAX_QUORUM, observers // 2 + 1))


def timeout_s(confirmations: int, *, wanted: int, shortest_s: float, longest_s: float) -> float:
    """How long a suspicion waits for a refutation after `confirmations` further observers agreed.

    longest − (longest − shortest) · log(c + 1) / log(k + 1), as Lifeguard section IV-B; with no
    further observer to be had (k = 0) waiting longer teaches nothing, so it is the shortest.
    """
    if wanted <= 0:
        return shortest_s
    share = min(1.0, math.log(confirmations + 1) / math.log(wanted + 1))
    return longest_s - (longest_s - shortest_s) * share


@dataclass(slots=True)
class Suspicion:
    """The case against one member at one incarnation: who says so.

    `since`: when it began, or when the member was called suspect (`told`). `standing`: how many of
    its observers are in no doubt themselves.
    """

    incarnation: int
    since: float
    told: bool = False
    standing: int = 1
    votes: dict[str, Vote] = field(default_factory=dict)

    def add(self, vote: Vote) -> bool:
        """Count a vote; False when it is no news (a hard vote upgrades a soft one)."""
        held = self.votes.get(vote.observer)
        if held is not None and (held.hard or not vote.hard):
            return False
        self.votes[vote.observer] = vote
        return True

    @property
    def is_proven(self) -> bool:
        """Whether enough observers found nobody listening."""
        return self._hard_votes >= quorum(self.standing)

    def shared_at(self, *, hard_wait_s: float) -> float:
        """From when on it is more than one observer's own trouble (or there is no other to ask);
        infinity if it is not. While only hard evidence came in, its quorum is waited for."""
        if len(self.votes) < min(SHARED, self.standing):
            return math.inf
        all_hard = self._hard_votes == len(self.votes)
        return self.since + (hard_wait_s if all_hard else 0.0)

    @property
    def _hard_votes(self) -> int:
        return sum(vote.hard for vote in self.votes.values())

    def tell(self, now: float) -> None:
        """The member is called suspect from now on: its time to refute begins."""
        self.told, self.since = True, now

    def deadline(self, *, shortest_s: float, longest_s: float) -> float:
        """When this suspicion becomes a verdict unless it is refuted."""
        return self.since + timeout_s(
            max(0, len(self.votes) - 1),
            wanted=quorum(self.standing) - 1,
            shortest_s=shortest_s,
            longest_s=longest_s,
        )
