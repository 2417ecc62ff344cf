"""Who should be linked to whom: the training graph, joined with the members that do not train.

Rules kept here:
- members with a learner follow the job's topology among themselves, so a tracker in their midst
  never takes a place in the mixing graph;
- a member without a learner is attached by the rings that all members form;
- the relation is symmetric, and equal tables give equal neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay import topology
from overlay.records import Record

# Observers of a member when the graph gives it more neighbours than that (the complete graph).
MAX_OBSERVERS = 8


class Neighbourhood:
    """Both graphs, following the member table record by record."""

    def __init__(self, network_id: str, records: Iterable[Record]) -> None:
        self.name = "expander"
        self.degree = topology.DEFAULT_DEGREE
        self._learners: set[str] = set()
        self.rebuild(network_id, records)

    def rebuild(
        self, network_id: str, records: Iterable[Record], *, name: str = "", degree: int = 0
    ) -> None:
        """Start over for a network id or another training topology."""
        self.name, self.degree = name or self.name, degree or self.degree
        self._rings = topology.make("expander", network_id)
        self._training = topology.make(self.name, network_id, degree=self.degree)
        self._learners.clear()
        for record in records:
            self.place(record)

    def place(self, record: Record) -> None:
        """Put a member into the graphs, or take it out if it is not live."""
        trains = record.is_live and record.learner
        (self._rings.add if record.is_live else self._rings.remove)(record.peer_id)
        (self._training.add if trains else self._training.remove)(record.peer_id)
        (self._learners.add if trains else self._learners.discard)(record.peer_id)

    def neighbours(self, peer: str) -> frozenset[str]:
        """The members that `peer` should have a link to."""
        around = self._rings.neighbours(peer)
        if peer not in self._learners:
            return around
        return self._training.neighbours(peer) | (around - self._learners)

    def observers(self, peer: str) -> frozenset[str]:
        """The members whose evidence about `peer` counts: its neighbours, or a few of them."""
        around = self.neighbours(peer)
        return around if len(around) <= MAX_OBSERVERS else self._rings.neighbours(peer)
