"""From evidence to a verdict. Arithmetic and a small record per suspect; no I/O, no clock.

Rules kept here:
- only the observers that the member table designates count, each once: one liar kills nobody;
- hard evidence (a link was reset and the re-dial was refused: no process listens there any more)
  from enough observers is a verdict at once;
- soft evidence (silence) starts a timer that shrinks as independent observers agree (Lifeguard:
  Dadgar, Phillips & Currey, 2017, section IV-B) and gives the member time to refute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Three agreeing observers outnumber liars that hold less than a third of degree 6.
MAX_QUORUM = 3


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
    """The case against one member at one incarnation: who says so (True: hard evidence)."""

    incarnation: int
    since: float
    votes: dict[str, bool] = field(default_factory=dict)

    def add(self, observer: str, hard: bool) -> bool:
        """Count a vote; False when it is no news (a hard vote upgrades a soft one)."""
        held = self.votes.get(observer)
        if held is not None and (held or not hard):
            return False
        self.votes[observer] = hard
        return True

    def hard_votes(self, observers: frozenset[str]) -> int:
        """Hard votes of the designated observers."""
        return sum(hard for observer, hard in self.votes.items() if observer in observers)

    def deadline(self, observers: int, *, shortest_s: float, longest_s: float) -> float:
        """When this suspicion becomes a verdict unless it is refuted."""
        wait = timeout_s(
            max(0, len(self.votes) - 1),
            wanted=quorum(observers) - 1,
            shortest_s=shortest_s,
            longest_s=longest_s,
        )
        return self.since + wait
