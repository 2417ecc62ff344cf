"""Overlay machines joined without I/O: processes that dial each other, and accidents.

What a link carries, and when it is there, is for `wires` and `timeline`.

The rules of the real driver are kept: a dial tries the addresses in turn, the lower id's dial wins
a race, a newer link replaces an older one, a closed link is heard by the other side, a killed
process's kernel resets its links and refuses dials, a stopped process's kernel keeps them.

Everything random comes from the seed, and nothing here depends on the order of a set: one seed is
one history, event by event.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from overlay.effects import (
    CloseLink,
    Dial,
    DialFailed,
    DialOutcome,
    Effect,
    Event,
    Found,
    Join,
    Leave,
    LinkUp,
    MetHomeless,
    Received,
    Report,
    Send,
    Wake,
)
from overlay.machine import OverlayMachine
from overlay.membership import Membership
from overlay.profile import Profile
from overlay.records import Record
from overlay.rings import Rings
from overlay.simulator.lines import Lines, wire_bytes
from overlay.simulator.process import Connection, SimulatedPeer, Zeros
from overlay.simulator.sizes import message_bytes
from overlay.simulator.timeline import Action, Timeline
from overlay.simulator.wires import Wires
from overlay.wire import LinkMessage

# Two links of one pair that begin within this time are a race, not a repair (as in the driver).
RACE_S = 2.0
# What opening a link costs: packets of TCP's handshake and goodbye, the websocket's upgrade (some
# 500 bytes), hello and welcome (some 250 each), with headers and acknowledgements.
DIAL_MESSAGES, DIAL_BYTES = 4, 1800


class SimulatedNetwork:
    """Machines, the lines between them, and one clock."""

    def __init__(self, *, seed: object, profile: Profile, lines: Lines, network_id: str) -> None:
        self.seed = seed
        self.profile = profile
        self.network_id = network_id
        self.peers: dict[int, SimulatedPeer] = {}
        self.messages = 0
        self.bytes = 0
        self._lines = lines
        self._rng = random.Random(f"lines {seed}")
        self._timeline = Timeline()
        self._later = self._timeline.later
        self._wires = Wires(
            self._timeline,
            lines,
            self._rng,
            is_cut=self.is_cut,
            arrive=self._arrive,
            handle=self._handle,
        )
        self._sides: dict[str, int] = {}
        self._by_id: dict[str, SimulatedPeer] = {}
        self._by_address: dict[str, SimulatedPeer] = {}

    # What happens to it.

    def start(
        self, number: int, record: Record, seeds: Iterable[str] = (), *, homeless: bool = False
    ) -> SimulatedPeer:
        """A process comes up, possibly in place of an earlier life, and joins through the
        addresses `seeds`; `homeless`: it belongs to no network yet."""
        peer = self._place(number, record, "" if homeless else self.network_id, None, None)
        self._handle(peer, Join(tuple(seeds)))
        return peer

    def settle(self, records: Sequence[Record]) -> None:
        """All of these at once, as after a long quiet time: equal tables, every wanted link."""
        table = Membership(records[0])
        for record in records[1:]:
            table.merge(record, self.now)
        rings: Rings | None = None
        for number, record in enumerate(records):
            peer = self._place(number, record, self.network_id, table.fork(record.peer_id), rings)
            rings = rings or peer.machine.graph.rings
        for peer in self.peers.values():
            self._later(self._rng.uniform(0, self.profile.heartbeat_s), self._open_links, peer)

    def _open_links(self, peer: SimulatedPeer) -> None:
        for other_id in sorted(peer.machine.graph.wanted):
            other = self._by_id[other_id]
            connection = other.connections.get(peer.id) or Connection(
                min(peer.id, other_id), self.now
            )
            peer.connections[other_id] = connection
            digest = peer.machine.table.digest
            event = LinkUp(other.machine.table.me, digest, other_id)
            effects = peer.machine.handle(event, self.now)
            # What it would dial is linked in this very moment.
            self._perform(peer, [effect for effect in effects if type(effect) is not Dial])

    def kill(self, *numbers: int) -> None:
        """kill -9: the kernel resets every link."""
        gone = [self.peers[number] for number in numbers]
        for peer in gone:
            peer.running = False
        for peer in gone:
            for other_id, connection in list(peer.connections.items()):
                self._hear_down(other_id, peer.id, connection, False)
            peer.connections.clear()

    def bury(self, *numbers: int) -> None:
        """Let go of what killed peers knew: nobody will ask them."""
        for number in numbers:
            del self.peers[number].machine

    def stop(self, number: int) -> None:
        """SIGSTOP, or a process that is not run: its kernel holds the links."""
        self.peers[number].stopped = True

    def resume(self, number: int) -> None:
        """SIGCONT: everything that waited is taken in at once."""
        peer = self.peers[number]
        if not peer.stopped:
            return
        peer.resume()
        if peer.running:
            self._handle(peer, Wake())

    def leave(self, number: int) -> None:
        """A graceful end."""
        peer = self.peers[number]
        self._handle(peer, Leave())
        for other_id, connection in list(peer.connections.items()):
            self._hear_down(other_id, peer.id, connection, True)
        peer.running = False
        peer.connections.clear()

    def partition(self, *groups: Iterable[int]) -> None:
        """Lines between the groups carry nothing, until `heal`; who is in none is in the first."""
        sides = {self.peers[n].id: side for side, group in enumerate(groups) for n in group}
        self._sides = {peer: side for peer, side in sides.items() if side}

    def cut_off(self, *numbers: int) -> None:
        """The lines of each of these carry nothing (a black hole), until `restore`."""
        for number in numbers:
            self._sides[self.peers[number].id] = -1 - number

    def restore(self, *numbers: int) -> None:
        """The lines of these work again."""
        for number in numbers:
            self._sides.pop(self.peers[number].id, None)
        self._wires.release(self.peers.values())

    def heal(self) -> None:
        """All lines work again."""
        self._sides = {}
        self._wires.release(self.peers.values())

    def inject(self, number: int, source: int, message: LinkMessage) -> None:
        """`number` hears a message on its link to `source`."""
        self._handle(self.peers[number], Received(self.peers[source].id, message))

    # Time.

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self._timeline.now

    def run_for(self, duration_s: float) -> None:
        """Let that much time pass."""
        self._timeline.run_for(duration_s)

    def at(self, delay_s: float, action: Action, *arguments: Any) -> None:
        """Do something after a while."""
        self._later(delay_s, action, *arguments)

    # What is asked of it.

    def up(self) -> list[SimulatedPeer]:
        """The peers that run."""
        return [peer for peer in self.peers.values() if peer.is_up]

    def peer(self, peer_id: str) -> SimulatedPeer:
        """A peer by its id, in its newest life."""
        return self._by_id[peer_id]

    def cut_ids(self) -> set[str]:
        """Those whose lines lead nowhere at all now."""
        return {peer for peer, side in self._sides.items() if side < 0}

    def seen(self, peer: SimulatedPeer, report: Report) -> None:
        """A machine reported something; for a subclass to look at."""

    def sent(self, peer: SimulatedPeer, message: LinkMessage) -> None:
        """A machine sent something; for a subclass to look at."""

    # Machinery.

    def _place(
        self,
        number: int,
        record: Record,
        network_id: str,
        table: Membership | None,
        rings: Rings | None,
    ) -> SimulatedPeer:
        machine = OverlayMachine(
            record,
            network_id=network_id,
            profile=self.profile,
            rng=random.Random(f"{self.seed}/{record.peer_id}/{record.incarnation}"),
            now=self.now,
            notary=Zeros(record.peer_id),
            table=table,
            rings=rings.fork() if rings is not None else None,
        )
        address = record.addresses[0] if record.addresses else ""
        peer = SimulatedPeer(number, record.peer_id, address, machine)
        self.peers[number] = self._by_id[peer.id] = peer
        if address:
            self._by_address[address] = peer
        return peer

    def is_cut(self, one: str, other: str) -> bool:
        """Whether the lines between two peers carry nothing now."""
        sides = self._sides
        return bool(sides) and sides.get(one) != sides.get(other)

    def _handle(self, peer: SimulatedPeer, event: Event) -> None:
        machine = peer.machine
        effects = machine.handle(event, self.now)
        wake_at = machine.wake_at()
        assert wake_at > self.now or effects, f"busy loop at {self.now} after {event}"
        if wake_at < peer.wakes_at:
            peer.wakes_at = wake_at
            self._later(max(0.0, wake_at - self.now), self._wake, peer, wake_at)
        if effects:
            self._perform(peer, effects)

    def _wake(self, peer: SimulatedPeer, ticket: float) -> None:
        if peer.wakes_at != ticket:
            return
        peer.wakes_at = float("inf")
        if not peer.is_up:
            return  # a stopped one is woken when it is resumed
        wake_at = peer.machine.wake_at()
        if wake_at > self.now:  # it was put off meanwhile
            peer.wakes_at = wake_at
            self._later(wake_at - self.now, self._wake, peer, wake_at)
        else:
            self._handle(peer, Wake())

    def _perform(self, peer: SimulatedPeer, effects: list[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                self._send(peer, effect.peer, effect.message)  # type: ignore[union-attr]
            elif kind is Report:
                self.seen(peer, effect)  # type: ignore[arg-type]
            else:
                self._perform_rare(peer, effect)

    def _perform_rare(self, peer: SimulatedPeer, effect: Effect) -> None:
        if isinstance(effect, Dial):
            self._dial(peer, effect, effect.addresses, "refused")
        elif isinstance(effect, CloseLink):
            connection = peer.connections.pop(effect.peer, None)
            if connection is not None:
                self._hear_down(effect.peer, peer.id, connection, True)
        elif isinstance(effect, Found):
            peer.machine.adopt_network(peer.id)  # an id like no other's

    # Messages.

    def _send(self, peer: SimulatedPeer, to: str, message: LinkMessage) -> None:
        self.messages += 1
        self.bytes += wire_bytes(message_bytes(message))
        self.sent(peer, message)
        connection = peer.connections.get(to)
        if connection is not None:
            self._wires.send(connection, peer, self._by_id[to], message)

    def _arrive(
        self,
        connection: Connection,
        peer: SimulatedPeer,
        other: SimulatedPeer,
        message: LinkMessage,
    ) -> None:
        if other.running and other.connections.get(peer.id) is connection:
            self._handle(other, Received(peer.id, message))

    # Links.

    def _hear_down(self, peer_id: str, gone_id: str, connection: Connection, orderly: bool) -> None:
        """The other end of a connection hears that this one is over."""
        self._wires.hang_up(connection, gone_id, self._by_id[peer_id], orderly=orderly)

    def _dial(
        self,
        peer: SimulatedPeer,
        dial: Dial,
        addresses: tuple[str, ...],
        outcome: DialOutcome,
    ) -> None:
        if not addresses:
            self._fail(peer, dial, 0.0, outcome)
            return
        address, *rest = addresses
        other = self._by_address.get(address)
        # TCP's handshake and the websocket's take a round trip each before the hello goes out.
        there, back, *greetings = (self._lines.delay_s(self._rng) for _ in range(6))
        if other is not None and (other.stopped or self.is_cut(peer.id, other.id)):
            self._later(dial.timeout_s, self._dial, peer, dial, tuple(rest), "unreachable")
        elif other is None or not other.running:
            self._later(there + back, self._dial, peer, dial, tuple(rest), outcome)
        elif other is peer:
            self._fail(peer, dial, there + back, "declined")
        else:
            self.messages += DIAL_MESSAGES
            self.bytes += DIAL_BYTES
            self._later(there + sum(greetings), self._reach, peer, other, dial, back)

    def _reach(self, peer: SimulatedPeer, other: SimulatedPeer, dial: Dial, back_s: float) -> None:
        """The hello is there."""
        if not peer.running:
            return
        if not other.running:
            self._fail(peer, dial, back_s, "refused")
            return
        if other.stopped or self.is_cut(peer.id, other.id):
            self._fail(peer, dial, dial.timeout_s, "unreachable")
            return
        mine, theirs = peer.machine, other.machine
        if mine.network_id and theirs.follows:
            theirs.adopt_network(mine.network_id)
        if not theirs.network_id:
            if not mine.network_id:
                self._handle(other, MetHomeless(mine.candidacy(self.now), ""))
            met = MetHomeless(theirs.candidacy(self.now), dial.target)
            self._later(back_s, peer.do, self._handle, peer, met)
            self._fail(peer, dial, back_s, "declined")
            return
        if self._is_duplicate(other, peer.id) or not theirs.admits(peer.id):
            self._fail(peer, dial, back_s, "declined")
            return
        connection = Connection(peer.id, self.now)
        record, digest = theirs.table.me, theirs.table.digest
        self._join(other, peer, connection, LinkUp(mine.table.me, mine.table.digest, ""))
        answer = LinkUp(record, digest, dial.target)
        self._later(back_s, peer.do, self._answer, peer, other, connection, answer)

    def _answer(
        self, peer: SimulatedPeer, other: SimulatedPeer, connection: Connection, event: LinkUp
    ) -> None:
        """The welcome is back."""
        if other.connections.get(peer.id) is not connection or self.is_cut(peer.id, other.id):
            self._fail(peer, Dial(event.target, (), 0.0), 0.0, "unreachable")
            return
        if not peer.machine.network_id:
            peer.machine.adopt_network(other.machine.network_id)
        self._join(peer, other, connection, event)

    def _join(
        self, peer: SimulatedPeer, other: SimulatedPeer, connection: Connection, event: LinkUp
    ) -> None:
        older = peer.connections.get(other.id)
        peer.connections[other.id] = connection
        if older is not None:
            self._hear_down(other.id, peer.id, older, False)
        self._handle(peer, event)

    def _fail(self, peer: SimulatedPeer, dial: Dial, delay_s: float, outcome: DialOutcome) -> None:
        event = DialFailed(dial.target, outcome, outcome)
        self._later(delay_s, peer.do, self._handle, peer, event)

    def _is_duplicate(self, peer: SimulatedPeer, other_id: str) -> bool:
        preferred, connection = peer.id < other_id, peer.connections.get(other_id)
        if connection is None:
            return preferred and peer.machine.has_just_dialled(other_id, self.now)
        racing = self.now - connection.since < RACE_S
        return preferred and connection.dialler == peer.id and racing
