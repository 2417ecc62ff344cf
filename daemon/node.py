"""The composition root: builds every concrete part of a daemon, runs it, and takes it down.

Life: lock the data directory, open the store, listen, restore what the last life knew, serve the
control API, train. SIGTERM and SIGINT leave in good order within seconds; a second one ends the
process at once.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from daemon import methods, prometheus
from daemon.config import DEFAULT_PORT, Config
from daemon.events import EventLog
from daemon.learner_process import Learner, open_learner
from daemon.lock import locked
from daemon.member_keeper import MemberKeeper
from daemon.server import ControlApp, read_token, serve
from daemon.session import Session
from daemon.store import Store, StoreFull
from learner.job import Job
from learner.schema import SchemaError
from overlay.driver import Overlay, open_overlay
from overlay.effects import Join
from overlay.identity import new_id
from overlay.profile import PROFILES
from overlay.records import Record, State
from overlay.transport import Tcp, open_unwrapping_nursery, split_address

log = logging.getLogger("gossipd")

SAVE_MEMBERS_S = 1.0
# Configuration keys that SIGHUP puts into force.
RELOADED = ("node.log_level", "learner.allow")
# A joiner that brings a job of its own waits this long to hear of the network's.
OFFER_AFTER_S = 3.0
GOODBYE_LIMIT_S = 4.0


class StartFailed(Exception):
    """The daemon cannot start; the message says why and what to do."""


class Node:
    """A running daemon, as the control API sees it."""

    overlay: Overlay

    def __init__(self, config: Config, store: Store, read_config: Callable[[], Config]) -> None:
        self._read_config = read_config
        self.config = config
        self.store = store
        self.events = EventLog()
        self.keeper = MemberKeeper(store)
        self.session = Session(config, store, self.events, self._start_learner)
        self.started_at = time.time()
        self.control_binds: list[str] = []
        self._stopping = trio.Event()

    def _start_learner(self) -> AbstractAsyncContextManager[Learner]:
        log_file = self.config.data_dir / "learner.log"
        return open_learner(log_file, nice=self.config.learner.nice)

    def stop(self) -> None:
        """Begin to leave."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether this daemon is about to leave."""
        return self._stopping.is_set()

    def reload(self) -> None:
        """Read the configuration again; what needs a restart is said, a mistake changes nothing."""
        try:
            config = self._read_config()
        except SchemaError as error:
            self.events.add("config.rejected", {"reason": str(error)})
            log.error("the configuration is not reloaded: %s", error)
            return
        logging.getLogger().setLevel(config.node.log_level.upper())
        self.session.reconfigure(config)
        waits = [key for key in _changed_keys(self.config, config) if key not in RELOADED]
        self.events.add("config.reloaded", {"needs_restart": waits})
        log.info("configuration reloaded; a restart is needed for: %s", waits or "nothing")

    async def stopped(self) -> None:
        """Wait until somebody wants this daemon to leave."""
        await self._stopping.wait()


async def run_node(
    config: Config,
    job: Job | None,
    ready: Callable[[Node], None],
    read_config: Callable[[], Config],
) -> None:
    """Run a daemon until it is told to stop.

    `ready` is called once it can be used, `read_config` on SIGHUP. Raises AlreadyRunning or
    StartFailed.
    """
    _make_data_dir(config.data_dir)
    with locked(config.data_dir):
        store = _open_store(config.data_dir)
        try:
            node = Node(config, store, read_config)
            async with _open_parts(node):
                await _start(node, job)
                ready(node)
                await node.stopped()
                with trio.move_on_after(GOODBYE_LIMIT_S):
                    await node.session.farewell()
                    await node.overlay.leave()
                    await _save_members(node)
        finally:
            store.close()


@asynccontextmanager
async def _open_parts(node: Node) -> AsyncIterator[None]:
    """Overlay, session and control API, up until the block ends."""
    config, store = node.config, node.store
    me, network = _identity(config, store)
    try:
        async with (
            open_overlay(
                me,
                network_id=network,
                listen=_listen_address(config, store),
                advertise=config.overlay.advertise,
                network=Tcp(),
                profile=PROFILES[config.overlay.profile],
                listener=node.session,
                may_adopt=node.session.may_adopt_network,
                rng=random.Random(),
            ) as overlay,
            open_unwrapping_nursery() as nursery,
        ):
            node.overlay = node.session.overlay = overlay
            if not config.node.name:
                # Several peers on one host are told apart by their ports.
                port = split_address(overlay.address)[1]
                overlay.describe_me(name=f"{config.display_name[:56]}:{port}")
            await node.session.restore_job()
            for bind, status in await _control(node, nursery):
                log.debug("control API at %s (%s)", bind, status)
            await nursery.start(_handle_signals, node)
            nursery.start_soon(node.session.run)
            nursery.start_soon(_keep_members, node)
            yield
            nursery.cancel_scope.cancel()
    except OSError as error:
        raise StartFailed(f"cannot listen: {error}") from error
    except StoreFull as error:
        raise StartFailed(str(error)) from error


