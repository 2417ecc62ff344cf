"""Coroutine tests on Trio, and peers that live in memory: real sessions and overlays, virtual time.

A test that asks for `clock` (or for `peers`, which does) runs on a MockClock that jumps to the next
deadline as soon as everybody waits: waiting costs nothing and no thread is started. The learner is
the real one, called inline.
"""

import contextlib
import dataclasses
import inspect
import random
import warnings

import pytest
import torch
import trio
import trio.testing

with warnings.catch_warnings():
    # It reads its schema in a way that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import jsonrpcserver  # noqa: F401

from daemon.config import Config
from daemon.events import EventLog
from daemon.learner_process import LearnerDied, LearnerFailed
from daemon.session import Session
from daemon.store import Store
from learner.job import Data, Gossip, Job, Model, Optimizer, Partition, Training
from learner.messages import Configure, Failed, RunLocal, Snapshot
from learner.peer import Learner
from overlay.addresses import split_address
from overlay.driver import open_overlay
from overlay.effects import Join
from overlay.identity import new_id
from overlay.profile import PROFILES
from overlay.records import Record
from overlay.transport import DialRefused, Line
from tests.daemon.control_server import certificate, serving  # noqa: F401

torch.set_num_threads(1)

# Bounds of a test in the seconds of its clock: real ones, or virtual ones that cost nothing.
REAL_LIMIT_S = 30.0
VIRTUAL_LIMIT_S = 3600.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a coroutine test on Trio, under a deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    clock = pyfuncitem.funcargs.get("clock")

    async def main():
        with trio.fail_after(REAL_LIMIT_S if clock is None else VIRTUAL_LIMIT_S):
            await pyfuncitem.obj(**arguments)

    trio.run(main, clock=clock)
    return True


@pytest.fixture
def clock():
    """Virtual time that never waits."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def small_job():
    """Linear on the digits: a round takes a millisecond."""
    return Job(
        model=Model("linear"),
        data=Data("digits"),
        partition=Partition("iid", 3),
        optimizer=Optimizer(lr=0.1),
        training=Training(rounds=6, local_steps=4, batch_size=32, checkpoint_every=2),
        gossip=Gossip(topology="complete"),
    )


@pytest.fixture
def record():
    """A member record: record(peer_id, part=…, …)."""

    def make(peer_id, **changes):
        return dataclasses.replace(
            Record(peer_id, "somebody", ("ws://10.0.0.1:7400",), 1, True, -1),
            **changes,
        )

    return make


class MemoryNetwork:
    """Streams between peers of one process; an overlay.transport.Network of plain links."""

    secured = False

    def __init__(self):
        self._listening = {}
        self._next_port = 7000

    async def connect(self, address):
        port = split_address(address)[1]
        await trio.lowlevel.checkpoint()
        if port not in self._listening:
            raise DialRefused(f"connection refused by {address}")
        nursery, handler = self._listening[port]
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(handler, theirs)
        return Line(ours)

    async def welcome(self, stream):
        return Line(stream)

    async def listen(self, address, handler, task_status):
        self._next_port += 1
        port = self._next_port
        async with trio.open_nursery() as nursery:
            self._listening[port] = nursery, handler
            try:
                task_status.started(f"ws://127.0.0.1:{port}")
                await trio.sleep_forever()
            finally:
                del self._listening[port]


class InlineStore(Store):
    """A store without threads: under a jumping clock a thread would seem to take for ever."""

    async def in_thread(self, call, *args):
        await trio.lowlevel.checkpoint()
        return call(*args)


class InlineLearner:
    """The real learner, called inline; a command takes `work_s` of virtual time if it is local
    work. `faults` raises, once, what is filed under a command's type."""

    def __init__(self, peer, pid):
        self.pid = pid
        self.commands = []
        self.learner = Learner()
        self._peer = peer
        self._lock = trio.Lock()
        self._gone = trio.Event()
        self._how = ""

    async def call(self, command, answer, payload=()):
        async with self._lock:
            if self._gone.is_set():
                raise LearnerDied(self._how)
            self.commands.append(command)
            await trio.sleep(self._peer.work_s if isinstance(command, RunLocal) else 0)
            if (fault := self._peer.faults.pop(type(command), None)) is not None:
                raise fault
            reply, data = self.learner.answer(command, bytearray(b"".join(payload)))
            if isinstance(reply, Failed):
                raise LearnerFailed(reply.kind, reply.message)
            assert isinstance(reply, answer), reply
            if isinstance(command, Configure) and self._peer.on_configured is not None:
                self._peer.on_configured(self.learner)
            return reply, bytearray(data)

    def die(self, how="killed by SIGKILL"):
        """Be gone, whether or not somebody is asking something."""
        self._how = how
        self._gone.set()

    async def died(self):
        await self._gone.wait()
        return self._how


