"""A graph of the control API (`overlay.topology`) as Graphviz text, or as a picture.

The picture takes matplotlib, which nothing else here needs: `pip install 'gossipd[plot]'`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.client import USAGE, ControlError

if TYPE_CHECKING:
    import networkx as nx

SHORT = 8
# Beyond this many members labels cover each other.
MAX_LABELS = 60
# Beyond this many the slow and even layout takes too long.
MAX_EVEN = 150
MINE, NEIGHBOUR, OTHER = "#e76f51", "#f4c56a", "#8ecae6"


def dot(answer: dict[str, Any]) -> str:
    """Graphviz text: `gossipctl topology --dot | dot -Tsvg`."""
    directed = answer["directed"]
    kind, arrow = ("digraph", "->") if directed else ("graph", "--")
    title = json.dumps(f"{answer['topology']}, round {answer['round']}")
    lines = [f"{kind} gossipd {{", f"  label={title};", "  layout=neato; overlap=false;"]
    for peer in sorted(answer["names"]):
        label = json.dumps(_label(answer, peer), ensure_ascii=False)
        lines.append(f"  {json.dumps(peer)} [label={label}];")
    for one, other, weight in answer["edges_list"]:
        edge = f"{json.dumps(one)} {arrow} {json.dumps(other)}"
        lines.append(f"  {edge} [weight={weight:.6g}, tooltip={json.dumps(f'{weight:.4g}')}];")
    return "\n".join([*lines, "}"])


def png(answer: dict[str, Any], path: Path) -> None:
    """Draw the graph into a file (PNG, or what its ending says). Raises ControlError (usage)."""
    try:
        import matplotlib
    except ImportError:
        raise ControlError(
            USAGE, "a picture takes matplotlib: pip install 'gossipd[plot]'"
        ) from None
    import networkx as nx

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    graph = _graph(answer)
    few = len(graph) <= MAX_LABELS
    figure = Figure(figsize=(8, 8) if few else (12, 12), layout="tight")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(_title(answer))
    places = _layout(graph)
    neighbours = set(answer["neighbours"])
    nx.draw_networkx(
        graph,
        places,
        ax=axes,
        with_labels=few,
        labels={peer: _label(answer, peer).replace("$", r"\$") for peer in graph},
        node_size=500 if few else 25,
        node_color=[
            MINE if peer == answer["peer"] else NEIGHBOUR if peer in neighbours else OTHER
            for peer in graph
        ],
        edge_color="#666666",
        width=[0.3 + 3 * weight for _, _, weight in graph.edges.data("weight")],
        font_size=8,
    )
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ControlError(USAGE, f"cannot write {path}: {error}") from None


def _label(answer: dict[str, Any], peer: str) -> str:
    return str(answer["names"].get(peer) or peer[:SHORT])


def _graph(answer: dict[str, Any]) -> nx.Graph:
    import networkx as nx

    graph = nx.DiGraph() if answer["directed"] else nx.Graph()
    graph.add_nodes_from(sorted(answer["names"]))
    graph.add_weighted_edges_from(answer["edges_list"])
    return graph


def _layout(graph: nx.Graph) -> dict[Any, Any]:
    import networkx as nx

    if len(graph) <= MAX_EVEN and len(graph) > 2 and nx.is_connected(nx.Graph(graph)):
        return dict(nx.kamada_kawai_layout(nx.Graph(graph), weight=None))
    return dict(nx.spring_layout(graph, seed=1, weight=None))


def _title(answer: dict[str, Any]) -> str:
    gap = answer["spectral_gap"]
    words = [f"{answer['topology']} of {answer['peers']} peers"]
    if answer["period"] > 1:
        words.append(f"round {answer['round']} of a period of {answer['period']}")
    if gap is not None:
        words.append(f"spectral gap {gap:.4f}")
    return ", ".join([*words, "this peer red, its neighbours yellow"])
