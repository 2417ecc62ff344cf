"""Mixing weights and what a graph is worth for gossip: spectral gap, diameter, connectivity.

networkx and numpy are imported where they are used: a daemon that nobody asks for an analysis does
not pay for them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx
    import numpy as np

# Dense eigenvalues take n³ time; beyond this many members the gap is left out.
MAX_DENSE = 1500


@dataclass(frozen=True, slots=True)
class Analysis:
    """A graph in numbers; `spectral_gap` is 1 − |λ₂| of the Metropolis matrix, None when n is too
    large for dense eigenvalues, and `diameter` None when the graph is not connected."""

    peers: int
    edges: int
    degree_min: int
    degree_max: int
    connected: bool
    diameter: int | None
    spectral_gap: float | None


def metropolis_row(own_degree: int, degrees: Mapping[str, int]) -> dict[str, float]:
    """Weights of the neighbours: 1 / (1 + max(own degree, theirs)); the rest stays on oneself.

    Symmetric and doubly stochastic (Xiao, Boyd & Lall, "Distributed average consensus with
    time-varying Metropolis weights", 2006, equation 2).
    """
    return {peer: 1.0 / (1 + max(own_degree, degree)) for peer, degree in degrees.items()}


def uniform_row(own_degree: int, degrees: Mapping[str, int]) -> dict[str, float]:
    """Weights 1 / (1 + own degree) each: rows sum to 1, columns only on regular graphs."""
    return {peer: 1.0 / (1 + own_degree) for peer in degrees}


def metropolis_matrix(graph: nx.Graph) -> np.ndarray[Any, Any]:
    """W, float64 [n, n], rows and columns in the order of `graph.nodes`."""
    import numpy as np

    order = {node: index for index, node in enumerate(graph.nodes)}
    matrix = np.zeros((len(order), len(order)))
    for node, row in order.items():
        degrees = {other: graph.degree(other) for other in graph.neighbors(node)}
        for other, weight in metropolis_row(graph.degree(node), degrees).items():
            matrix[row, order[other]] = weight
        matrix[row, row] = 1.0 - matrix[row].sum()
    return matrix


def spectral_gap(matrix: np.ndarray[Any, Any]) -> float:
    """1 − |λ₂| of a symmetric mixing matrix: 1 agrees in one round, 0 never."""
    import numpy as np

    if len(matrix) < 2:
        return 1.0
    values = np.sort(np.abs(np.linalg.eigvalsh(matrix)))
    return float(1.0 - values[-2])


def analyse(graph: nx.Graph) -> Analysis:
    """Every figure of one graph."""
    import networkx as nx

    degrees = [degree for _, degree in graph.degree]
    connected = len(graph) > 0 and nx.is_connected(graph)
    dense = 0 < len(graph) <= MAX_DENSE
    return Analysis(
        peers=len(graph),
        edges=graph.number_of_edges(),
        degree_min=min(degrees, default=0),
        degree_max=max(degrees, default=0),
        connected=connected,
        diameter=nx.diameter(graph) if connected and len(graph) <= MAX_DENSE else None,
        spectral_gap=spectral_gap(metropolis_matrix(graph)) if dense else None,
    )
