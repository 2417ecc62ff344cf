"""What a member table is compared by: 64 bits for each of its parts, and for all of it.

Rules kept here:
- equal sets of words have equal digests, in whatever order they came and went (exclusive or of
  their hashes);
- a peer is compared in the part that its id names, so that a repair sends what differs and not
  everything (anti-entropy: Demers et al., PODC 1987, section 1.3).

A digest tells honest tables apart. Who wants to find words that cancel out can.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

# 64 digests are 0.6 KB, and at 10,000 members one difference costs the 160 records of its part.
BUCKETS = 64
_PLACE_OF = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")}


class Digests:
    """Of live members in the life that they live, and of those who are revoked."""

    def __init__(self, parts: Sequence[int] = (0,) * BUCKETS, whole: int = 0) -> None:
        self._parts = list(parts)
        self.whole = whole

    def fork(self) -> Digests:
        """The same, to go its own way."""
        return Digests(self._parts, self.whole)

    @property
    def parts(self) -> tuple[int, ...]:
        """The digest of each of the BUCKETS parts."""
        return tuple(self._parts)

    def toggle(self, peer: str, incarnation: int) -> None:
        """A live member comes, or goes."""
        part, fingerprint = _fingerprint(peer, incarnation)
        self._parts[part] ^= fingerprint
        self.whole ^= fingerprint

    def toggle_revoked(self, peer: str, weight: int) -> None:
        """A revoked one does, by a word of some weight (`revocation`): who holds a lighter word of
        it shall hear the other."""
        fingerprint = _hash(f"revoked/{weight}/{peer}")
        self._parts[part_of(peer)] ^= fingerprint
        self.whole ^= fingerprint


def part_of(peer: str) -> int:
    """Six bits of the id: the part of the table in which it is compared."""
    return 2 * _PLACE_OF[peer[0]] + _PLACE_OF[peer[1]] % 2


@functools.lru_cache(maxsize=2**15)
def _fingerprint(peer: str, incarnation: int) -> tuple[int, int]:
    return part_of(peer), _hash(f"{peer}/{incarnation}")


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
