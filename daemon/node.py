"""The composition root: builds every concrete part of a daemon, runs it, and takes it down.

Life: lock the data directory, open the store, listen, restore what the last life knew, serve the
control API, train. SIGTERM and SIGINT leave in good order within seconds; a second one ends the
process at once.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from daemon import methods, prometheus
from daemon.config import DEFAULT_PORT, Config
from daemon.events import EventLog
from daemon.learner_process import Learner, open_learner
from daemon.lock import locked
from daemon.server import ControlApp, read_token, serve
from daemon.session import Session
from daemon.store import Store, StoreFull
from learner.job import Job
from overlay.driver import Overlay, open_overlay
from overlay.effects import Join
from overlay.identity import new_id
from overlay.profile import PROFILES
from overlay.records import Record, State
from overlay.transport import Tcp, open_unwrapping_nursery, split_address

log = logging.getLogger("gossipd")

SAVE_MEMBERS_S = 1.0
# A joiner that brings a job of its own waits this long to hear of the network's.
OFFER_AFTER_S = 3.0
GOODBYE_LIMIT_S = 4.0


class StartFailed(Exception):
    """The daemon cannot start; the message says why and what to do."""


class Node:
    """A running daemon, as the control API sees it."""

    overlay: Overlay

    def __init__(self, config: Config, store: Store) -> None:
        self.config = config
        self.store = store
        self.events = EventLog()
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

    async def stopped(self) -> None:
        """Wait until somebody wants this daemon to leave."""
        await self._stopping.wait()


async def run_node(config: Config, job: Job | None, ready: Callable[[Node], None]) -> None:
    """Run a daemon until it is told to stop; `ready` is called once it can be used.

    Raises AlreadyRunning or StartFailed.
    """
    _make_data_dir(config.data_dir)
    with locked(config.data_dir):
        store = _open_store(config.data_dir)
        try:
            node = Node(config, store)
            async with _open_parts(node):
                await _start(node, job)
                ready(node)
                await node.stopped()
                with trio.move_on_after(GOODBYE_LIMIT_S):
                    await node.session.farewell()
                    await node.overlay.leave()
                    await _save_members(node, {})
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


async def _start(node: Node, job: Job | None) -> None:
    """Remember the last life, join who is to be joined, post the job."""
    overlay, store = node.overlay, node.store
    overlay.machine.remember(_remembered(store), trio.current_time())
    store.put({"port": str(split_address(overlay.address)[1])})
    if node.config.overlay.join:
        overlay.step(Join(node.config.overlay.join))
    if job is None:
        return
    posted = node.session.board.posted
    if posted is not None and posted.job.digest == job.digest:
        return  # restarted with the job that is in force already
    if not node.config.overlay.join and posted is None:
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
    """Leave on the first SIGTERM or SIGINT, end at once on the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if node._stopping.is_set():
                os._exit(128 + number)
            log.info("leaving after %s", signal.Signals(number).name)
            node.stop()


async def _keep_members(node: Node) -> None:
    """Keep the member table on disk, so that a restarted daemon finds its network; and post the
    offered job once it is clear that the network has none."""
    saved: dict[str, Record] = {}
    began = trio.current_time()
    while True:
        await trio.sleep(SAVE_MEMBERS_S)
        await _save_members(node, saved)
        settled = trio.current_time() - began > OFFER_AFTER_S
        if settled and node.overlay.machine.network_id and node.overlay.links:
            job = node.session.settle_offer()
            if job is not None:
                await node.session.submit(job)


async def _save_members(node: Node, saved: dict[str, Record]) -> None:
    table = node.overlay.machine.table
    now = {r.peer_id: r for r in table.records() if r.peer_id != table.my_id}
    changed = [(peer, _to_row(r)) for peer, r in now.items() if saved.get(peer) != r]
    gone = [peer for peer in saved if peer not in now]
    words = {"incarnation": str(table.me.incarnation), "network": node.overlay.machine.network_id}
    try:
        await node.store.in_thread(node.store.put, words)
        if changed or gone:
            await node.store.in_thread(node.store.put_members, changed, gone)
    except StoreFull as error:
        log.warning("the member table is not saved: %s", error)
        return
    saved.clear()
    saved.update(now)


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


def _remembered(store: Store) -> list[Record]:
    """The members of the last life; rows that cannot be read are left out."""
    records = []
    for row in store.members():
        try:
            addresses = tuple(row.pop("addresses"))
            state = State(row.pop("state"))
            records.append(Record(addresses=addresses, state=state, **row))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("a remembered member cannot be read: %s", error)
    return records


def _to_row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record)))
    return row
