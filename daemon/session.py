"""The session: joins the overlay to the learner.

It listens to the overlay (events, neighbours' notes, wants) and passes on what concerns the job,
the trust in others, or the run at work; it tells the neighbours and the log what goes on here, and
does what the owner asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from daemon.authorship import Authors
from daemon.config import Config
from daemon.events import EventLog
from daemon.exchange import Repeated, View
from daemon.job_office import JobOffice
from daemon.jobs import JobBoard
from daemon.learner_process import Learner
from daemon.mixing_graph import topology_of
from daemon.notes import (
    NOTES,
    Announce,
    JobOffer,
    JobRequest,
    JobState,
    Note,
    Paired,
    TrainState,
)
from daemon.progress import Progress
from daemon.round_log import RoundLog
from daemon.store import Store, StoreFailed
from daemon.supervisor import Supervisor
from daemon.training import Run
from daemon.trust import DUPLICATE, Trust
from overlay.codec import WireError
from overlay.driver import Overlay
from overlay.identity import is_id, short
from overlay.transfer import Blob, FetchFailed
from overlay.wire import Want

log = logging.getLogger("gossipd.session")

# Events that somebody should look into.
TROUBLE = (
    "dial.failed", "peer.misbehaved", "learner.died", "train.failed", "checkpoint.failed",
    "checkpoint.skipped", "disk.full", "store.failed", "job.unreadable", "job.unauthorised",
    "config.rejected", "peer.refused", "peer.suspicious", "robust.too_small",
)  # fmt: skip


class NotTraining(Exception):
    """There is no learner to ask; the message says why."""


class Session:
    """One peer's training life. Implements the overlay's Listener and the supervisor's Employer."""

    overlay: Overlay

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        start_learner: Callable[[], AbstractAsyncContextManager[Learner]],
    ) -> None:
        """`start_learner` opens a fresh learner that ends with its block."""
        self.trust = Trust(store, self.report)
        self.view = View(self.trust.blocks)
        self.progress = Progress()
        self.jobs = JobOffice(
            JobBoard(config.learner.allow, own_data=bool(config.data.source)),
            Authors(config.learner.jobs_from, lambda: self.overlay),
            store,
            say=self._send,
            neighbours=lambda: self.overlay.links,
            report=self.report,
            remember=self.remember,
            on_posted=self._on_posted,
        )
        self.rounds = RoundLog(store, self.report)
        self.paused = False
        self._supervisor = Supervisor(self, self.jobs.board, config, store, start_learner)
        self._has_learner = config.learner.enabled
        self._store = store
        self._events = events
        self._moved = trio.Event()
        if not self._has_learner:
            self.progress.state = "off"

    # Life.

    async def restore(self) -> None:
        """Take up where the last life ended."""
        await self.trust.restore()
        await self.jobs.restore()
        await self._supervisor.restore()

    async def run(self) -> None:
        """Train, and keep what was measured, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rounds.run)
            if self._has_learner:
                nursery.start_soon(self._supervisor.supervise)

    async def farewell(self) -> None:
        """Save what can be saved quickly, before the process ends."""
        await self._supervisor.farewell()

    # What the owner asks for.

    def pause(self, paused: bool) -> None:
        """Pause after the current round, or go on."""
        self.paused = paused
        self.touch()

    async def stop(self, stopped: bool) -> None:
        """End the learner (with a checkpoint), or start it again; remembered across restarts.
        Raises StoreFailed."""
        await self._supervisor.stop(stopped)
        self.paused = False

    async def block(self, peer: str, blocked: bool) -> None:
        """Leave a peer out of this one's training, or take it in again. Raises StoreFailed."""
        await self.trust.block(peer, blocked)
        if blocked and (run := self._supervisor.current) is not None:
            run.on_lost(peer)
        self.touch()

    def reconfigure(self, config: Config) -> None:
        """Take over what can change while running: what jobs may use here, and whose."""
        self.jobs.allow(config.learner.allow, config.learner.jobs_from)

    def running(self) -> Run:
        """The run at work. Raises NotTraining."""
        if (run := self._supervisor.current) is None:
            reason = self.progress.reason or "no learner is running"
            raise NotTraining(f"{self.progress.state}: {reason}")
        return run

    def may_adopt_network(self) -> bool:
        """Whether this peer would give up its network: it knows nobody and trains nothing."""
        return len(self.overlay.machine.table.records()) == 1 and self.jobs.board.posted is None

    # Listener: what the overlay tells.

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Record an event."""
        event = self._events.add(kind, data)
        level = logging.WARNING if event.kind in TROUBLE else logging.INFO
        log.log(level, "%s %s", event.kind, _line(data))
        if kind == "member.revoked":
            self.jobs.review()
        if kind == "link.down" and "peer" in data:
            self.view.forget(data["peer"])
            if (run := self._supervisor.current) is not None:
                run.on_lost(data["peer"])
        self.touch()

    def note(self, peer: str, body: bytes) -> None:
        """A neighbour's session says something. Raises WireError for nonsense."""
        note = NOTES.decode(body)
        blocked, run = self.trust.blocks(peer), self._supervisor.current
        match note:
            case JobState() | JobRequest() | JobOffer() | Paired() if blocked:
                pass
            case JobState() | JobRequest() | JobOffer():
                self.jobs.hear(peer, note)
            case TrainState():
                self._check_round(note)
                self.view.hear_state(peer, note)
            case Announce():
                self._check_round(note)
                try:
                    news = self.view.hear_announce(peer, note)
                except Repeated as error:
                    self.trust.refuse(peer, DUPLICATE, str(error))
                    news = False
                if news and not blocked and run is not None:
                    run.on_announce(peer, note)
            case Paired():
                if run is not None and note.run == run.run:
                    run.on_paired(peer, note)
        self.touch()

    def _check_round(self, note: TrainState | Announce) -> None:
        """A round beyond the job's would lead everybody astray. Raises WireError."""
        posted = self.jobs.board.posted
        if posted is None or note.run != posted.run:
            return
        if note.round > posted.job.training.rounds:
            raise WireError(f"round {note.round} of {posted.job.training.rounds}")

    def linked(self, peer: str) -> None:
        """A new neighbour hears which job is in force and where this peer stands."""
        self.jobs.greet(peer)
        self._send(peer, self._train_state())

    def network_adopted(self, network_id: str) -> None:
        """This peer now belongs to a network."""
        self.remember({"network": network_id})
        self.report("network.joined", {"network": network_id})

    async def provide(self, peer: str, want: Want) -> Blob:
        """A blob for a neighbour. Raises FetchFailed."""
        if (run := self._supervisor.current) is None:
            raise FetchFailed("no learner is running")
        if self.trust.blocks(peer):
            raise FetchFailed("this peer's owner gives you nothing")
        return await run.provide(peer, want)

    # Employer: what the supervisor and its run need.

    def publish_state(self, state: str, reason: str = "") -> None:
        """Enter a training state and tell the neighbours, if it is another."""
        progress = self.progress
        if (progress.state, progress.reason) == (state, reason):
            return
        entered = progress.state != state
        progress.state, progress.reason = state, reason
        if entered:
            self.report("train.state", {"state": state, "reason": reason})
            for peer in self.overlay.links:
                self._send(peer, self._train_state())

    def remember_round(self, run: str, number: int, data: dict[str, Any]) -> None:
        """Queue a round's metrics for the store."""
        self._events.add("train.round", {"round": number, **data})
        self.rounds.add(run, number, data)

    def begin_anew(self) -> None:
        """Enter a life of one's own anew: who takes part, and in which life, names the epoch."""
        self.overlay.describe_me()

    def trainers(self) -> int:
        """Live members that train or are about to, this peer included: a neighbour whose learner
        is not ready says so and does not count; of members further away, and of those that are
        blocked, only the record tells."""
        overlay = self.overlay
        learners = {r.peer_id for r in overlay.machine.table.live() if r.learner}
        return (
            sum(
                peer not in overlay.links or self.view.is_ready(peer) or self.trust.blocks(peer)
                for peer in learners - {overlay.my_id}
            )
            + 1
        )

    async def changed(self) -> None:
        """Wait for the next change of anything a decision may depend on."""
        await self._moved.wait()

    def touch(self) -> None:
        """Something has changed."""
        self._moved.set()
        self._moved = trio.Event()

    def remember(self, words: dict[str, str]) -> None:
        """Keep words for the next life from where nobody can wait; rare, and a millisecond."""
        try:
            self._store.put(words)
        except StoreFailed as error:
            self.report(error.kind, {"reason": str(error)})

    # Within.

    def _on_posted(self) -> None:
        """Another job is in force."""
        if (posted := self.jobs.board.posted) is not None:
            self.overlay.set_topology(topology_of(posted.job.gossip))
        self.progress.forget_run()
        self.trust.forget_run()
        self._supervisor.restart()

    def _train_state(self) -> TrainState:
        if (run := self._supervisor.current) is not None:
            return run.train_state()
        posted, progress = self.jobs.board.posted, self.progress
        return TrainState(posted.run if posted else "", progress.state, 0, "", "", 0)

    def _send(self, peer: str, note: Note) -> None:
        if self.trust.blocks(peer) and isinstance(note, (JobState, JobOffer)):
            return
        self.overlay.send_note(peer, NOTES.encode(note))


def _line(data: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={_shown(value)}" for key, value in data.items() if value not in ("", [])
    )


def _shown(value: Any) -> Any:
    """A value as people read it: ids short, numbers with a few digits."""
    if isinstance(value, list):
        return ",".join(str(_shown(item)) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return short(value) if isinstance(value, str) and is_id(value) else value
