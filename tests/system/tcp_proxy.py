"""A TCP proxy that misbehaves on demand: delays, cuts, refuses, swallows, corrupts.

It stands in front of one listening port on loopback. Rules kept here:
- one thread owns every socket; the methods hand it their work and return when it is done;
- a held direction loses nothing: bytes stay where they are, as TCP would keep them for
  retransmission, and flow when it is let go; a new connection waits for its upstream meanwhile;
- what one side does is done to the other: an end as an end, a reset as a reset;
- which bytes are flipped depends on the seed, the connection's number, the direction and the byte's
  place in the stream, not on how the stream was cut into reads.
"""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
READ_BYTES = 64 * 1024
# A direction with this much under way is not read from: the proxy is no well without a bottom.
QUEUE_BYTES = 1024 * 1024
CONNECT_S = 1.0
CALL_S = 10.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to bytes; `up` is from the client to the server that stands behind."""

    delay_s: float = 0.0  # each way
    jitter_s: float = 0.0  # added to it, uniform between 0 and this
    hold_up: bool = False
    hold_down: bool = False
    corrupt: float = 0.0  # probability for each byte


HONEST = Behaviour()
BLACK_HOLE = Behaviour(hold_up=True, hold_down=True)


@dataclass(slots=True, eq=False)
class _Flow:
    """One direction of a connection."""

    source: socket.socket
    sink: socket.socket
    is_up: bool
    flips: random.Random
    jitter: random.Random
    # When to deliver what; b"" is the end of the stream.
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    read_all: bool = False
    written_all: bool = False
    flip_in: int | None = None  # bytes until the next flip

    @property
    def has_room(self) -> bool:
        return not self.read_all and sum(len(data) for _, data in self.queue) < QUEUE_BYTES

    def put(self, data: bytes, behaviour: Behaviour, now: float) -> None:
        due = now + behaviour.delay_s + self.jitter.uniform(0.0, behaviour.jitter_s)
        if self.queue:
            due = max(due, self.queue[-1][0])  # a stream keeps its order
        self.read_all = not data
        self.queue.append((due, self._corrupted(data, behaviour.corrupt)))

    def _corrupted(self, data: bytes, probability: float) -> bytes:
        if probability <= 0.0:
            self.flip_in = None
            return data
        changed = bytearray(data)
        at = self._draw(probability) if self.flip_in is None else self.flip_in
        while at < len(changed):
            changed[at] ^= self.flips.randint(1, 255)
            at += 1 + self._draw(probability)
        self.flip_in = at - len(changed)
        return bytes(changed)

    def _draw(self, probability: float) -> int:
        """Honest bytes before the next flip: geometrically distributed."""
        if probability >= 1.0:
            return 0
        return int(math.log(1.0 - self.flips.random()) / math.log(1.0 - probability))


@dataclass(slots=True, eq=False)
class _Connection:
    number: int
    whose: Hashable
    client: socket.socket
    flows: tuple[_Flow, ...] = ()  # none before there is an upstream

    @property
    def sockets(self) -> set[socket.socket]:
        return {self.client, *(flow.sink for flow in self.flows)}


class TcpProxy:
    """Carries connections to `upstream` (a port on loopback) while its block lasts.

    Port 0: connections wait until it is told whom it stands before. `whose(port)` names the client
    behind a new connection's port, so that a behaviour can be meant for one client only.
    """

    def __init__(
        self,
        upstream: int = 0,
        *,
        seed: int = 0,
        whose: Callable[[int], Hashable] = lambda port: None,
    ) -> None:
        self._upstream = upstream
        self.port = 0
        self._seed = seed
        self._whose = whose
        self._default = HONEST
        self._special: dict[Hashable, Behaviour] = {}
        self._connections: list[_Connection] = []
        self._accepted = 0
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._work: deque[Callable[[], None]] = deque()
        self._bell, self._ear = socket.socketpair()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._listen()
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running = False
        self._bell.send(b"!")
        self._thread.join()
        self._stop_listening()
        for connection in list(self._connections):
            self._reset(connection)
        self._selector.close()
        self._bell.close()
        self._ear.close()

    @property
    def address(self) -> str:
        """What a peer behind this proxy advertises."""
        return f"wss://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def stand_before(self, upstream: int) -> None:
        """Carry new connections, and those that wait, to this port."""

        def change() -> None:
            self._upstream = upstream

        self._call(change)

    def behave(self, behaviour: Behaviour, *, whose: Hashable = None) -> None:
        """Treat every connection so from now on, or only those of one client."""

        def change() -> None:
            if whose is None:
                self._default = behaviour
            else:
                self._special[whose] = behaviour

        self._call(change)

    def heal(self) -> None:
        """Be an honest proxy again, for everybody."""

        def change() -> None:
            self._default = HONEST
            self._special.clear()
            if self._listener is None:
                self._listen()

        self._call(change)

    def cut(self, *, whose: Hashable = None) -> int:
        """Reset all connections, or those of one client; how many there were."""
        doomed: list[_Connection] = []

        def reset() -> None:
            doomed.extend(c for c in self._connections if whose in (None, c.whose))
            for connection in doomed:
                self._reset(connection)

        self._call(reset)
        return len(doomed)

    def refuse(self) -> None:
        """Refuse new connections until `heal`; open ones go on."""
        self._call(self._stop_listening)

    # Everything below runs in the proxy's thread (or while there is none).

    def _call(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._work.append(run)
        self._bell.send(b"!")
        if not done.wait(CALL_S):
            raise TimeoutError("the proxy's thread does not answer")

    def _run(self) -> None:
        while self._running:
            now = time.monotonic()
            self._open_upstreams()
            self._watch(now)
            ready = {key.fileobj for key, _ in self._selector.select(self._patience(now))}
            if self._ear in ready:
                self._ear.recv(READ_BYTES)
            while self._work:
                self._work.popleft()()
            if self._listener in ready:
                self._accept()
            for connection in list(self._connections):
                self._carry(connection, ready)

    def _listen(self) -> None:
        self._listener = socket.create_server((HOST, self.port), backlog=64)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, (_, port) = self._listener.accept()
            client.setblocking(False)
            self._accepted += 1
            self._connections.append(_Connection(self._accepted, self._whose(port), client))

    def _open_upstreams(self) -> None:
        for connection in list(self._connections):
            if connection.flows or not self._upstream or self._behaviour(connection).hold_up:
                continue
            try:
                server = socket.create_connection((HOST, self._upstream), timeout=CONNECT_S)
            except OSError:
                self._reset(connection)
                continue
            server.setblocking(False)
            for each in (connection.client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.flows = (
                self._flow(connection, connection.client, server, is_up=True),
                self._flow(connection, server, connection.client, is_up=False),
            )

    def _flow(
        self, connection: _Connection, source: socket.socket, sink: socket.socket, *, is_up: bool
    ) -> _Flow:
        name = f"{self._seed}/{connection.number}/{is_up}"
        flips, jitter = random.Random(f"{name}/flips"), random.Random(f"{name}/jitter")
        return _Flow(source, sink, is_up, flips, jitter)

    def _behaviour(self, connection: _Connection) -> Behaviour:
        return self._special.get(connection.whose, self._default)

    def _is_held(self, connection: _Connection, flow: _Flow) -> bool:
        behaviour = self._behaviour(connection)
        return behaviour.hold_up if flow.is_up else behaviour.hold_down

    def _watch(self, now: float) -> None:
        """Ask the selector for exactly what can be done next."""
        wanted: dict[socket.socket, int] = {}
        for connection in self._connections:
            for flow in connection.flows:
                if self._is_held(connection, flow):
                    continue
                if flow.has_room:
                    wanted[flow.source] = wanted.get(flow.source, 0) | selectors.EVENT_READ
                if flow.queue and flow.queue[0][0] <= now:
                    wanted[flow.sink] = wanted.get(flow.sink, 0) | selectors.EVENT_WRITE
        fixed = (self._ear, self._listener)
        watched = {
            key.fileobj: key.events
            for key in self._selector.get_map().values()
            if key.fileobj not in fixed
        }
        for gone in watched.keys() - wanted.keys():
            self._selector.unregister(gone)
        for each, events in wanted.items():
            if each not in watched:
                self._selector.register(each, events)
            elif watched[each] != events:
                self._selector.modify(each, events)

    def _patience(self, now: float) -> float | None:
        due = [
            flow.queue[0][0]
            for connection in self._connections
            for flow in connection.flows
            if flow.queue and flow.queue[0][0] > now and not self._is_held(connection, flow)
        ]
        return min(due) - now if due else None

    def _carry(self, connection: _Connection, ready: set[object]) -> None:
        try:
            for flow in connection.flows:
                if self._is_held(connection, flow):
                    continue
                if flow.source in ready and flow.has_room:
                    self._read(connection, flow)
                if flow.sink in ready:
                    self._write(flow)
        except OSError:
            self._reset(connection)
            return
        if connection.flows and all(flow.written_all for flow in connection.flows):
            self._forget(connection)

    def _read(self, connection: _Connection, flow: _Flow) -> None:
        with contextlib.suppress(BlockingIOError):
            data = flow.source.recv(READ_BYTES)
            flow.put(data, self._behaviour(connection), time.monotonic())

    def _write(self, flow: _Flow) -> None:
        while flow.queue and flow.queue[0][0] <= time.monotonic():
            due, data = flow.queue[0]
            if not data:
                flow.queue.popleft()
                flow.written_all = True
                flow.sink.shutdown(socket.SHUT_WR)
                return
            try:
                sent = flow.sink.send(data)
            except BlockingIOError:
                return
            if sent < len(data):
                flow.queue[0] = (due, data[sent:])
                return
            flow.queue.popleft()

    def _reset(self, connection: _Connection) -> None:
        for each in connection.sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        for each in connection.sockets:
            with contextlib.suppress(KeyError):
                self._selector.unregister(each)
            each.close()
        if connection in self._connections:
            self._connections.remove(connection)
