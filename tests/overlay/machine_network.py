"""Many overlay machines joined without I/O: a heap of what happens when, latency, and accidents.

The rules of the real driver are kept: a dial tries the addresses in turn, the lower id's dial wins
a race, a newer link replaces an older one, a closed link is heard by the other side. After every
`handle` the world checks that the machine does not ask to be woken in the past for nothing.
"""

import dataclasses
import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from overlay.effects import (
    CloseLink,
    Dial,
    DialFailed,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    Received,
    Report,
    Send,
    Wake,
)
from overlay.identity import short
from overlay.machine import OverlayMachine
from overlay.profile import PROFILES
from overlay.records import State
from overlay.wire import CONTROL

RACE_S = 2.0
LOOK_EVERY_S = 0.05


@dataclass(eq=False)
class Connection:
    """One link; each end holds it while it believes in it."""

    dialler: str
    since: float
    latency_s: float


@dataclass(eq=False)
class Peer:
    """A running (or stopped, or killed) process."""

    number: int
    id: str
    address: str
    machine: OverlayMachine
    connections: dict[str, Connection] = field(default_factory=dict)
    running: bool = True
    stopped: bool = False
    backlog: list = field(default_factory=list)
    wakes: int = 0

    def state_of(self, other):
        record = self.machine.table.get(other.id)
        return record.state if record is not None else None


@dataclass(frozen=True)
class Said:
    """A report of a machine."""

    at: float
    by: int
    kind: str
    about: str


