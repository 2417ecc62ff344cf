"""Who founds the network when everybody was told to join somebody.

Peers that start together with each other's addresses, as one configuration for all makes them, find
only others that are still joining. They agree on the lowest id among them to found the network.

Rules kept here:
- a peer founds only as the lowest id that it heard of for a while, and while it meets others: one
  that reaches nobody goes on looking;
- the lowest id is believed as long as its owner was heard of lately, at whatever remove: what is
  passed on ages, and an echo never makes it young;
- while a seed of anybody among them does not answer, nobody founds: the network that they were sent
  to may be behind it, and two networks never become one. Whoever misses a seed says so; the others
  pass on how much longer to hold, a little less each time, so that it ends with its cause.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from overlay.identity import is_id

MAX_SAID_S = 3600.0
# A word passed on counts as that much older, in shares of the waiting time: more than it takes on
# the way, or two peers would keep it young between them.
HOP_SHARE = 1 / 10
# A lowest id that was not heard of for so many waiting times has gone.
GONE_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class Candidacy:
    """What peers without a network tell each other: the lowest id they know of among themselves,
    how long ago its owner spoke, and for how long nobody may found."""

    lowest: str
    age_s: float
    hold_s: float

    def __post_init__(self) -> None:
        if not is_id(self.lowest):
            raise ValueError("peer id of the wrong form")
        if not (0 <= self.age_s <= MAX_SAID_S and 0 <= self.hold_s <= MAX_SAID_S):
            raise ValueError("time out of range")


class Founding:
    """What one peer without a network knows of the others."""

    def __init__(self, my_id: str, wait_s: float) -> None:
        self._my_id = my_id
        self._wait_s = wait_s
        self._lowest = my_id
        self._spoke_at = math.inf  # when the owner of the lowest id spoke last
        self._since = math.inf  # when somebody was first met, or the lowest id last changed
        self._met_at = -math.inf
        self._hold_until = -math.inf
        self._missing: set[str] = set()

    def says(self, now: float) -> Candidacy:
        """What this peer tells others."""
        self._outlive(now)
        if self._missing:
            self._hold_until = now + self._wait_s
        age = 0.0 if self._lowest == self._my_id else now - self._spoke_at
        hold = max(0.0, self._hold_until - now)
        return Candidacy(self._lowest, min(MAX_SAID_S, max(0.0, age)), min(MAX_SAID_S, hold))

    def meet(self, candidacy: Candidacy, now: float) -> None:
        """Another peer without a network said this."""
        self._outlive(now)
        hop_s = HOP_SHARE * self._wait_s
        self._met_at, self._since = now, min(self._since, now)
        self._hold_until = max(self._hold_until, now + candidacy.hold_s - hop_s)
        spoke_at = now - candidacy.age_s - hop_s
        if now - spoke_at > GONE_AFTER * self._wait_s:
            return
        if candidacy.lowest < self._lowest:
            self._lowest, self._spoke_at, self._since = candidacy.lowest, spoke_at, now
        elif candidacy.lowest == self._lowest:
            self._spoke_at = max(self._spoke_at, spoke_at)

    def missed(self, seed: str) -> None:
        """A seed did not answer."""
        self._missing.add(seed)

    def reached(self, seed: str) -> None:
        """A seed answered."""
        self._missing.discard(seed)

    @property
    def follows(self) -> bool:
        """Whether this peer takes over the network of somebody who dials it: others like it were
        met, and no seed is missing behind which its own network may be."""
        return self._since < math.inf and not self._missing

    def due_at(self) -> float:
        """When this peer founds, or gives up on a lower one that has gone; infinity if neither."""
        if self._lowest != self._my_id:
            return self._spoke_at + GONE_AFTER * self._wait_s
        if self._missing or self._since == math.inf:
            return math.inf
        at = max(self._since + self._wait_s, self._hold_until)
        return at if at <= self._met_at + GONE_AFTER * self._wait_s else math.inf

    def take(self, now: float) -> bool:
        """Whether to found a network now."""
        self._outlive(now)
        return self._lowest == self._my_id and now >= self.due_at()

    def _outlive(self, now: float) -> None:
        """Give up on a lowest id that was not heard of for long."""
        if self._lowest != self._my_id and now >= self.due_at():
            self._lowest, self._spoke_at, self._since = self._my_id, math.inf, now
