"""The control API's methods about training: the network's job, how this peer gets on with it, whom
it trains with, and the figures of its rounds."""

from __future__ import annotations

from typing import Any

from daemon.authorship import NotAnAuthor
from daemon.jobs import JobRejected
from daemon.naming import peer_named
from daemon.refusals import (
    JOB_INVALID,
    NETWORK_REFUSED,
    NOT_TRAINING,
    UNKNOWN_PEER,
    RpcError,
    store_failed,
)
from daemon.running import Node
from daemon.store import StoreFailed
from learner.job import Job
from learner.job_file import job_from_table, job_from_toml
from learner.schema import SchemaError, as_table

MAX_HISTORY = 10_000


class JobApi:
    """The network's job."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def show(self) -> dict[str, Any]:
        """The network's job, whole."""
        posted = self._node.session.jobs.board.posted
        if posted is None:
            return {"version": 0, "job": None}
        return {**posted.brief(), "job": as_table(posted.job)}

    async def submit(
        self, job: dict[str, Any] | None = None, toml: str | None = None
    ) -> dict[str, Any]:
        """Make a job (as an object, or as TOML text) the network's job."""
        parsed = _parse_job(job, toml)
        try:
            posted = await self._node.session.jobs.submit(parsed)
        except (NotAnAuthor, JobRejected) as error:
            raise RpcError(NETWORK_REFUSED, "network_refused", str(error)) from None
        except StoreFailed as error:
            raise store_failed(error) from None
        return {"version": posted.version, "digest": posted.job.digest, "run": posted.run}


class TrainApi:
    """Training at this peer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def status(self) -> dict[str, Any]:
        """Where training stands, here and at the neighbours."""
        session = self._node.session
        posted = session.jobs.board.posted
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
            "job": posted.brief() if posted else None,
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
            raise store_failed(error) from None

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
            raise store_failed(error) from None
        return {"peer": peer, "blocked": blocked}


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
