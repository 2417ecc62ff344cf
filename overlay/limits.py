"""How much one neighbour may say: token buckets by peer and kind of message, with their settings.

Rules kept here:
- an honest peer never comes near a limit: every rate is a multiple of the most that one sends, and
  every burst is what one may have sent while nobody listened here;
- who floods ten thousand messages a second is over the limit within half a second;
- the count is kept by peer, not by link: a new link brings no new allowance.

Pure: time is an argument.

Source: the token bucket of RFC 2697, section 3, with one colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# What the limits of a data link call a message that belongs to no transfer under way.
STRAY = "Stray"
CONTROL_BYTES = "bytes"

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Allowance:
    """`rate` a second in the long run, and `burst` at once."""

    rate: float
    burst: float


# The longest time that a link outlives without a word is silence_longest_s, 8.5 s with the profile
# `wan`: a peer that was stopped for so long finds what came meanwhile all at once.
UNHEARD_S = 10
# The most rounds a second that are expected of an honest peer: 40 were measured with tiny models
# (14,500 in 6 minutes), and one takes 5 ms between two processes even if nothing is computed.
ROUNDS = 200
# 2 notes a round (Announce, Paired) and 2 wants (what is lent, what is owed), and 2.5 for the
# unforeseen. Each want that is declined, or given up, leaves one message behind that is a stray.
ROUND_ALLOWANCE = Allowance(rate=2.5 * 2 * ROUNDS, burst=2 * ROUNDS * UNHEARD_S)

DEFAULT_ALLOWANCES: Mapping[str, Allowance] = MappingProxyType(
    {
        # 1 or 2 a second, and one more a flush (20 a second) while somebody is doubted; twice that.
        "Heartbeat": Allowance(rate=50, burst=22 * UNHEARD_S),
        # 20 flushes a second, of up to 4 pages in the long run, twice that and some. At once: half
        # of 10,000 peers die, each with a dozen testimonies and two fates: 550 pages; or all of
        # them say something new of themselves in records of the largest kind: 710 pages. Both, and
        # half as much again.
        "News": Allowance(rate=200, burst=2000),
        # One a trip (0.1 s); twice that. Each may cost this peer its whole table.
        "SyncRequest": Allowance(rate=20, burst=10 * UNHEARD_S),
        # 79 pages are a table of 10,000 members with one address each, 710 one with the largest
        # records. Tables that stay different are asked for again, so five of the latter at once.
        "SyncPage": Allowance(rate=400, burst=4000),
        "Note": ROUND_ALLOWANCE,
        # On the data link.
        "Want": ROUND_ALLOWANCE,
        STRAY: ROUND_ALLOWANCE,
        # Of all control messages: a table of 10,000 measures 1.3 MB (20 MB at the field limits),
        # notes of 30 peers that are all neighbours 0.4 MB a second at the most rounds expected.
        CONTROL_BYTES: Allowance(rate=8 * MIB, burst=64 * MIB),
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What others may cost this peer.

    `allowances`: by the name of a message's kind; a kind without one is not counted.
    `peers`: so many peers' counts are kept, the longest unused is dropped first. 1 KiB each.
    """

    allowances: Mapping[str, Allowance] = field(default_factory=lambda: DEFAULT_ALLOWANCES)
    peers: int = 1024


class TokenBucket:
    """Allows `rate` a second and `burst` at once; full at first."""

    __slots__ = ("_at", "_tokens", "allowance")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._tokens = allowance.burst
        self._at: float | None = None

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if it is there; nothing is taken otherwise."""
        allowance = self.allowance
        if self._at is None or now > self._at:
            elapsed = 0.0 if self._at is None else now - self._at
            self._tokens = min(allowance.burst, self._tokens + elapsed * allowance.rate)
            self._at = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True


class PeerRates:
    """What one peer may still say."""

    __slots__ = ("_buckets",)

    def __init__(self, allowances: Mapping[str, Allowance] = DEFAULT_ALLOWANCES) -> None:
        self._buckets = {kind: TokenBucket(allowed) for kind, allowed in allowances.items()}

    def excess(self, kind: str, size_bytes: int, now: float) -> str:
        """Count a control message; which limit it breaks, in words, or ''."""
        return self.excess_of(kind, 1, now) or self.excess_of(CONTROL_BYTES, size_bytes, now)

    def excess_of(self, kind: str, amount: int, now: float) -> str:
        """Count so many of one kind; which limit they break, in words, or ''."""
        bucket = self._buckets.get(kind)
        if bucket is None or bucket.take(amount, now):
            return ""
        return f"more than {bucket.allowance.rate:.0f} {kind} a second"


class RateTable:
    """The rates of every peer that was linked of late."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rates: dict[str, PeerRates] = {}

    def of(self, peer: str) -> PeerRates:
        """The peer's rates, those of its earlier links if they are still kept."""
        rates = self._rates.pop(peer, None) or PeerRates(self._limits.allowances)
        self._rates[peer] = rates  # the last one is the one used last
        if len(self._rates) > self._limits.peers:
            del self._rates[next(iter(self._rates))]
        return rates

    def __len__(self) -> int:
        return len(self._rates)
