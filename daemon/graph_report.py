"""How a mixing graph looks to people: its weights, and what it is worth for gossip.

It is worked out in a process of its own, `python -m daemon.graph_report`, which ends with its
answer: numpy and networkx cost 25 MB, and the eigenvalues of a large graph seconds, that the daemon
has better uses for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from overlay.mixing_matrix import (
    MAX_DENSE,
    Rule,
    analyse,
    degrees,
    metropolis_row,
    mixing_matrix,
    period_gap,
    uniform_row,
)
from overlay.schedule import rows_graph

if TYPE_CHECKING:
    import networkx as nx

    from daemon.mixing_graph import Rows


def describe(rounds: list[Rows], at: int, rule: str, me: str) -> dict[str, Any]:
    """What a graph is worth for gossip, and its weights; `rounds` are the rows of one period,
    `at` the one that is looked at."""
    graph, by = rows_graph(rounds[at]), _rule(rounds[at], rule)
    weigh = _weigher(graph, by)
    around = graph.predecessors if graph.is_directed() else graph.neighbors
    mine = {peer: weigh(me, peer) for peer in around(me)} if me in graph else {}
    edges = [(u, v, weigh(v, u)) for u, v in graph.edges]
    if not graph.is_directed():
        edges = [(min(u, v), max(u, v), weight) for u, v, weight in edges]
    return {
        **asdict(analyse(graph, by)),
        "weights_by": by,
        "directed": graph.is_directed(),
        "period": len(rounds),
        "period_gap": _period_gap(rounds, rule),
        "weights": dict(sorted(mine.items())),
        "self_weight": 1.0 - sum(mine.values()) if me in graph else None,
        "edges_list": sorted(edges),
    }


def _weigher(graph: nx.Graph, by: Rule) -> Callable[[str, str], float]:
    """weigh(taker, taken): with which weight one takes in the other."""
    if by == "explicit":
        return lambda taker, taken: float(graph.edges[taken, taker]["weight"])
    takes, is_taken = degrees(graph)
    rule = metropolis_row if by == "metropolis" else uniform_row
    return lambda taker, taken: rule(takes[taker], {taken: is_taken[taken]})[taken]


def _period_gap(rounds: list[Rows], rule: str) -> float | None:
    if len(rounds) == 1 or len(rounds[0]) > MAX_DENSE or not rounds[0]:
        return None
    return period_gap([mixing_matrix(rows_graph(rows), _rule(rows, rule)) for rows in rounds])


def _rule(rows: Rows, rule: str) -> Rule:
    """The topology's own weights where it has some, otherwise the job's rule."""
    explicit = any(weight is not None for row in rows.values() for weight in row.values())
    return "explicit" if explicit else "uniform" if rule == "uniform" else "metropolis"


if __name__ == "__main__":
    json.dump(describe(*json.load(sys.stdin)), sys.stdout)
