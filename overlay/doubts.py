"""How much doubt without proof one neighbour may bring.

A suspicion costs whoever says it a few bytes, and everybody else a record: its subject rises above
it, and the refutation floods. One that carries the votes of two of its subject's observers is
their word, who sign it. All others may be one liar's, or the old table of a peer from beyond a cut,
which has every reason to doubt half of the members, once.

Rules kept here:
- a neighbour may doubt every member `BURST` times at once, and `RATE` times a second in the long
  run, whatever the network's size: thereby each member refutes a few times in ten minutes, and no
  liar has it refute as fast as news travels;
- what is over that is not believed and not passed on. The link stays: honest peers pass on what a
  liar said, for it was within their own limits;
- the count is kept by peer, not by link: a new link brings no new allowance.

Pure: time is an argument.
"""

from __future__ import annotations

from overlay.limits import Allowance, Limits, RateTable

# In tables' worth of members. A cut that ends is a doubt about each member beyond it, a second one
# soon after is nothing unheard of; ten minutes are the shortest time in which more make sense.
BURST, RATE = 2.0, 1 / 600
# A table that is smaller counts as one of so many: what few members can be doubted costs little.
SMALLEST = 32

DOUBT = "Doubt"
ALLOWANCES = Limits({DOUBT: Allowance(rate=RATE, burst=BURST)})


class Doubts:
    """What the neighbours may still bring."""

    def __init__(self) -> None:
        self._rates = RateTable(ALLOWANCES)

    def may_bring(self, source: str, members: int, now: float) -> bool:
        """Count one doubt that `source` brings, in a table of so many members."""
        return not self._rates.of(source).excess_of(DOUBT, 1 / max(members, SMALLEST), now)
