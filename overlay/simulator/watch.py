"""A simulated network under observation: who learned what when, and what shape it is in.

Rules kept here:
- a death is false if the member runs, its own event loop is not held up, and whoever says so could
  reach it; each life of a member counts once, however many repeat it, and however late: a peer that
  stood still hears only then of a death that has been refuted since;
- the network is whole when the links that both ends hold join all who run into one component, and
  everybody has a link to each neighbour that the graph of just those who run gives it.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from overlay.effects import Report
from overlay.neighbourhood import MEMBERSHIP_RINGS
from overlay.rings import Rings
from overlay.simulator.network import SimulatedNetwork
from overlay.simulator.process import SimulatedPeer
from overlay.wire import LinkMessage

if TYPE_CHECKING:
    import networkx as nx


class Watched(SimulatedNetwork):
    """Counts what its machines report."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # By subject: when each of the others learned of its death.
        self.learned: dict[str, array[float]] = {}
        self.survivors: set[str] = set()  # who counts for that
        self.deaths_said: array[float] = array("d")
        self.excused: set[str] = set()  # whose event loop is held up, or line cut, of late
        self.false_deaths: set[tuple[str, int]] = set()
        self.true_deaths: set[tuple[str, int]] = set()
        self.kinds: dict[str, int] = {}
        self.traffic: dict[str, int] = {}

    def seen(self, peer: SimulatedPeer, report: Report) -> None:
        kind = report.kind
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind != "member.dead":
            return
        subject = report.data["peer"]
        learned = self.learned.get(subject)
        if learned is not None:
            if peer.id in self.survivors:
                learned.append(self.now)
            return
        self.deaths_said.append(self.now)
        other = self.peer(subject)
        if other.running:
            fate = peer.machine.table.fate(subject)
            lives = other.machine.table.me.incarnation
            said = lives if fate is None else fate.incarnation
            life = (subject, said)
            could = other.is_up and subject not in self.excused
            reached = not self.is_cut(peer.id, subject) and peer.id not in self.cut_ids()
            if not (could and reached):
                self.true_deaths.add(life)
            elif said == lives or life not in self.true_deaths:
                self.false_deaths.add(life)

    def sent(self, peer: SimulatedPeer, message: LinkMessage) -> None:
        kind = type(message).__name__
        self.traffic[kind] = self.traffic.get(kind, 0) + 1

    def links(self, members: Iterable[SimulatedPeer] | None = None) -> nx.Graph:
        """The links that both ends hold, between those who run (or `members`)."""
        import networkx as nx

        chosen = {peer.id: peer for peer in (self.up() if members is None else members)}
        graph = nx.Graph()
        graph.add_nodes_from(chosen)
        graph.add_edges_from(
            (peer.id, other)
            for peer in chosen.values()
            for other, connection in peer.connections.items()
            if other in chosen and chosen[other].connections.get(peer.id) is connection
        )
        return graph

    def neighbours_of_all(self, members: Iterable[SimulatedPeer]) -> dict[str, frozenset[str]]:
        """Whom the graph of just these members would link with whom."""
        rings = Rings(self.network_id, MEMBERSHIP_RINGS)
        ids = [peer.id for peer in members]
        for peer in ids:
            rings.add(peer)
        return {peer: rings.around(peer, MEMBERSHIP_RINGS, lambda other: True) for peer in ids}

    def is_whole(self, wanted: dict[str, frozenset[str]]) -> tuple[bool, bool]:
        """(one component, every wanted link) among the members of `wanted`."""
        import networkx as nx

        members = [self.peer(peer) for peer in wanted]
        full = all(
            peer.connections.keys() >= wanted[peer.id]
            and all(
                self.peer(o).connections.get(peer.id) is peer.connections[o]
                for o in wanted[peer.id]
            )
            for peer in members
        )
        # A full graph of rings is one component; anything less is looked at.
        return full or nx.is_connected(self.links(members)), full


def spread(times: Iterable[float], since: float) -> dict[str, float | None]:
    """First, median and last of some times, in seconds after `since`; None without any."""
    after = sorted(at - since for at in times)
    if not after:
        return {"first": None, "median": None, "last": None}
    return {"first": after[0], "median": statistics.median(after), "last": after[-1]}
