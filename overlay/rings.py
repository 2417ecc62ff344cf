"""Hash rings: an order of all peers that everybody computes alike.

On ring k peers are ordered by a hash of (network, k, peer). The neighbours of a member on a ring
are the next members before and after it; a union of r such random cycles is an expander with high
probability (Law & Siu, "Distributed construction of random expander networks", INFOCOM 2003,
section 3).

Rules kept here:
- the order holds everybody ever heard of, and a question names the members that count: somebody's
  going costs nothing here, and learners and trackers are two graphs on one order;
- adding one costs O(log n) and a move of memory; a neighbour is found in O(log n) and the few
  who are gone in between;
- `fork` shares the order until one side changes it (ten thousand simulated peers hold one).
"""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Callable, Iterable

Place = tuple[bytes, str]
IsMember = Callable[[str], bool]


class Rings:
    """`count` rings of one network."""

    def __init__(self, network_id: str, count: int) -> None:
        self._network_id = network_id
        self._rings: list[list[Place]] = [[] for _ in range(count)]
        self._known: set[str] = set()
        self._shared = False

    def fork(self) -> Rings:
        """The same rings, for somebody else to change."""
        twin = Rings(self._network_id, 0)
        twin._rings, twin._known = self._rings, self._known
        twin._shared = self._shared = True
        return twin

    def add(self, peer: str) -> None:
        """Take a peer into the order (idempotent)."""
        if peer not in self._known:
            self._own()
            self._known.add(peer)
            for number, ring in enumerate(self._rings):
                bisect.insort(ring, _place(self._network_id, number, peer))

    def discard(self, peer: str) -> None:
        """Take a peer out of the order (idempotent)."""
        if peer in self._known:
            self._own()
            self._known.remove(peer)
            for number, ring in enumerate(self._rings):
                del ring[bisect.bisect_left(ring, _place(self._network_id, number, peer))]

    def order(self, is_member: IsMember) -> list[str]:
        """The members in the order of the first ring."""
        return [peer for _, peer in self._rings[0] if is_member(peer)]

    def around(self, peer: str, count: int, is_member: IsMember) -> frozenset[str]:
        """The neighbours of a peer among the members on the first `count` rings; all of the
        members where they are so few that the degree reaches everybody."""
        found = set()
        for number in range(count):
            ring = self._rings[number]
            at = bisect.bisect_left(ring, _place(self._network_id, number, peer))
            found.add(_next(ring, range(at - 1, at - len(ring), -1), is_member))
            found.add(_next(ring, range(at + 1, at + len(ring)), is_member))
        found -= {peer, ""}
        if len(found) == 2 * count and is_member(peer):
            return frozenset(found)  # were there only so many, these would be all
        few = self._few(2 * count + 1, is_member)
        return frozenset(found) if few is None else frozenset(few) - {peer}

    def is_large(self, count: int, is_member: IsMember) -> bool:
        """Whether the members are more than the degree of the first `count` rings reaches."""
        return self._few(2 * count + 1, is_member) is None

    def _few(self, limit: int, is_member: IsMember) -> list[str] | None:
        """The members if they are at most `limit`, else None."""
        few: list[str] = []
        for _, peer in self._rings[0]:
            if is_member(peer):
                few.append(peer)
                if len(few) > limit:
                    return None
        return few

    def _own(self) -> None:
        """Stop sharing before a change."""
        if self._shared:
            self._rings = [list(ring) for ring in self._rings]
            self._known = set(self._known)
            self._shared = False


def _next(ring: list[Place], path: Iterable[int], is_member: IsMember) -> str:
    """The first member on a path along a ring, '' if there is none."""
    size = len(ring)
    for index in path:
        peer = ring[index % size][1]
        if is_member(peer):
            return peer
    return ""


@functools.lru_cache(maxsize=2**16)
def _place(network_id: str, number: int, peer: str) -> Place:
    seed = f"{network_id}/{number}/{peer}".encode()
    return hashlib.blake2b(seed, digest_size=8).digest(), peer
