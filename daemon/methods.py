"""The control API's methods: what each name does. The same table feeds RPC, discovery and docs.

Rules kept here:
- a method is an async function with typed parameters; its docstring's first line is its summary;
- refusals are RpcError with one of the kinds below, and their codes never change meaning;
- nothing secret is returned.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from daemon import openrpc
from daemon.jsonrpc import Handler, Method, RpcError
from daemon.learner_process import LearnerDied, LearnerFailed
from daemon.naming import peer_named
from daemon.network_api import NetworkApi
from daemon.overlay_api import OverlayApi
from daemon.refusals import (
    BAD_PATH,
    JOB_INVALID,
    LEARNER_FAILED,
    NEEDS_WEBSOCKET,
    NOT_TRAINING,
    STORE_FAILED,
    UNKNOWN_PEER,
)
from daemon.running import Node
from daemon.session import NotTraining
from daemon.store import StoreFailed
from daemon.version import VERSION
from learner.job import Job
from learner.job_file import job_from_table, job_from_toml
from learner.messages import Evaluate, Evaluated, Export, Exported
from learner.schema import SchemaError, as_table

MAX_HISTORY = 10_000


def build(node: Node) -> dict[str, Method]:
    """The method table of a node."""
    methods: dict[str, Method] = {}
    for name, (handler, read_only) in _handlers(node, lambda: methods).items():
        summary = (handler.__doc__ or "").strip().splitlines()[0]
        methods[name] = Method(name, summary, handler, read_only)
    return methods


def _handlers(
    node: Node, table: Callable[[], dict[str, Method]]
) -> dict[str, tuple[Handler, bool]]:
    async def discover() -> dict[str, Any]:
        """The OpenRPC document of this API."""
        return openrpc.document(table(), version=VERSION)

    node_, overlay_, train, job = NodeApi(node), OverlayApi(node), TrainApi(node), JobApi(node)
    model, metrics, events = ModelApi(node), MetricsApi(node), EventsApi(node)
    trust, network = TrustApi(node), NetworkApi(node)
    return {
        "rpc.discover": (discover, True),
        "node.info": (node_.info, True),
        "node.status": (node_.status, True),
        "node.stop": (node_.stop, False),
        "overlay.members": (overlay_.members, True),
        "overlay.topology": (overlay_.topology, True),
        "overlay.join": (overlay_.join, False),
        "overlay.leave": (overlay_.leave, False),
        "network.invite": (network.invite, False),
        "network.revoke": (network.revoke, False),
        "network.rotate": (network.rotate, False),
        "train.status": (train.status, True),
        "train.start": (train.start, False),
        "train.stop": (train.stop, False),
        "train.pause": (train.pause, False),
        "train.resume": (train.resume, False),
        "train.block": (trust.block, False),
        "train.unblock": (trust.unblock, False),
        "job.show": (job.show, True),
        "job.submit": (job.submit, False),
        "model.evaluate": (model.evaluate, True),
        "model.export": (model.export, False),
        "model.import": (model.import_file, False),
        "metrics.get": (metrics.get, True),
        "events.list": (events.list, True),
        "events.subscribe": (events.subscribe, True),
    }


class NodeApi:
    """This daemon."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def info(self) -> dict[str, Any]:
        """What this daemon is: version, ids, addresses, files."""
        node = self._node
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "peer": node.overlay.my_id,
            "name": node.overlay.machine.table.me.name,
            "network": node.overlay.machine.network_id,
            "listen": node.overlay.address,
            "addresses": list(node.overlay.machine.table.me.addresses),
            "encrypted": node.notary is not None,
            **_membership(node),
            "control": node.control_binds,
            "data_dir": str(node.config.data_dir),
            "learner": node.config.learner.enabled,
        }

    async def status(self) -> dict[str, Any]:
        """How this daemon is: uptime, members, links, training, memory."""
        node = self._node
        live = node.overlay.machine.table.live()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **await self.info(),
            "uptime_s": time.time() - node.started_at,
            "members": len(live),
            "join_error": _join_error(node),
            "neighbours": sorted(node.overlay.links),
            "wanted": sorted(node.overlay.machine.graph.wanted),
            "train": node.session.progress.to_json(),
            "paused": node.session.paused,
            "job": _job_brief(node),
            "traffic": asdict(node.overlay.traffic()),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_bytes": _rss_bytes(),
        }

    async def stop(self) -> dict[str, Any]:
        """Leave the network and end the daemon."""
        self._node.stop()
        return {"stopping": True}


