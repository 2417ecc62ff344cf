"""The supervisor: keeps a learner at work on the network's job, one `Run` at a time.

Rules kept here:
- a learner that dies comes back from its checkpoint, later each time; the overlay never notices;
- a job that cannot run here is reported, and waits until it is stopped or replaced;
- what the owner stopped stays so across restarts, and is saved before it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import trio

from daemon.checkpoint_folders import checkpoint_dir, forget_older_runs
from daemon.config import Config
from daemon.jobs import JobBoard, PostedJob
from daemon.learner_process import Learner, LearnerDied, LearnerFailed
from daemon.parts import PartImpossible, claim_part, configured_part
from daemon.store import Store
from daemon.training import Run, Surroundings
from learner.job import Job
from learner.messages import Configure

# Restarts of a learner that dies: first wait, doubled up to the last, forgotten after a good spell.
RESTART_FIRST_S = 0.5
RESTART_LAST_S = 60.0
GOOD_SPELL_S = 120.0
FAREWELL_CHECKPOINT_S = 2.0


class Employer(Surroundings, Protocol):
    """What the supervisor, and the run at work, need of the session around them."""

    def remember(self, words: dict[str, str]) -> None:
        """Keep words for the next life, without waiting."""


class Supervisor:
    """One peer's learners, one after the other."""

    def __init__(
        self,
        around: Employer,
        board: JobBoard,
        config: Config,
        store: Store,
        start_learner: Callable[[], AbstractAsyncContextManager[Learner]],
    ) -> None:
        """`start_learner` opens a fresh learner that ends with its block."""
        self.current: Run | None = None  # the run at work
        self._around = around
        self._board = board
        self._config = config
        self._store = store
        self._start_learner = start_learner
        self._stopped = False
        self._job_scope: trio.CancelScope | None = None

    async def restore(self) -> None:
        """Take up what the owner last asked for."""
        self._stopped = await self._store.in_thread(self._store.get, "stopped") == "yes"

    async def stop(self, stopped: bool) -> None:
        """End the learner (with a checkpoint), or start it again; remembered across restarts.
        Raises StoreFailed."""
        await self._store.in_thread(self._store.put, {"stopped": "yes" if stopped else ""})
        if stopped:
            await self.farewell()
        self._stopped = stopped
        self.restart()

    def restart(self) -> None:
        """End the current run; the next one begins."""
        if self._job_scope is not None:
            self._job_scope.cancel()
        self._around.touch()

    async def farewell(self) -> None:
        """Save what can be saved quickly, before the learner ends."""
        run, progress = self.current, self._around.progress
        if run is None or progress.state in ("starting", "bootstrapping"):
            return
        # A learner that goes at the same time (a whole group was told to end) has saved before.
        with trio.move_on_after(FAREWELL_CHECKPOINT_S) as scope:
            with contextlib.suppress(LearnerDied):
                await run.checkpoint()
        if scope.cancelled_caught:
            saved = progress.checkpoint_round
            reason = f"the round under way takes too long; saved is round {saved or 0}"
            self._around.report("checkpoint.skipped", {"reason": reason})

    async def supervise(self) -> None:
        """One life after the other, until cancelled."""
        wait_s = RESTART_FIRST_S
        while True:
            posted = await self._next_job()
            began = trio.current_time()
            with trio.CancelScope() as self._job_scope:
                error = await self._live_until_it_ends(posted)
                if not isinstance(error, LearnerDied):
                    await self._fail(error)
                lived_s = trio.current_time() - began
                wait_s = RESTART_FIRST_S if lived_s > GOOD_SPELL_S else wait_s
                died = {"reason": str(error), "restart_in_s": wait_s}
                self._around.report("learner.died", died)
                self._around.publish_state("starting", f"the learner died: {error}")
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, RESTART_LAST_S)

    async def _next_job(self) -> PostedJob:
        """Wait for a job that may run here."""
        around = self._around
        while True:
            posted = self._board.posted
            if self._stopped:
                around.publish_state("stopped", "by this peer's owner")
            elif posted is None:
                around.publish_state("idle", "there is no job yet")
            elif posted.refused:
                around.publish_state("failed", posted.refused)
            else:
                return posted
            await around.changed()

    async def _live_until_it_ends(self, posted: PostedJob) -> BaseException:
        """Why a learner's life ended: LearnerDied, LearnerFailed or PartImpossible."""
        error: BaseException = LearnerDied("it ended by itself")
        try:
            await self._live(posted)
        except* (LearnerDied, LearnerFailed, PartImpossible) as group:
            error = _first(group)
        return error

    async def _live(self, posted: PostedJob) -> None:
        """One learner's life on one job; ends by LearnerDied, LearnerFailed or cancellation."""
        around, progress = self._around, self._around.progress
        # Until the learner has built its model, nobody shall hear of the last job's.
        progress.layout = progress.layout_text = ""
        around.publish_state("starting")
        try:
            async with self._start_learner() as learner, trio.open_nursery() as nursery:
                nursery.start_soon(_watch, learner)
                progress.learner_pid = learner.pid
                try:
                    lies = bool(self._config.lie.attack)
                    self.current = Run(around, posted, learner, nursery, lies=lies)
                    await self.current.configure(await self._configuration(posted))
                    around.report("learner.started", {"pid": learner.pid, "run": posted.run})
                    await self.current.train()
                    await trio.sleep_forever()
                finally:
                    self.current = None  # before the nursery closes: nobody shall ask it any more
        finally:
            progress.learner_pid = None

    async def _fail(self, error: BaseException) -> None:
        """The job cannot run here: say so, and wait until it is stopped or replaced."""
        kind = error.kind if isinstance(error, LearnerFailed) else "data"
        self._around.publish_state("failed", str(error))
        self._around.report("train.failed", {"kind": kind, "reason": str(error)})
        await trio.sleep_forever()

    # What a learner is told before it begins.

    async def _configuration(self, posted: PostedJob) -> Configure:
        config, job = self._config, posted.job
        if config.data.source:
            # Somebody's own data are all theirs: there is nothing to share out.
            job = dataclasses.replace(
                job, partition=dataclasses.replace(job.partition, kind="none")
            )
        part = await self._part_of(job)
        self._around.progress.part = part
        directory = checkpoint_dir(config.data_dir, posted.run)
        forget_older_runs(directory)
        return Configure(
            job=job.to_json(),
            source=config.data.source,
            data_dir=str(config.datasets),
            part=part or 0,
            checkpoint_dir=str(directory),
            resume=True,
            threads=config.learner.threads,
            lie=config.lie.attack,
            accomplices=self._accomplices(),
        )

    def _accomplices(self) -> tuple[str, ...]:
        """The ids of those who lie with this peer, named by id or name (live ones only)."""
        named = self._config.lie.accomplices
        live = self._around.overlay.machine.table.live()
        return tuple(r.peer_id for r in live if r.peer_id in named or r.name in named)

    async def _part_of(self, job: Job) -> int | None:
        """The part of the data set that is this peer's, None if it is not shared out."""
        if job.partition.kind == "none":
            return None
        own = configured_part(self._config.own_part, job.partition)
        remembered = int(await self._store.in_thread(self._store.get, "part", "-1"))
        part = await claim_part(self._around.overlay, job.partition, own, remembered)
        if own is None:
            self._around.remember({"part": str(part)})
        return part


async def _watch(learner: Learner) -> None:
    """A learner that dies while nobody asks it anything is noticed too."""
    raise LearnerDied(await learner.died())


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
