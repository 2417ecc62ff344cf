"""The composition root: builds every concrete part of a daemon, runs it, and takes it down.

Life: lock the data directory, open the store, enter the network (`entering`), listen, restore what
the last life knew, serve the control API, train. A daemon that changes its key or its network goes
through all of it again in one process. SIGTERM and SIGINT leave in good order within seconds; a
second one ends the process at once.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from daemon import methods, prometheus
from daemon.access import Access, access_over_tcp, read_tokens
from daemon.authorship import NotAnAuthor
from daemon.config import DEFAULT_PORT, Config
from daemon.credentials import Credentials
from daemon.entering import CannotEnter, enter, seeds
from daemon.events import EventLog
from daemon.jobs import JobRejected
from daemon.listener import Tls as ControlTls
from daemon.listener import serve
from daemon.lock import locked
from daemon.office import Office
from daemon.renewal import keep_certificate
from daemon.running import Node
from daemon.server import ControlApp
from daemon.store import Store, StoreFailed
from learner.job import Job
from overlay.addresses import split_address
from overlay.driver import open_overlay
from overlay.effects import Join
from overlay.keys import KeyUnusable
from overlay.profile import PROFILES
from overlay.records import Record
from overlay.tls import Tls
from overlay.transport import Tcp, open_unwrapping_nursery

log = logging.getLogger("gossipd")

SAVE_MEMBERS_S = 1.0
# A joiner that brings a job of its own waits this long to hear of the network's.
OFFER_AFTER_S = 3.0
GOODBYE_LIMIT_S = 4.0
# Who told this daemon to leave hears the answer first.
ANSWER_S = 0.1


class StartFailed(Exception):
    """The daemon cannot start; the message says why and what to do."""


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
            credentials = _open_credentials(config)
            events = EventLog()
            wants_restart = True
            while wants_restart:
                node = Node(config, store, credentials, events, read_config)
                await _live(node, job, ready)
                config = node.config  # with what was reloaded meanwhile
                wants_restart, job, ready = node.wants_restart, None, lambda node: None
        finally:
            store.close()


async def _live(node: Node, job: Job | None, ready: Callable[[Node], None]) -> None:
    async with _open_parts(node):
        await _start(node, job)
        ready(node)
        await node.stopped()
        await trio.sleep(ANSWER_S)
        with trio.move_on_after(GOODBYE_LIMIT_S):
            await node.session.farewell()
            await node.overlay.leave()
            await _save_members(node)


@asynccontextmanager
async def _open_parts(node: Node) -> AsyncIterator[None]:
    """Overlay, session and control API, up until the block ends."""
    config, store = node.config, node.store
    async with AsyncExitStack() as stack:
        try:
            network_id = await _enter(node)
            me = _identity(node, network_id)
            overlay = await stack.enter_async_context(
                open_overlay(
                    me,
                    network_id=network_id,
                    listen=_listen_address(config, store),
                    advertise=config.overlay.advertise,
                    network=node.transport,
                    profile=PROFILES[config.overlay.profile],
                    listener=node.session,
                    may_adopt=lambda: node.notary is None and node.session.may_adopt_network(),
                    rng=random.Random(),
                    remembered=node.keeper.remembered(node.notary),
                    revoked=node.keeper.revoked(),
                    notary=node.notary,
                    office=node.office,
                )
            )
        except (OSError, StoreFailed, CannotEnter) as error:
            raise StartFailed(f"cannot start: {error}") from error
        node.overlay = node.session.overlay = overlay
        if not config.node.name and not store.get("name"):
            # Several peers on one host are told apart by their ports.
            port = split_address(overlay.address)[1]
            overlay.describe_me(name=f"{config.display_name[:56]}:{port}")
        await node.session.restore()
        nursery = await stack.enter_async_context(open_unwrapping_nursery())
        await _serve_control(node, nursery)
        await nursery.start(_handle_signals, node)
        nursery.start_soon(node.session.run)
        nursery.start_soon(_keep_members, node)
        if node.notary is not None:
            nursery.start_soon(keep_certificate, node)
        yield
        nursery.cancel_scope.cancel()


async def _start(node: Node, job: Job | None) -> None:
    """Join who is to be joined, post the job."""
    overlay, store = node.overlay, node.store
    store.put({"port": str(split_address(overlay.address)[1])})
    if addresses := seeds(node.config.overlay.join, store):
        overlay.step(Join(addresses))
    if job is None:
        return
    posted = node.session.jobs.board.posted
    if posted is not None:
        node.session.jobs.ignore(job)
    elif not node.config.overlay.join:
        await _post(node, job)
    else:
        node.session.jobs.offer(job)


async def _serve_control(node: Node, nursery: trio.Nursery) -> None:
    """Start the control API's listeners. Raises StartFailed."""
    table = methods.build(node)
    config = node.config

    def app(access: Access) -> ControlApp:
        return ControlApp(
            table,
            node.events,
            access=access,
            prometheus=lambda: prometheus.render(
                node.overlay, node.session.progress, node.session.trust
            ),
        )

    try:
        unix = f"unix:{config.control_socket}"
        node.control_binds.append(await nursery.start(serve, app(Access()), unix))
        if config.control.tcp:
            host, port = split_address(config.control.tcp)
            bracketed = f"[{host}]" if ":" in host else host
            tokens = read_tokens(config.token_file, config.read_token_file)
            access = access_over_tcp(host, names=config.control.hosts, tokens=tokens)
            tls = ControlTls(*config.control_tls) if config.control_tls else None
            node.control_binds.append(
                await nursery.start(serve, app(access), f"{bracketed}:{port}", tls)
            )
    except OSError as error:
        raise StartFailed(f"cannot open the control API: {error}") from error


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


