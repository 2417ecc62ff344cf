"""A network in memory with cut lines, peers on it, and a listener that takes notes."""

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from overlay.driver import open_overlay
from overlay.profile import PROFILES
from overlay.transfer import FetchFailed, make_blob
from overlay.transport import ConnectionLost, DialRefused, Line


class Streams:
    """All streams of a test by address (`ws://peer1:1`)."""

    def __init__(self):
        self._handlers = {}
        self._cut = set()
        self.stalled = []  # hosts whose streams accept no bytes
        self.dials = 0
        self.proven = {}  # host → the id that its lines prove; while empty, links are plain

    def of(self, host):
        """The network as `host` (`peer1:1`) sees it."""
        return Host(self, host)

    def cut(self, host):
        """From now on dials of and by `host` get no answer."""
        self._cut.add(host)

    async def connect(self, source, address):
        target = address.removeprefix("ws://")
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if {source, target} & self._cut:
            await trio.sleep_forever()
        if target not in self._handlers:
            raise DialRefused(f"connection refused by {address}")
        ours, theirs = trio.testing.memory_stream_pair()
        handler, nursery = self._handlers[target]
        nursery.start_soon(handler, Stallable(theirs, self, target, source))
        return Stallable(ours, self, source, target)

    async def listen(self, address, handler, task_status):
        async with trio.open_nursery() as nursery:
            self._handlers[address] = handler, nursery
            try:
                task_status.started(f"ws://{address}")
                await trio.sleep_forever()
            finally:
                del self._handlers[address]


class Stallable(trio.abc.Stream):
    """A stream whose sender blocks while the test says that nothing gets through."""

    def __init__(self, inner, streams, source, other):
        self._inner, self._streams, self._source = inner, streams, source
        self.other = other

    async def send_all(self, data):
        if self._source in self._streams.stalled:
            await trio.sleep_forever()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        return await self._inner.receive_some(max_bytes)

    async def aclose(self):
        await self._inner.aclose()


@dataclass(frozen=True)
class Host:
    streams: Streams
    name: str

    @property
    def secured(self):
        return bool(self.streams.proven)

    async def connect(self, address):
        return await self.welcome(await self.streams.connect(self.name, address))

    async def welcome(self, stream):
        return Line(stream, self.streams.proven.get(stream.other, ""))

    async def listen(self, address, handler, task_status):
        await self.streams.listen(address, handler, task_status)


@dataclass
class Heard:
    """The room above the overlay."""

    blobs: dict = field(default_factory=dict)
    reports: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    adopted: list = field(default_factory=list)

    def report(self, kind, data):
        self.reports.append((kind, data))

    def note(self, peer, body):
        self.notes.append((peer, body))

    def linked(self, peer):
        pass

    def network_adopted(self, network_id):
        self.adopted.append(network_id)

    async def provide(self, peer, want):
        if want.stream not in self.blobs:
            raise FetchFailed("there is no such stream")
        return await make_blob(
            self.blobs[want.stream], version=want.version, layout="layout", weight=7
        )

    def kinds(self, *kinds):
        return [(kind, data) for kind, data in self.reports if kind in kinds]


@dataclass(eq=False)
class Running:
    """A peer of a `Town`."""

    overlay: object
    heard: Heard
    scope: trio.CancelScope

    @property
    def id(self):
        return self.overlay.my_id

    @property
    def live(self):
        return {record.peer_id for record in self.overlay.machine.table.live()}


class Town:
    """Peers on one network in memory; made by `open_town`."""

    def __init__(self, member, nursery, profile):
        self.streams = Streams()
        self.network_id = member("network").peer_id
        self.peers = {}
        self._member = member
        self._nursery = nursery
        self._profile = PROFILES[profile]

    async def start(self, number, *, seed=None, network_id=None, may_adopt=False, **changes):
        """A peer comes up and joins through `seed`."""
        peer = await self._nursery.start(self._live, number, network_id, may_adopt, changes)
        self.peers[number] = peer
        if seed is not None:
            await peer.overlay.join(self.peers[seed].overlay.address)
        return peer

    def id_of(self, number):
        """The id of the peer with this number."""
        return self._member(number).peer_id

    async def grow(self, count, **changes):
        """`count` peers that joined through the first and are all linked."""
        for number in range(count):
            await self.start(number, seed=None if number == 0 else 0, **changes)
        await until(self.settled)
        return [self.peers[number] for number in range(count)]

    def settled(self):
        """Everybody knows who is up, and has the wanted links, both websockets of each."""
        up = [peer for peer in self.peers.values() if not peer.scope.cancel_called]
        ids = {peer.id for peer in up}
        return all(
            peer.live == ids
            and peer.overlay.links.keys() == peer.overlay.machine.links
            and peer.overlay.links.keys() == peer.overlay.machine.graph.wanted
            and all(link.data is not None for link in peer.overlay.links.values())
            for peer in up
        )

    def kill(self, number):
        """The process is gone, and with it its sockets."""
        self.peers[number].scope.cancel()

    async def _live(self, number, network_id, may_adopt, changes, task_status):
        heard, record = Heard(), self._member(number, **changes)
        host = f"peer{number}:1"
        with trio.CancelScope() as scope:
            async with open_overlay(
                record,
                network_id=self.network_id if network_id is None else network_id,
                listen=host,
                advertise=(),
                network=self.streams.of(host),
                profile=self._profile,
                listener=heard,
                may_adopt=lambda: may_adopt,
                rng=random.Random(number),
            ) as overlay:
                task_status.started(Running(overlay, heard, scope))
                await trio.sleep_forever()


@asynccontextmanager
async def open_town(member, *, profile="local"):
    """An empty town; its peers end with the block."""
    async with trio.open_nursery() as nursery:
        yield Town(member, nursery, profile)
        nursery.cancel_scope.cancel()


async def until(condition, limit_s=30.0):
    """Wait for a condition, a bounded time."""
    with trio.move_on_after(limit_s):
        while not condition():  # noqa: ASYNC110 — nobody signals every change of a whole town
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not so within {limit_s} s")


class Pipe:
    """A websocket of a data link without the websocket: whole messages, backpressure after four."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self.tamper = lambda data: data

    async def send(self, data):
        try:
            await self._send.send(self.tamper(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionLost("closed", orderly=True) from None

    async def receive(self):
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise ConnectionLost("closed", orderly=True) from None

    def close(self):
        self._send.close()
        self._receive.close()


def pipes():
    """Two joined ends."""
    there, back = trio.open_memory_channel(4), trio.open_memory_channel(4)
    return Pipe(there[0], back[1]), Pipe(back[0], there[1])