class Peer:
    """One peer in memory: session, overlay and learner, in a scope of its own."""

    def __init__(self, config, network, peer_id=None):
        self.config = config
        self.id = peer_id or new_id()
        self.events = EventLog()
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self.store = InlineStore(config.data_dir / "state.db")
        self.session = Session(config, self.store, self.events, self._start_learner)
        self.overlay = None
        self.learners = []
        self.work_s = 0.1
        self.faults = {}
        self.on_configured = None
        self._network = network
        self._scope = trio.CancelScope()

    @contextlib.asynccontextmanager
    async def _start_learner(self):
        learner = InlineLearner(self, 1000 + len(self.learners))
        self.learners.append(learner)
        try:
            yield learner
        finally:
            learner.die("its daemon ended it")

    async def live(self, network_id, join, task_status):
        me = Record(self.id, self.config.display_name, (), 1, True, -1)
        try:
            with self._scope:
                async with (
                    open_overlay(
                        me,
                        network_id=network_id,
                        listen="127.0.0.1:0",
                        advertise=(),
                        network=self._network,
                        profile=PROFILES["local"],
                        listener=self.session,
                        may_adopt=self.session.may_adopt_network,
                        rng=random.Random(self.id),
                    ) as overlay,
                    trio.open_nursery() as nursery,
                ):
                    self.session.overlay = self.overlay = overlay
                    await self.session.restore()
                    nursery.start_soon(self.session.run)
                    if join:
                        overlay.step(Join((join,)))
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.store.close()

    def vanish(self):
        """Be gone without a word, as by `kill -9`."""
        self._scope.cancel()

    @property
    def progress(self):
        return self.session.progress

    @property
    def learner(self):
        """The learner at work (or the last one)."""
        return self.learners[-1]

    def saw(self, kind):
        """The data of every event of a kind."""
        return [event.data for event in self.events.since(0, prefix=kind) if event.kind == kind]

    def model(self):
        """The current model, float32 [dimension]."""
        reply, data = self.learner.learner.answer(Snapshot(), bytearray())
        assert not isinstance(reply, Failed), reply
        return torch.frombuffer(bytearray(data), dtype=torch.float32)

    async def until(self, condition, within_s=300.0):
        """Wait, in virtual time and not for ever, until something holds."""
        with trio.move_on_after(within_s):
            while not condition():  # noqa: ASYNC110  (of any part, in virtual time)
                await trio.sleep(0.05)
            return
        shown = [(event.kind, event.data) for event in self.events.since(0)[-12:]]
        pytest.fail(f"not within {within_s} s; {self.progress.to_json()}\nlast events: {shown}")

    async def until_state(self, state, within_s=300.0):
        await self.until(lambda: self.progress.state == state, within_s)


@pytest.fixture
def peers(clock, tmp_path):
    """A network of peers in memory: `async with peers() as start: a = await start("a", job=…)`."""

    @contextlib.asynccontextmanager
    async def open_network():
        network, network_id = MemoryNetwork(), new_id()
        founder = []

        async with trio.open_nursery() as nursery:

            async def start(name, *, job=None, work_s=0.1, peer_id=None, prepare=None, **sections):
                config = Config()
                node = dataclasses.replace(config.node, name=name, data_dir=str(tmp_path / name))
                changes = {k: dataclasses.replace(getattr(config, k), **v) for k, v in
                           sections.items()}  # fmt: skip
                peer = Peer(dataclasses.replace(config, node=node, **changes), network, peer_id)
                peer.work_s = work_s
                if prepare is not None:
                    prepare(peer)
                join = founder[0].overlay.address if founder else ""
                founder.append(peer)
                await nursery.start(
                    lambda task_status: peer.live("" if join else network_id, join, task_status)
                )
                if job is not None:
                    await peer.session.jobs.submit(job)
                return peer

            yield start
            nursery.cancel_scope.cancel()

    return open_network