async def _start(node: Node, job: Job | None) -> None:
    """Remember the last life, join who is to be joined, post the job."""
    overlay, store = node.overlay, node.store
    overlay.machine.remember(node.keeper.remembered(), trio.current_time())
    store.put({"port": str(split_address(overlay.address)[1])})
    if node.config.overlay.join:
        overlay.step(Join(node.config.overlay.join))
    if job is None:
        return
    posted = node.session.board.posted
    if posted is not None:
        node.session.ignore(job)
    elif not node.config.overlay.join:
        await node.session.submit(job)
    else:
        node.session.offer(job)


async def _control(node: Node, nursery: trio.Nursery) -> list[tuple[str, str]]:
    """Start the control API's listeners."""
    table = methods.build(node)
    config = node.config

    def app(token: str | None) -> ControlApp:
        return ControlApp(
            table,
            node.events,
            token=token,
            prometheus=lambda: prometheus.render(node.overlay, node.session.progress),
        )

    wanted = [(f"unix:{config.control_socket}", app(None))]
    if config.control.tcp:
        host, port = split_address(config.control.tcp)
        bracketed = f"[{host}]" if ":" in host else host
        wanted.append((f"{bracketed}:{port}", app(read_token(config.token_file))))
    started = []
    for bind, application in wanted:
        status = await nursery.start(serve, application, bind)
        node.control_binds.append(status)
        started.append((bind, status))
    return started


async def _handle_signals(
    node: Node, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Leave on the first SIGTERM or SIGINT, end at once on the second; reload on SIGHUP."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                node.reload()
                continue
            if node.stopping:
                os._exit(128 + number)
            log.info("leaving after %s", signal.Signals(number).name)
            node.stop()


def _changed_keys(old: Config, new: Config) -> list[str]:
    """The dotted keys in which two configurations differ."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return [
        f"{part}.{key}"
        for part, table in before.items()
        for key, value in table.items()
        if after[part][key] != value
    ]


async def _keep_members(node: Node) -> None:
    """Keep the member table on disk, so that a restarted daemon finds its network; and post the
    offered job once it is clear that the network has none."""
    began = trio.current_time()
    while True:
        await trio.sleep(SAVE_MEMBERS_S)
        await _save_members(node)
        settled = trio.current_time() - began > OFFER_AFTER_S
        if settled and node.overlay.machine.network_id and node.overlay.links:
            job = node.session.settle_offer()
            if job is not None:
                await _post(node, job)


async def _save_members(node: Node) -> None:
    machine = node.overlay.machine
    await node.keeper.save(machine.table, machine.network_id)


async def _post(node: Node, job: Job) -> None:
    """Post the offered job; on a full disk try again later."""
    try:
        await node.session.submit(job)
    except StoreFull as error:
        log.warning("the job is not posted: %s", error)
        node.session.offer(job)


def _make_data_dir(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartFailed(f"cannot make the data directory {data_dir}: {error}") from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise StartFailed(f"the data directory {data_dir} cannot be written")


def _open_store(data_dir: Path) -> Store:
    try:
        return Store(data_dir / "state.db")
    except Exception as error:
        raise StartFailed(f"cannot open {data_dir / 'state.db'}: {error}") from error


def _identity(config: Config, store: Store) -> tuple[Record, str]:
    """This peer's own record, one life on, and its network ('' for one that is still to be found).

    A peer that was asked to join founds no network of its own.
    """
    peer_id, network = store.get("peer"), store.get("network")
    incarnation = int(store.get("incarnation", "0")) + 1
    if not peer_id:
        peer_id = new_id()
    if not network and not config.overlay.join:
        network = new_id()
    store.put({"peer": peer_id, "network": network, "incarnation": str(incarnation)})
    record = Record(
        peer_id, config.display_name, (), incarnation, State.ALIVE, config.learner.enabled, -1
    )
    return record, network


def _listen_address(config: Config, store: Store) -> str:
    """Where to listen: as told; else where the last life did, the default port, or a free one."""
    remembered = int(store.get("port", "0"))
    host, port = split_address(config.overlay.listen or f"127.0.0.1:{DEFAULT_PORT}")
    if config.overlay.listen and port != 0:
        return config.overlay.listen
    candidates = [remembered] if config.overlay.listen else [remembered, DEFAULT_PORT]
    bracketed = f"[{host}]" if ":" in host else host
    for candidate in candidates:
        if candidate and _is_free(host, candidate):
            return f"{bracketed}:{candidate}"
    return f"{bracketed}:0"


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
