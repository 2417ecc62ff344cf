"""Who is to be linked to whom, who observes whom, and who mixes with whom.

Rules kept here:
- every live member has links to its neighbours on the three membership rings. They carry the news
  and observe each other, whatever the job's topology is: a star without its hub, or a static graph
  in pieces, is still one overlay;
- members with a learner follow the job's topology among themselves and have links for it too; a
  tracker in their midst never takes a place in the mixing graph;
- both relations are symmetric, and equal tables give equal neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.membership import Change, Membership
from overlay.records import State
from overlay.rings import Rings
from overlay.topology import Choice, Row, Topology, make

# Degree 6: spectral gap 0.22 at 1,000 peers, and a quorum of three observers with three to spare.
MEMBERSHIP_RINGS = 3


class Neighbourhood:
    """Both graphs over one member table, which tells of each change by `follow`."""

    def __init__(self, network_id: str, table: Membership, *, rings: Rings | None = None) -> None:
        """`rings`: an order of the table's peers that exists already."""
        self._table = table
        self._network_id = network_id
        self.choice = Choice()
        self._rings = rings or self._order(network_id)
        self._training = self._make_topology()
        self._wanted: frozenset[str] | None = None
        self._watched: frozenset[str] | None = None

    def rebuild(self, network_id: str, choice: Choice) -> None:
        """Start over for a network id or another training topology."""
        self._network_id, self.choice = network_id, choice
        self._rings = self._order(network_id)
        self._training = self._make_topology()
        self._wanted = self._watched = None

    def follow(self, changes: Sequence[Change]) -> None:
        """Members came, went, or say something new of themselves."""
        moved = [c for c in changes if c.state is not State.SUSPECT or c.before is not State.ALIVE]
        if not moved or self._is_unaffected_by(moved):
            return
        for change in moved:
            self._rings.add(change.record.peer_id)
        self._training.touch()
        self._wanted = self._watched = None

    def forget(self, peer: str) -> None:
        """A member is not even remembered any more."""
        self._rings.discard(peer)

    @property
    def wanted(self) -> frozenset[str]:
        """The members that this peer should have a link to."""
        if self._wanted is None:
            me = self._table.my_id
            self._wanted = self.watched | self._training.links(me)
        return self._wanted

    @property
    def watched(self) -> frozenset[str]:
        """The members that this peer observes, and that observe it."""
        if self._watched is None:
            self._watched = self.observers(self._table.my_id)
        return self._watched

    def observers(self, peer: str) -> frozenset[str]:
        """The members whose evidence about `peer` counts: its neighbours on the rings."""
        if not self._table.is_live(peer):
            return frozenset()
        return self._rings.around(peer, MEMBERSHIP_RINGS, self._table.is_live)

    def mixing(self, peer: str, number: int) -> Row:
        """Whom a learner mixes in in round `number`; empty for everybody else."""
        return self._training.row(peer, number)

    @property
    def me(self) -> str:
        """This peer's id."""
        return self._table.my_id

    def members(self) -> list[str]:
        """The live members, in the order of the rings."""
        return self._rings.order(self._table.is_live)

    def learners(self) -> list[str]:
        """The members of the mixing graph, in the order of the rings."""
        return self._rings.order(self._trains)

    @property
    def rings(self) -> Rings:
        """The order of all peers."""
        return self._rings

    @property
    def topology(self) -> Topology:
        """The mixing graph."""
        return self._training

    def _order(self, network_id: str) -> Rings:
        rings = Rings(network_id, max(MEMBERSHIP_RINGS, self.choice.rings))
        for record in self._table.records():
            rings.add(record.peer_id)
        return rings

    def _make_topology(self) -> Topology:
        return make(self.choice, self._rings, self._trains, self._table.get, seed=self._network_id)

    def _is_unaffected_by(self, changes: Sequence[Change]) -> bool:
        """Whether all that happened is that others went who are no neighbours: those are found
        locally (but in the full mesh of a few, and by topologies that number their members)."""
        wanted = self._wanted
        return (
            wanted is not None
            and self._training.is_local
            and self._table.live_count > 2 * MEMBERSHIP_RINGS + 1
            and wanted.isdisjoint([change.record.peer_id for change in changes])
            and all(change.vanished for change in changes)
        )

    def _trains(self, peer: str) -> bool:
        record = self._table.live_record(peer)
        return record is not None and record.learner
