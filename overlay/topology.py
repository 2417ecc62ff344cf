"""Neighbour graphs, computed by every peer from its own member table.

Rules kept here:
- a graph is a function of the network id and the set of members, of nothing else: peers with equal
  tables compute equal graphs, and the relation is symmetric;
- adding or removing one member touches O(degree) edges and costs O(log n).

`expander` is the union of r random Hamiltonian cycles (r = degree / 2): on ring k the members are
ordered by a hash of (network, k, peer). Such a union is an expander with high probability
(Law & Siu, "Distributed construction of random expander networks", INFOCOM 2003, section 3).
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_DEGREE = 6
NAMES = ("expander", "complete", "ring")


class Topology(Protocol):
    """A neighbour graph that follows the member table."""

    def add(self, peer: str) -> None:
        """Take in a member (idempotent)."""

    def remove(self, peer: str) -> None:
        """Take out a member (idempotent)."""

    def neighbours(self, peer: str) -> frozenset[str]:
        """The neighbours of a member; empty for a stranger."""


class Rings:
    """`count` hash rings; neighbours are predecessor and successor on each."""

    def __init__(self, network_id: str, count: int) -> None:
        self._seeds = [f"{network_id}/{k}/".encode() for k in range(count)]
        self._rings: list[list[tuple[bytes, str]]] = [[] for _ in range(count)]
        self._members: set[str] = set()

    def add(self, peer: str) -> None:
        if peer not in self._members:
            self._members.add(peer)
            for seed, ring in zip(self._seeds, self._rings, strict=True):
                bisect.insort(ring, (_place(seed, peer), peer))

    def remove(self, peer: str) -> None:
        if peer in self._members:
            self._members.remove(peer)
            for seed, ring in zip(self._seeds, self._rings, strict=True):
                del ring[bisect.bisect_left(ring, (_place(seed, peer), peer))]

    def neighbours(self, peer: str) -> frozenset[str]:
        if peer not in self._members:
            return frozenset()
        if len(self._members) <= 2 * len(self._rings) + 1:
            # So few that the degree reaches everybody: the full mesh.
            return frozenset(self._members - {peer})
        found = set()
        for seed, ring in zip(self._seeds, self._rings, strict=True):
            at = bisect.bisect_left(ring, (_place(seed, peer), peer))
            found |= {ring[at - 1][1], ring[(at + 1) % len(ring)][1]}
        return frozenset(found - {peer})


class Complete:
    """Everybody is everybody's neighbour."""

    def __init__(self) -> None:
        self._members: set[str] = set()

    def add(self, peer: str) -> None:
        self._members.add(peer)

    def remove(self, peer: str) -> None:
        self._members.discard(peer)

    def neighbours(self, peer: str) -> frozenset[str]:
        return frozenset(self._members - {peer}) if peer in self._members else frozenset()


def make(name: str, network_id: str, *, degree: int = DEFAULT_DEGREE) -> Topology:
    """An empty topology by name. `degree` (even) counts for `expander` only.

    Raises ValueError for a name that is not in NAMES.
    """
    match name:
        case "expander":
            return Rings(network_id, max(1, degree // 2))
        case "ring":
            return Rings(network_id, 1)
        case "complete":
            return Complete()
    raise ValueError(f"unknown topology {name!r}; known: {', '.join(NAMES)}")


def graph(neighbours: Callable[[str], frozenset[str]], members: Iterable[str]) -> nx.Graph:
    """The whole graph as this peer computes it."""
    import networkx as nx  # here, so that a daemon nobody asks does not carry it

    result = nx.Graph()
    for peer in members:
        result.add_node(peer)
        result.add_edges_from((peer, other) for other in neighbours(peer))
    return result


def _place(seed: bytes, peer: str) -> bytes:
    return hashlib.blake2b(seed + peer.encode(), digest_size=8).digest()
