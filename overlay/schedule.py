"""Who mixes with whom, round by round, on positions 0..n-1.

Rules kept here:
- a schedule is plain, immutable data; what a position is called is the caller's business;
- row i says what position i takes in: `rows[i][j] = w` adds w times j's vector, and the rest,
  1 − sum, stays on i's own. A weight of None is left to the job's rule (Metropolis or uniform);
- a schedule repeats: round r uses `rounds[r % period]`, and there is always at least one round;
- links are symmetric even where mixing is one-way: a vector needs a link whichever end wants it.

networkx is imported only where a graph is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx

Row = Mapping[int, float | None]
Rows = tuple[Row, ...]


@dataclass(frozen=True, slots=True, eq=False)  # equal to any mapping with the same items
class Everybody(Mapping[int, float | None]):
    """The row of a complete graph: all of 0..count-1 but oneself, in constant memory."""

    count: int
    position: int

    def __getitem__(self, other: int) -> None:
        if other == self.position or not 0 <= other < self.count:
            raise KeyError(other)

    def __iter__(self) -> Iterator[int]:
        yield from range(self.position)
        yield from range(self.position + 1, self.count)

    def __len__(self) -> int:
        return self.count - 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Mixing graphs on positions 0..n-1; round r uses `rounds[r % period]`."""

    rounds: tuple[Rows, ...]  # [period][n]
    _takers: Mapping[int, frozenset[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.rounds:
            raise ValueError("a schedule has at least one round, be it an empty one")
        if len({len(rows) for rows in self.rounds}) > 1:
            raise ValueError("all rounds of a schedule have the same number of positions")
        object.__setattr__(self, "_takers", _one_way_takers(self.rounds))

    @property
    def count(self) -> int:
        """n, the number of positions."""
        return len(self.rounds[0])

    @property
    def period(self) -> int:
        """After how many rounds the schedule starts over."""
        return len(self.rounds)

    @property
    def explicit(self) -> bool:
        """Whether every weight is given, so that the job's rule has nothing to decide."""
        return all(None not in row.values() for rows in self.rounds for row in rows)

    def row(self, position: int, round: int) -> Row:
        """Whom a position takes in at a round, and with which weight."""
        return self.rounds[round % self.period][position]

    def links(self, position: int) -> frozenset[int]:
        """Every position that this one takes in, or is taken in by, at any round.

        Costs O(period × degree): whoever takes in one-way is indexed once for all positions.
        """
        taken_in = (rows[position] for rows in self.rounds)
        return self._takers.get(position, frozenset()).union(*taken_in)


def mutual_rows(n: int, edges: Iterable[tuple[int, int, float | None]]) -> Rows:
    """One round on undirected edges (one end, other end, weight or None)."""
    rows: list[dict[int, float | None]] = [{} for _ in range(n)]
    for one, other, weight in edges:
        rows[one][other] = rows[other][one] = weight
    return tuple(rows)


def from_edges(n: int, edges: Iterable[tuple[int, int]]) -> Schedule:
    """The same undirected graph every round, weights by the job's rule."""
    return Schedule((mutual_rows(n, ((one, other, None) for one, other in edges)),))


def graph(schedule: Schedule, round: int, names: Sequence[Hashable]) -> nx.Graph:
    """One round as a graph on `names` (one per position), as `rows_graph` makes it."""
    if len(names) != schedule.count:
        raise ValueError(f"{len(names)} names for {schedule.count} positions; give one for each")
    rows = schedule.rounds[round % schedule.period]
    return rows_graph(
        {
            names[position]: {names[other]: weight for other, weight in row.items()}
            for position, row in enumerate(rows)
        }
    )


def rows_graph(rows: Mapping[Any, Mapping[Any, float | None]]) -> nx.Graph:
    """Who takes in whom as a graph, edge attribute `weight` where one is given.

    An nx.DiGraph when some mixing is one-way or has two different weights; its edge u → v then
    says that v takes in u: the way the vector travels.
    """
    import networkx as nx  # here, so that a daemon nobody asks does not carry it

    mutual = all(
        rows[other].get(taker, _ABSENT) == weight
        for taker, row in rows.items()
        for other, weight in row.items()
    )
    result = nx.Graph() if mutual else nx.DiGraph()
    result.add_nodes_from(rows)
    for taker, row in rows.items():
        for other, weight in row.items():
            attributes = {} if weight is None else {"weight": weight}
            result.add_edge(other, taker, **attributes)
    return result


_ABSENT = -1.0  # no weight is negative


def _one_way_takers(rounds: Iterable[Rows]) -> dict[int, frozenset[int]]:
    """Who takes in a position that does not take in them in the same round: position -> takers."""
    takers: defaultdict[int, set[int]] = defaultdict(set)
    for rows in rounds:
        for position, row in enumerate(rows):
            if isinstance(row, Everybody):  # mutual among themselves, and n² of them
                continue
            for other in row:
                if position not in rows[other]:
                    takers[other].add(position)
    return {position: frozenset(found) for position, found in takers.items()}