async def _keep_members(node: Node) -> None:
    """Keep the member table on disk, so that a restarted daemon finds its network; and post the
    offered job once it is clear that the network has none."""
    began = trio.current_time()
    while True:
        await trio.sleep(SAVE_MEMBERS_S)
        await _save_members(node)
        settled = trio.current_time() - began > OFFER_AFTER_S
        if settled and node.overlay.machine.network_id and node.overlay.links:
            job = node.session.jobs.settle_offer()
            if job is not None:
                await _post(node, job)


async def _save_members(node: Node) -> None:
    machine = node.overlay.machine
    await node.keeper.save(machine.table, machine.network_id)


async def _post(node: Node, job: Job) -> None:
    """Post a job from the command line; on a full disk try again later."""
    try:
        await node.session.jobs.submit(job)
    except (NotAnAuthor, JobRejected) as error:
        node.session.report("job.ignored", {"reason": str(error)})
    except StoreFailed as error:
        log.warning("the job is not posted: %s", error)
        node.session.jobs.offer(job)


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


def _open_credentials(config: Config) -> Credentials:
    try:
        lifetime_s = config.overlay.certificate_days * 86400
        return Credentials(config.data_dir, lifetime_s=lifetime_s)
    except (KeyUnusable, OSError) as error:
        raise StartFailed(f"cannot start: {error}") from error


async def _enter(node: Node) -> str:
    """Become a member, and make what a member signs and listens with; the network's id, '' for one
    that is still to be found. Raises CannotEnter, OSError or StoreFailed."""
    config, credentials = node.config, node.credentials
    plain = config.overlay.insecure
    tcp = Tcp(loopback_only=plain or bool(config.lie.attack))
    network_id = await enter(config, node.store, credentials, tcp)
    if plain:
        log.warning("links are PLAIN: neither encrypted nor authenticated (--insecure)")
        node.transport = tcp
        return network_id
    node.transport = Tls(tcp, credentials.contexts())
    node.notary = credentials.signing()
    node.office = Office(credentials, node.store, node, node.session.report)
    return network_id


def _identity(node: Node, network: str) -> Record:
    """This peer's own record, one life on."""
    config, store, peer_id = node.config, node.store, node.credentials.peer_id
    incarnation = int(store.get("incarnation", "0")) + 1
    name = config.node.name or store.get("name") or config.display_name
    words = {"peer": peer_id, "network": network, "incarnation": str(incarnation)}
    store.put({**words, "name": config.node.name} if config.node.name else words)
    return Record(peer_id, name, (), incarnation, config.learner.enabled, -1)


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
