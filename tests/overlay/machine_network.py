"""The simulator with what tests ask of it: fixed members by number, what was said, who believes
what. Every so often a message crosses a real codec on its way."""

import random
from collections import Counter
from dataclasses import asdict, dataclass

from overlay.credence import believed
from overlay.effects import Dial, Found, LinkDown
from overlay.greeting import make_hello, refusal
from overlay.identity import short
from overlay.machine import OverlayMachine
from overlay.notary import Forged
from overlay.profile import PROFILES
from overlay.records import State
from overlay.simulator.lines import Lines, parse_latency
from overlay.simulator.network import SimulatedNetwork
from overlay.simulator.process import SimulatedPeer
from overlay.simulator.sizes import message_bytes
from overlay.wire import CONTROL

LOOK_EVERY_S = 0.05

# The one that a dataclass has follows every connection to every peer: a failure would not end.
SimulatedPeer.__repr__ = lambda peer: f"SimulatedPeer({peer.number}, {short(peer.id)})"


@dataclass(frozen=True)
class Said:
    """A report of a machine."""

    at: float
    by: int
    kind: str
    about: str


class World(SimulatedNetwork):
    """A simulated network of members made by `member(number, **changes)`."""

    def __init__(self, member, *, seed=0, profile=PROFILES["lan"], network_id=None, lines=None):
        super().__init__(
            seed=seed,
            profile=profile,
            lines=lines or Lines(parse_latency("lan")),
            network_id=network_id or member("network").peer_id,
        )
        self._member = member
        self.said = []
        self.sent_kinds = Counter()
        self.sent_by = Counter()  # messages by the number of who sent them
        self.dialled = []  # (when, by whose number, the dial)
        self.deaf = set()  # numbers of those whom no message reaches, though their lines work
        self._cut_pairs = set()
        self._next_network = None

    # What a test does to the world.

    def start(self, number, *, seeds=(), network_id=None, **changes):
        """A process comes up, possibly in place of an earlier life, and joins through `seeds`;
        with `network_id` "" it has no network yet."""
        changes.setdefault("addresses", (f"ws://peer{number}:1",))
        addresses = [seed if isinstance(seed, str) else self.peers[seed].address for seed in seeds]
        self._next_network = network_id
        return super().start(number, self._member(number, **changes), addresses)

    def settled(self, count):
        """`count` members that have been linked for long; returns this world."""
        self.settle([self._member(number) for number in range(count)])
        self.run(2 * self.profile.heartbeat_s)
        self.forget_what_was_said()
        return self

    def cut_pair(self, one, other):
        """The line between these two, and no other, carries nothing, until `mend`."""
        self._cut_pairs.add(frozenset((self.peers[one].id, self.peers[other].id)))

    def mend(self):
        """All lines work again."""
        self._cut_pairs.clear()
        self.heal()

    def is_cut(self, one, other):
        return super().is_cut(one, other) or frozenset((one, other)) in self._cut_pairs

    def grow(self, count, *, seed_peer=0, spacing_s=0.05, **changes):
        """`count` peers, all joining through the first, one soon after the other."""
        for number in range(count):
            self.start(number, seeds=() if number == seed_peer else (seed_peer,), **changes)
            self.run(spacing_s)
        return [self.peers[number] for number in range(count)]

    # Time.

    def run(self, duration_s):
        """Let that much time pass."""
        self.run_for(duration_s)

    def run_until(self, condition, limit_s):
        """Let time pass until `condition()`; the seconds it took, or None when the limit passed."""
        began, end = self.now, self.now + limit_s
        while not condition():
            if self.now >= end:
                return None
            self.run_for(min(LOOK_EVERY_S, end - self.now))
        return self.now - began

    # What a test asks.

    def converged(self):
        """All who run have one table with just them live, and exactly the links they want."""
        up = self.up()
        ids = {peer.id for peer in up}
        return all(
            peer.machine.table.digest == up[0].machine.table.digest
            and peer.machine.links == peer.machine.graph.wanted
            for peer in up
        ) and all(
            {m.record.peer_id for m in live} == ids and all(m.state is State.ALIVE for m in live)
            for live in ([m for m in peer.machine.table.members() if m.is_live] for peer in up)
        )

    def state(self, by, about):
        """What one peer believes another to be."""
        return self.peers[by].machine.table.state(self.peers[about].id)

    def believed(self, number, *states):
        """Whether every running peer believes `number` to be in one of `states`."""
        subject = self.peers[number]
        return all(
            p.machine.table.state(subject.id) in states for p in self.up() if p is not subject
        )

    def heard(self, *kinds, about=None):
        """The reports of these kinds."""
        subject = None if about is None else self.peers[about].id
        return [s for s in self.said if s.kind in kinds and subject in (None, s.about)]

    def forget_what_was_said(self):
        """Begin to count anew."""
        self.said.clear()
        self.sent_kinds.clear()
        self.sent_by.clear()
        self.dialled.clear()

    def seen(self, peer, report):
        self.said.append(Said(self.now, peer.number, report.kind, report.data.get("peer", "")))

    def sent(self, peer, message):
        kind = type(message).__name__
        self.sent_kinds[kind] += 1
        self.sent_by[peer.number] += 1
        if self.sent_kinds[kind] <= 100:  # a sample crosses a real wire
            data = CONTROL.encode(message)
            assert CONTROL.decode(data) == message
            assert message_bytes(message) == len(data)

    # What the simulator leaves out: networks are founded under ids of their own and never meet.

    def _place(self, number, record, network_id, table, rings):
        given, self._next_network = self._next_network, None
        network_id = network_id if given is None else given
        return super()._place(number, record, network_id, table, rings)

    def _perform_rare(self, peer, effect):
        if isinstance(effect, Dial):
            self.dialled.append((self.now, peer.number, effect))
        if isinstance(effect, Found):
            self.said.append(Said(self.now, peer.number, "founded", peer.id))
            peer.machine.adopt_network(self._member(f"network of {peer.number}").peer_id)
        else:
            super()._perform_rare(peer, effect)

    def _reach(self, peer, other, dial, back_s):
        if peer.running and other.is_up and not self.is_cut(peer.id, other.id):
            mine = peer.machine
            hello = make_hello(
                mine,
                instance=bytes(16),
                link_id=bytes(16),
                adopting=not mine.network_id,
                now=self.now,
            )
            no = refusal(hello, other.machine, self.now)
            if no is not None and no.kind == "network":
                self._fail(peer, dial, back_s, "declined")
                return
        super()._reach(peer, other, dial, back_s)

    def _answer(self, peer, other, connection, event):
        mine, theirs = peer.machine.network_id, other.machine.network_id
        if mine and mine != theirs:  # it found a home while the answer was under way
            self._fail(peer, Dial(event.target, (), 0.0), 0.0, "declined")
            self._hear_down(other.id, peer.id, connection, True)
        else:
            super()._answer(peer, other, connection, event)

    def _arrive(self, connection, peer, other, message):
        if other.number not in self.deaf:
            super()._arrive(connection, peer, other, message)

    def __repr__(self):
        up = ", ".join(
            f"{p.number}:{short(p.id)} knows {p.machine.table.live_count}"
            f" links {len(p.machine.links)}"
            for p in self.up()
        )
        last = ", ".join(f"{s.at:.2f} {s.by} {s.kind} {short(s.about)}" for s in self.said[-20:])
        return (
            f"World(seed={self.seed}, now={self.now}, {asdict(self.profile)}, {up}; last: {last})"
        )