class TrainApi:
    """Training at this peer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def status(self) -> dict[str, Any]:
        """Where training stands, here and at the neighbours."""
        session = self._node.session
        neighbours = {
            peer: {
                "state": state.state,
                "round": session.view.round_of(peer),
                "samples": state.samples,
            }
            for peer, state in session.view.states().items()
        }
        return {
            **session.progress.to_json(),
            "paused": session.paused,
            "job": _job_brief(self._node),
            "neighbour_states": neighbours,
            "trust": session.trust.to_json(),
        }

    async def start(self) -> dict[str, Any]:
        """Start training again after train.stop."""
        self._needs_learner()
        await self._stop(False)
        return {"state": self._node.session.progress.state}

    async def stop(self) -> dict[str, Any]:
        """Save a checkpoint, end the learner, and stay so across restarts."""
        self._needs_learner()
        await self._stop(True)
        return {
            "state": "stopped",
            "checkpoint_round": self._node.session.progress.checkpoint_round,
        }

    async def pause(self) -> dict[str, Any]:
        """Pause after the current round; the learner keeps its state."""
        self._needs_learner()
        self._node.session.pause(True)
        return {"paused": True, "state": self._node.session.progress.state}

    async def resume(self) -> dict[str, Any]:
        """Go on after train.pause."""
        self._needs_learner()
        self._node.session.pause(False)
        return {"paused": False, "state": self._node.session.progress.state}

    async def _stop(self, stopped: bool) -> None:
        try:
            await self._node.session.stop(stopped)
        except StoreFailed as error:
            raise RpcError(STORE_FAILED, error.kind.replace(".", "_"), str(error)) from None

    def _needs_learner(self) -> None:
        if not self._node.config.learner.enabled:
            raise RpcError(
                NOT_TRAINING, "not_training", "this daemon was started without a learner"
            )


class TrustApi:
    """Whom this peer trains with."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def block(self, peer: str) -> dict[str, Any]:
        """Leave a peer (by id, its beginning, or name) out of this one's training, for good."""
        return await self._set(peer, True)

    async def unblock(self, peer: str) -> dict[str, Any]:
        """Take back train.block."""
        return await self._set(peer, False)

    async def _set(self, word: str, blocked: bool) -> dict[str, Any]:
        session = self._node.session
        peer = peer_named(self._node, word, besides=session.trust.blocked)
        if peer == self._node.overlay.my_id:
            raise RpcError(UNKNOWN_PEER, "unknown_peer", "a peer cannot block itself")
        try:
            await session.block(peer, blocked)
        except StoreFailed as error:
            raise RpcError(STORE_FAILED, error.kind.replace(".", "_"), str(error)) from None
        return {"peer": peer, "blocked": blocked}


class JobApi:
    """The network's job."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def show(self) -> dict[str, Any]:
        """The network's job, whole."""
        posted = self._node.session.jobs.board.posted
        if posted is None:
            return {"version": 0, "job": None}
        return {**(_job_brief(self._node) or {}), "job": as_table(posted.job)}

    async def submit(
        self, job: dict[str, Any] | None = None, toml: str | None = None
    ) -> dict[str, Any]:
        """Make a job (as an object, or as TOML text) the network's job."""
        parsed = _parse_job(job, toml)
        try:
            posted = await self._node.session.jobs.submit(parsed)
        except StoreFailed as error:
            raise RpcError(STORE_FAILED, error.kind.replace(".", "_"), str(error)) from None
        return {"version": posted.version, "digest": posted.job.digest, "run": posted.run}


