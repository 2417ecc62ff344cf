"""How much doubt without proof one neighbour may bring.

A suspicion costs whoever says it a few bytes, and everybody else a record: its subject rises above
it, and the refutation floods. One that carries the vote of an observer of its subject is that one's
word, who signs it, and observes six members. All others may be anybody's about everybody, or the
old table of a peer from beyond a cut, which has every reason to doubt half of the members, once.

Rules kept here:
- a neighbour may doubt each member `MOST` times in `PERIOD_S`, whatever the network's size: so no
  liar has anybody refute more than a few times by way of each of its links, however fast news
  travels;
- what is over that is not believed and not passed on. The link stays: honest peers pass on what a
  liar said, for it was within their own limits;
- the count is kept by peer, not by link: a new link brings no new allowance.

Pure: time is an argument.
"""

from __future__ import annotations

import math

# A cut that ends is a doubt about each member beyond it, and a second one soon after is nothing
# unheard of; who wants to be believed more often has a vote.
MOST, PERIOD_S = 2, 600.0
# Neighbours whose doubts are kept, the one longest known is dropped first: of 10,000 members, 1 MB.
KEPT = 64


class Doubts:
    """What the neighbours brought in this period."""

    def __init__(self) -> None:
        self._ends_at = -math.inf
        self._brought: dict[str, dict[str, int]] = {}

    def may_bring(self, source: str, subject: str, now: float) -> bool:
        """Count one doubt of `subject` that `source` brings; False when it is one too many."""
        if now >= self._ends_at:
            self._ends_at = now + PERIOD_S
            self._brought.clear()
        counts = self._brought.setdefault(source, {})
        if len(self._brought) > KEPT:
            del self._brought[next(iter(self._brought))]
        counts[subject] = counts.get(subject, 0) + 1
        return counts[subject] <= MOST
