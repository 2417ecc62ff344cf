"""Mixing graphs, computed by every peer from its own member table.

Rules kept here:
- a graph is a function of the network id and the set of members, of nothing else: peers with equal
  tables compute equal graphs, and the relation "has a link to" is symmetric;
- a graph that changes from round to round keeps links to every peer of its period.

`expander` is a union of hash rings (`rings`): one member more or less touches two edges a ring.
All others (`graphs`, `base_k`) number the members in the order of the first ring and are built anew
when somebody comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from overlay import graphs
from overlay.base_k import base_k
from overlay.graphs import SUM_TOLERANCE
from overlay.records import Record
from overlay.rings import IsMember, Rings
from overlay.schedule import Schedule, from_edges
from overlay.schedule import graph as schedule_graph

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_DEGREE = 6

# Whom a peer mixes in, with the weight that the topology gives, None where the job's rule decides.
Row = Mapping[str, float | None]
NOBODY: Row = {}


@dataclass(frozen=True, slots=True)
class NamedEdge:
    """An edge of an explicit graph between two members, by peer id or by name; one-way, only
    `other` takes in the vectors of `one`."""

    one: str
    other: str
    weight: float | None = None
    one_way: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A topology by name, with what it takes.

    `degree`: neighbours a peer in `expander` (even) and `random-regular`, partners a round at the
    most in `base-k`, rounds of the period in `random-matching`. `probability`: of each edge in
    `erdos-renyi`. `edges`: those of `static`.
    """

    name: str = "expander"
    degree: int = DEFAULT_DEGREE
    probability: float = 0.5
    edges: tuple[NamedEdge, ...] = ()

    @property
    def rings(self) -> int:
        """How many hash rings it needs."""
        return max(1, self.degree // 2) if self.name == "expander" else 1


class Topology(Protocol):
    """A mixing graph that follows the member table."""

    @property
    def is_local(self) -> bool:
        """Whether somebody's coming or going changes the links of their neighbours only."""

    def touch(self) -> None:
        """The members have changed."""

    def links(self, peer: str) -> frozenset[str]:
        """The members a member needs a link to; empty for a stranger."""

    def row(self, peer: str, number: int) -> Row:
        """Whom a member mixes in in round `number`; empty for a stranger."""

    @property
    def period(self) -> int:
        """After how many rounds the graphs repeat."""


class Expander:
    """The union of the first rings."""

    period = 1

    def __init__(self, rings: Rings, count: int, is_member: IsMember) -> None:
        self._rings = rings
        self._count = count
        self._is_member = is_member

    @property
    def is_local(self) -> bool:
        return self._rings.is_large(self._count, self._is_member)

    def touch(self) -> None:
        pass

    def links(self, peer: str) -> frozenset[str]:
        if not self._is_member(peer):
            return frozenset()
        return self._rings.around(peer, self._count, self._is_member)

    def row(self, peer: str, number: int) -> Row:
        return dict.fromkeys(sorted(self.links(peer)))


class Scheduled:
    """Any schedule on the members in the order of the first ring."""

    is_local = False

    def __init__(
        self, rings: Rings, is_member: IsMember, make_schedule: Callable[[Sequence[str]], Schedule]
    ) -> None:
        self._rings = rings
        self._is_member = is_member
        self._make_schedule = make_schedule
        self._built: tuple[list[str], dict[str, int], Schedule] | None = None

    @property
    def period(self) -> int:
        return self._now()[2].period

    @property
    def schedule(self) -> Schedule:
        """The graphs on the members of now, as positions in the order of the first ring."""
        return self._now()[2]

    def touch(self) -> None:
        self._built = None

    def links(self, peer: str) -> frozenset[str]:
        members, places, schedule = self._now()
        if peer not in places:
            return frozenset()
        return frozenset(members[other] for other in schedule.links(places[peer]))

    def row(self, peer: str, number: int) -> Row:
        members, places, schedule = self._now()
        if peer not in places:
            return NOBODY
        row = schedule.row(places[peer], number)
        return {members[other]: weight for other, weight in row.items()}

    def _now(self) -> tuple[list[str], dict[str, int], Schedule]:
        if self._built is None:
            members = self._rings.order(self._is_member)
            places = {peer: place for place, peer in enumerate(members)}
            self._built = members, places, self._make_schedule(members)
        return self._built


def make(
    choice: Choice,
    rings: Rings,
    is_member: IsMember,
    record_of: Callable[[str], Record | None],
    *,
    seed: str,
) -> Topology:
    """A topology over the members of `rings`; `seed` is the network id. Raises ValueError for a
    name that is not in NAMES."""
    if choice.name == "expander":
        return Expander(rings, choice.rings, is_member)
    if choice.name == "static":
        return Scheduled(rings, is_member, lambda members: _static(choice, members, record_of))
    if choice.name not in BY_COUNT:
        raise ValueError(f"unknown topology {choice.name!r}; known: {', '.join(NAMES)}")
    by_count = BY_COUNT[choice.name]
    return Scheduled(rings, is_member, lambda members: by_count(len(members), choice, seed))


BY_COUNT: dict[str, Callable[[int, Choice, str], Schedule]] = {
    "complete": lambda n, choice, seed: graphs.complete(n),
    "ring": lambda n, choice, seed: graphs.ring(n),
    "star": lambda n, choice, seed: graphs.star(n),
    "torus": lambda n, choice, seed: graphs.torus(n),
    "random-regular": lambda n, choice, seed: graphs.random_regular(
        n, max(1, min(choice.degree, n - 1)), seed
    ),
    "erdos-renyi": lambda n, choice, seed: graphs.erdos_renyi(n, choice.probability, seed),
    "exponential": lambda n, choice, seed: graphs.exponential(n),
    "one-peer-exponential": lambda n, choice, seed: graphs.one_peer_exponential(n),
    "base-k": lambda n, choice, seed: base_k(n, max(1, min(choice.degree, n - 1))),
    "random-matching": lambda n, choice, seed: graphs.random_matching(n, choice.degree, seed),
}
NAMES = ("expander", *BY_COUNT, "static")


def graph(choice: Choice, count: int, number: int, *, seed: str = "") -> nx.Graph:
    """The mixing graph of round `number` on `count` members 0..n-1, as an experiment uses it; edge
    attribute `weight` where the topology gives weights (see `schedule.graph`).

    `expander` places them as a network of id `seed` would place members of these numbers. Raises
    ValueError for an unknown name, and for `static`, whose members have names.
    """
    if choice.name in BY_COUNT:
        made = BY_COUNT[choice.name](count, choice, seed)
        return schedule_graph(made, number, range(count))
    if choice.name != "expander":
        raise ValueError(f"there is no {choice.name!r} graph of {count} members")
    rings = Rings(seed, choice.rings)
    for member in range(count):
        rings.add(str(member))
    expander = Expander(rings, choice.rings, lambda peer: True)
    edges = [(m, int(other)) for m in range(count) for other in expander.links(str(m))]
    return schedule_graph(from_edges(count, edges), 0, range(count))


def _static(
    choice: Choice, members: Sequence[str], record_of: Callable[[str], Record | None]
) -> Schedule:
    """The explicit graph among the members that are there."""
    places = {peer: place for place, peer in enumerate(members)}
    for peer in members:
        record = record_of(peer)
        if record is not None:
            places.setdefault(record.name, places[peer])
    edges: list[tuple[int, int, float | None, bool]] = []
    totals: dict[int, float] = {}
    known: set[tuple[int, int]] = set()
    for edge in choice.edges:
        if edge.one not in places or edge.other not in places:
            continue
        one, other = places[edge.one], places[edge.other]
        takes = [(other, one)] if edge.one_way else [(other, one), (one, other)]
        weight = edge.weight or 0.0
        # Names are the members' own word: two may share one, and somebody may be called another's
        # id. What such names make impossible is left out.
        fits = all(totals.get(taker, 0.0) + weight <= 1 + SUM_TOLERANCE for taker, _ in takes)
        if one == other or not fits or not known.isdisjoint(takes):
            continue
        known.update(takes)
        for taker, _ in takes:
            totals[taker] = totals.get(taker, 0.0) + weight
        edges.append((one, other, edge.weight, edge.one_way))
    return graphs.static(len(members), edges)