class ModelApi:
    """The model as it is now."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def evaluate(self) -> dict[str, Any]:
        """Evaluate the current model on this peer's held-out data."""
        reply: Evaluated = await self._ask(Evaluate(), Evaluated)
        return asdict(reply)

    async def export(self, path: str) -> dict[str, Any]:
        """Write the current model as safetensors to an absolute path on the daemon's machine."""
        target = _absolute(path)
        if not await trio.Path(target.parent).is_dir():
            message = f"{path!r} must be an absolute path in a folder that exists"
            raise RpcError(BAD_PATH, "bad_path", message)
        reply: Exported = await self._ask(Export(str(target)), Exported)
        return asdict(reply)

    async def import_file(self, path: str) -> dict[str, Any]:
        """Go on from the model of a safetensors file, an absolute path on the daemon's machine."""
        target = _absolute(path)
        with _refusals():
            return asdict(await self._node.session.running().import_model(str(target)))

    async def _ask(self, command: Any, answer: Any) -> Any:
        with _refusals():
            reply, _ = await self._node.session.running().ask(command, answer)
        return reply


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The learner's refusals as the API tells them."""
    try:
        yield
    except NotTraining as error:
        raise RpcError(NOT_TRAINING, "not_training", str(error)) from None
    except (LearnerFailed, LearnerDied) as error:
        kind = error.kind if isinstance(error, LearnerFailed) else "died"
        raise RpcError(LEARNER_FAILED, "learner_failed", str(error), cause=kind) from None


class MetricsApi:
    """Figures, now and over time."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get(self, since: int = 0, limit: int = 1000) -> dict[str, Any]:
        """The newest figures, and the rounds numbered `since` and above (the newest `limit`)."""
        node, posted = self._node, self._node.session.jobs.board.posted
        bounded, first = max(0, min(limit, MAX_HISTORY)), max(0, min(since, 2**53))
        history: list[dict[str, Any]] = []
        if posted is not None and bounded:
            history = await node.store.in_thread(
                lambda: node.store.rounds(posted.run, since=first, limit=bounded)
            )
        return {"current": node.session.progress.to_json(), "history": history}


class EventsApi:
    """What happened."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, since: int = 0, prefix: str = "", limit: int = 200) -> dict[str, Any]:
        """The kept events numbered above `since` whose kind begins with `prefix`."""
        events = self._node.events.since(since, prefix=prefix, limit=max(0, limit))
        return {"events": [event.to_json() for event in events]}

    async def subscribe(
        self, connection: Any, prefix: str = "", since: int | None = None
    ) -> dict[str, Any]:
        """Send events as they happen, as `event` notifications (websocket only)."""
        if connection is None:
            message = "events.subscribe needs the websocket /rpc; over HTTP use events.list"
            raise RpcError(NEEDS_WEBSOCKET, "needs_websocket", message)
        connection.follow(prefix, since)
        return {"subscribed": prefix}


def _absolute(path: str) -> Path:
    """A path on this machine. Raises RpcError (bad_path) where it cannot be one."""
    target = Path(path)
    if not target.is_absolute() or not path.isprintable():
        message = f"{path!r} must be an absolute path in a folder that exists"
        raise RpcError(BAD_PATH, "bad_path", message)
    return target


def _parse_job(table: dict[str, Any] | None, toml: str | None) -> Job:
    try:
        if toml is not None and table is None:
            return job_from_toml(toml, source="job")
        if table is not None and toml is None:
            return job_from_table(table, source="job")
    except SchemaError as error:
        problems = [str(problem) for problem in error.problems]
        raise RpcError(JOB_INVALID, "job_invalid", str(error), problems=problems) from None
    message = "give either job (an object) or toml (a text)"
    raise RpcError(JOB_INVALID, "job_invalid", message, problems=[message])


def _membership(node: Node) -> dict[str, Any]:
    """This peer's role, until when its certificate is valid, and why it was put out, if it was."""
    if node.notary is None:
        return {"role": None, "certificate_expires_at": None, "revoked": None}
    certified = node.notary.certified
    out = node.overlay.machine.table.revocations.by_peer.get(node.overlay.my_id)
    return {
        "role": certified.role,
        "certificate_expires_at": certified.expires_at,
        "revoked": None if out is None else (out.reason or "no reason was given"),
    }


def _join_error(node: Node) -> str:
    """Why this peer is still alone, '' once it is not."""
    failures = node.events.since(0, prefix="dial.failed", limit=1)
    alone = len(node.overlay.machine.table.live()) == 1
    return str(failures[0].data["reason"]) if failures and alone else ""


def _job_brief(node: Node) -> dict[str, Any] | None:
    posted = node.session.jobs.board.posted
    if posted is None:
        return None
    return {
        "name": posted.job.name,
        "version": posted.version,
        "digest": posted.job.digest,
        "run": posted.run,
        "refused": posted.refused,
    }


def _rss_bytes() -> int | None:
    """Resident memory now, where /proc tells it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()
