"""Between the job's mixing graph and the overlay's: what a job asks for, and whom a round mixes.

Rounds of a run are numbered from 1; the graphs of a period from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from learner.edges import parse_edge
from learner.job import Gossip
from overlay.mixing_matrix import metropolis_row, uniform_row
from overlay.neighbourhood import Neighbourhood
from overlay.topology import Choice, NamedEdge, Row

Rows = Mapping[str, Row]


def topology_of(gossip: Gossip) -> Choice:
    """The overlay's words for a job's mixing graph."""
    edges = (parse_edge(text) for text in gossip.edges)
    return Choice(
        gossip.topology,
        gossip.degree,
        gossip.probability,
        tuple(NamedEdge(e.one, e.other, e.weight, e.one_way) for e in edges),
    )


def whom_and_by_whom(graph: Neighbourhood, number: int) -> tuple[Row, frozenset[str]]:
    """This peer's row of round `number`, and the members whose rows hold this peer."""
    me, step = graph.me, number - 1
    linked = graph.topology.links(me)
    takers = frozenset(peer for peer in linked if me in graph.mixing(peer, step))
    return graph.mixing(me, step), takers


def rows_of(graph: Neighbourhood, which: str, number: int) -> Rows:
    """Every row of a graph as this peer computes it: `mixing` (of round `number`, among the
    learners) or `overlay` (the links that carry the membership, among all live members)."""
    if which == "overlay":
        return {peer: dict.fromkeys(sorted(graph.observers(peer))) for peer in graph.members()}
    return {peer: graph.mixing(peer, number - 1) for peer in graph.learners()}


def weighed(rows: Rows, rule: str) -> list[dict[int, float]]:
    """Rows with every weight, by the peers' places in `rows`."""
    places = {peer: place for place, peer in enumerate(rows)}
    taken = Counter(other for row in rows.values() for other in row)
    by_rule = uniform_row if rule == "uniform" else metropolis_row
    found = []
    for row in rows.values():
        ruled = by_rule(len(row), {other: taken[other] for other in row})
        found.append(
            {places[o]: ruled[o] if weight is None else weight for o, weight in row.items()}
        )
    return found
