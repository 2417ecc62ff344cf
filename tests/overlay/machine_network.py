"""The simulator with what tests ask of it: fixed members by number, what was said, who believes
what. Every so often a message crosses a real codec on its way."""

from collections import Counter
from dataclasses import asdict, dataclass

from overlay.identity import short
from overlay.profile import PROFILES
from overlay.records import State
from overlay.simulator.lines import Lines, parse_latency
from overlay.simulator.network import SimulatedNetwork
from overlay.simulator.sizes import message_bytes
from overlay.wire import CONTROL

LOOK_EVERY_S = 0.05


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

    # What a test does to the world.

    def start(self, number, *, seeds=(), **changes):
        """A process comes up, possibly in place of an earlier life, and joins through `seeds`."""
        changes.setdefault("addresses", (f"ws://peer{number}:1",))
        addresses = [seed if isinstance(seed, str) else self.peers[seed].address for seed in seeds]
        return super().start(number, self._member(number, **changes), addresses)

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

    def seen(self, peer, report):
        self.said.append(Said(self.now, peer.number, report.kind, report.data.get("peer", "")))

    def sent(self, peer, message):
        kind = type(message).__name__
        self.sent_kinds[kind] += 1
        if self.sent_kinds[kind] <= 100:  # a sample crosses a real wire
            data = CONTROL.encode(message)
            assert CONTROL.decode(data) == message
            assert message_bytes(message) == len(data)

    def __repr__(self):
        up = ", ".join(
            f"{p.number}:{short(p.id)} knows {p.machine.table.live_count}"
            f" links {len(p.machine.links)}"
            for p in self.up()
        )
        return f"World(seed={self.seed}, now={self.now}, {asdict(self.profile)}, {up})"
