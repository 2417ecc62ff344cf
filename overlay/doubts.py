"""How many questions after members that nobody vouches for one neighbour may bring.

A suspicion costs whoever says it a few bytes, and everybody else a record: its subject rises above
it, and the refutation floods. One that carries the vote of an observer of its subject is that one's
word, who signs it, and observes six members. All others may be anybody's about everybody, or the
old table of a peer from beyond a cut, which has every reason to doubt half of the members, once.
Such a doubt makes nobody suspect. It is passed on as a question that its subject answers.

Rules kept here:
- a neighbour may ask after each member `MOST` times in `PERIOD_S`, whatever the network's size: so
  no liar has anybody refute more than a few times by way of each of its links, however fast news
  travels;
- what is over that, or was asked before about the same life, is not passed on. The link stays:
  honest peers pass on what a liar said, for it was within their own limits;
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
        self._asked: dict[str, int] = {}  # after which life of a member, by whomever

    def may_bring(self, source: str, subject: str, incarnation: int, now: float) -> bool:
        """Count one question after a life of `subject` that `source` brings; False when it was
        asked before, or is one too many."""
        if now >= self._ends_at:
            self._ends_at = now + PERIOD_S
            self._brought.clear()
            self._asked.clear()
        if incarnation <= self._asked.get(subject, -1):
            return False
        counts = self._brought.setdefault(source, {})
        if len(self._brought) > KEPT:
            del self._brought[next(iter(self._brought))]
        if counts.get(subject, 0) >= MOST:
            return False
        counts[subject] = counts.get(subject, 0) + 1
        self._asked[subject] = incarnation
        return True