class SignedWorld(World):
    """Certified members, who check everything that comes in; a forger loses its link."""

    def __init__(self, network, *, seed=0, **options):
        super().__init__(self._record_of, seed=seed, network_id=network.id, **options)
        self.network = network
        self.forgers = []  # numbers, of every link that was closed

    def person(self, number):
        """The member that goes by a number."""
        return self.network.person(number)

    def _record_of(self, number, **changes):
        return self.person(number).says(**changes)

    def _place(self, number, record, network_id, table, rings):
        peer = super()._place(number, record, network_id, table, rings)
        peer.machine = OverlayMachine(
            record,
            network_id=network_id,
            profile=self.profile,
            rng=random.Random(f"{self.seed}/{number}"),
            now=self.now,
            notary=self.person(number).notary,
        )
        return peer

    def inject(self, number, source, message):
        peer = self.peers[number]
        notary = self.person(number).notary
        try:
            message = believed(message, notary, peer.machine.table)
        except Forged:
            self._turn_out(peer, self.peers[source])
        else:
            super().inject(number, source, message)

    def _arrive(self, connection, peer, other, message):
        if other.running and other.connections.get(peer.id) is connection:
            self.inject(other.number, peer.number, message)

    def _turn_out(self, peer, forger):
        self.forgers.append(forger.number)
        connection = peer.connections.pop(forger.id, None)
        if connection is not None:
            self._hear_down(forger.id, peer.id, connection, True)
            self._handle(peer, LinkDown(forger.id, orderly=True))