class World:
    """Machines, the lines between them, and one clock."""

    def __init__(self, member, *, seed=0, profile=PROFILES["lan"], network_id=None):
        self._member = member
        self._rng = random.Random(f"world {seed}")
        self.seed = seed
        self.profile = profile
        self.network_id = network_id or member("network").peer_id
        self.now = 1000.0
        self.peers = {}
        self.said = []
        self.sent = Counter()
        self._happenings = []
        self._order = itertools.count()
        self._sides = {}
        self._by_id = {}

    # What a test does to the world.

    def start(self, number, *, seeds=(), **changes):
        """A process comes up, possibly in place of an earlier life, and joins through `seeds`."""
        changes.setdefault("addresses", (f"ws://peer{number}:1",))
        record = self._member(number, **changes)
        machine = OverlayMachine(
            record,
            network_id=self.network_id,
            profile=self.profile,
            rng=random.Random(f"{self.seed}/{number}/{record.incarnation}"),
            now=self.now,
        )
        address = record.addresses[0] if record.addresses else ""
        peer = self.peers[number] = Peer(number, record.peer_id, address, machine)
        self._by_id[peer.id] = peer
        self._handle(peer, Join(tuple(self.peers[s].address for s in seeds)))
        return peer

    def grow(self, count, *, seed_peer=0, spacing_s=0.05, **changes):
        """`count` peers, all joining through the first, one soon after the other."""
        for number in range(count):
            self.start(number, seeds=() if number == seed_peer else (seed_peer,), **changes)
            self.run(spacing_s)
        return [self.peers[number] for number in range(count)]

    def kill(self, *numbers):
        """kill -9: the kernel resets every link."""
        for peer in (self.peers[number] for number in numbers):
            peer.running = False
            for other_id, connection in list(peer.connections.items()):
                self._hear_down(other_id, peer.id, connection, orderly=False)

    def stop(self, number):
        """SIGSTOP: the process does nothing, its kernel holds the links."""
        self.peers[number].stopped = True

    def resume(self, number):
        """SIGCONT: everything that waited is taken in at once."""
        peer = self.peers[number]
        peer.stopped = False
        backlog, peer.backlog = peer.backlog, []
        for happening in backlog:
            happening()
        self._handle(peer, Wake())

    def leave(self, number):
        """A graceful end."""
        peer = self.peers[number]
        self._handle(peer, Leave())
        for other_id, connection in list(peer.connections.items()):
            self._hear_down(other_id, peer.id, connection, orderly=True)
        peer.running = False

    def partition(self, *groups):
        """Lines between the groups carry nothing, until `heal`."""
        self._sides = {self.peers[n].id: side for side, group in enumerate(groups) for n in group}

    def heal(self):
        """All lines work again."""
        self._sides = {}

    def inject(self, number, source, message):
        """`number` hears a message on its link to `source`."""
        self._handle(self.peers[number], Received(self.peers[source].id, message))

    # Time.

    def run(self, duration_s):
        """Let that much time pass."""
        self.run_until(lambda: False, duration_s)

    def run_until(self, condition, limit_s):
        """Let time pass until `condition()`; the seconds it took, or None when the limit passed."""
        began, end = self.now, self.now + limit_s
        while not condition():
            if self.now >= end:
                return None
            look = min(end, self.now + LOOK_EVERY_S)
            while self._happenings and self._happenings[0][0] <= look:
                self.now, _, happening = heapq.heappop(self._happenings)
                happening()
            self.now = look
        return self.now - began

    # What a test asks.

    def up(self):
        """The peers that run."""
        return [peer for peer in self.peers.values() if peer.running and not peer.stopped]

    def converged(self):
        """All who run have one table with just them live, and exactly the links they want."""
        up = self.up()
        ids = {peer.id for peer in up}
        return all(
            peer.machine.table.digest == up[0].machine.table.digest
            and peer.machine.links == peer.machine.graph.neighbours(peer.id)
            for peer in up
        ) and all(
            {record.peer_id for record in live} == ids
            and all(record.state is State.ALIVE for record in live)
            for live in (peer.machine.table.live() for peer in up)
        )

    def believed(self, number, *states):
        """Whether every running peer believes `number` to be in one of `states`."""
        subject = self.peers[number]
        return all(p.state_of(subject) in states for p in self.up() if p is not subject)

    def heard(self, *kinds, about=None):
        """The reports of these kinds."""
        subject = None if about is None else self.peers[about].id
        return [s for s in self.said if s.kind in kinds and subject in (None, s.about)]

    def forget_what_was_said(self):
        """Begin to count anew."""
        self.said.clear()
        self.sent.clear()

    # Machinery.

    def _later(self, delay_s, happening):
        heapq.heappush(self._happenings, (self.now + delay_s, next(self._order), happening))

    def _cut(self, one, other):
        return self._sides.get(one) != self._sides.get(other)

    def _do(self, peer, action):
        """Let a process act: now, after it is resumed, or never."""
        if peer.stopped:
            peer.backlog.append(lambda: self._do(peer, action))
        elif peer.running:
            action()

    def _handle(self, peer, event):
        effects = peer.machine.handle(event, self.now)
        wake_at = peer.machine.wake_at()
        assert wake_at > self.now or effects, f"busy loop at {self.now} after {event}"
        peer.wakes += 1
        ticket = peer.wakes
        self._later(max(0.0, wake_at - self.now), lambda: self._wake(peer, ticket))
        for effect in effects:
            self._perform(peer, effect)

    def _wake(self, peer, ticket):
        if peer.wakes == ticket:
            self._do(peer, lambda: peer.wakes == ticket and self._handle(peer, Wake()))

    def _perform(self, peer, effect):
        match effect:
            case Send():
                self._send(peer, effect)
            case Dial():
                self._dial(peer, effect, effect.addresses, "refused")
            case CloseLink():
                connection = peer.connections.pop(effect.peer, None)
                if connection is not None:
                    self._hear_down(effect.peer, peer.id, connection, orderly=True)
            case Report():
                said = Said(self.now, peer.number, effect.kind, effect.data.get("peer", ""))
                self.said.append(said)

    def _send(self, peer, effect):
        self.sent[type(effect.message).__name__] += 1
        other, connection = self._by_id.get(effect.peer), peer.connections.get(effect.peer)
        message = effect.message
        if self.sent[type(message).__name__] <= 100:  # a sample crosses a real wire
            assert CONTROL.decode(CONTROL.encode(message)) == message
        if connection is None or other is None:
            return

        def arrive():
            if other.connections.get(peer.id) is connection:
                self._handle(other, Received(peer.id, message))

        def cross():
            if not self._cut(peer.id, other.id):
                self._do(other, arrive)

        self._later(connection.latency_s, cross)

    def _hear_down(self, peer_id, gone_id, connection, *, orderly):
        peer = self._by_id.get(peer_id)

        def hear():
            if peer.connections.get(gone_id) is connection:
                del peer.connections[gone_id]
                self._handle(peer, LinkDown(gone_id, orderly))

        def cross():
            if not self._cut(peer_id, gone_id):
                self._do(peer, hear)

        if peer is not None:
            self._later(connection.latency_s, cross)

    def _dial(self, peer, dial, addresses, outcome):
        if not addresses:
            return self._fail(peer, dial, 0.0, outcome)
        address, *rest = addresses
        other = next((p for p in self.peers.values() if p.address == address and p.running), None)
        latency = self._rng.uniform(0.001, 0.02)
        if other is None:
            self._later(2 * latency, lambda: self._dial(peer, dial, rest, outcome))
        elif other.stopped or self._cut(peer.id, other.id):
            wait = self.profile.dial_timeout_s
            self._later(wait, lambda: self._dial(peer, dial, rest, "unreachable"))
        elif other is peer:
            self._fail(peer, dial, 2 * latency, "declined")
        else:
            self._later(latency, lambda: self._reach(peer, other, dial, latency))
        return None

    def _reach(self, peer, other, dial, latency):
        if not other.running or other.stopped or self._is_duplicate(other, peer.id):
            return self._fail(peer, dial, latency, "declined" if other.running else "refused")
        connection = Connection(peer.id, self.now, latency)
        record, digest = other.machine.table.me, other.machine.table.digest
        mine = peer.machine.table
        self._join(other, peer, connection, LinkUp(mine.me, mine.digest, ""))

        def answer():
            if peer.running and other.connections.get(peer.id) is connection:
                self._join(peer, other, connection, LinkUp(record, digest, dial.target))
            else:
                self._fail(peer, dial, 0.0, "unreachable")

        self._later(latency, lambda: self._do(peer, answer))
        return None

    def _join(self, peer, other, connection, event):
        older = peer.connections.get(other.id)
        peer.connections[other.id] = connection
        if older is not None:
            self._hear_down(other.id, peer.id, older, orderly=False)
        self._handle(peer, event)

    def _fail(self, peer, dial, delay_s, outcome):
        event = DialFailed(dial.target, outcome, outcome)
        self._later(delay_s, lambda: self._do(peer, lambda: self._handle(peer, event)))

    def _is_duplicate(self, peer, other_id):
        preferred, connection = peer.id < other_id, peer.connections.get(other_id)
        if connection is None:
            return preferred and peer.machine.dialling(other_id)
        racing = self.now - connection.since < RACE_S
        return preferred and connection.dialler == peer.id and racing

    def __repr__(self):
        up = ", ".join(
            f"{p.number}:{short(p.id)} knows {len(p.machine.table.live())}"
            f" links {len(p.machine.links)}"
            for p in self.up()
        )
        return f"World(seed={self.seed}, now={self.now}, {dataclasses.asdict(self.profile)}, {up})"
