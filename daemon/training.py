"""One run of a job at this peer: the learner's rounds and their exchange with the neighbours.

Theory of operation. A run configures the learner, starts from the neighbours' models if they are
ahead (`_bootstrap`), then repeats: local work in the learner, announce the outcome, pull the
partners' outcomes, mix. A lockstep (sync) round waits for its partners up to an adaptive deadline;
an async one mixes what has come in. Between rounds, and only there, others may ask the learner for
something (a snapshot for a joiner, an evaluation, an export, another model).

Rules kept here:
- until a joiner has the average it neither sends nor is mixed: it says `bootstrapping`;
- below `min_peers` nothing is trained and nothing is lost: the run waits and goes on by itself;
- a full disk costs a checkpoint, not the training.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol, TypeVar

import trio

from daemon.bootstrap import Beginning, Starter
from daemon.convergence import Convergence
from daemon.gap_gauge import GapGauge
from daemon.inbox import BYTES_PER_VALUE
from daemon.jobs import PostedJob
from daemon.judgement import judge
from daemon.learner_process import Learner, LearnerDied, LearnerFailed
from daemon.notes import Announce, Paired, TrainState
from daemon.pair_exchange import PairExchange
from daemon.round_exchange import RoundExchange
from daemon.shelf import Outgoing
from daemon.to_the_end import to_the_end
from learner.channel import Payload
from learner.messages import (
    CheckpointSaved,
    Command,
    Configure,
    Configured,
    Import,
    Imported,
    LocalDone,
    Mix,
    Mixed,
    Reply,
    RunLocal,
    SaveCheckpoint,
    Snapshot,
    SnapshotTaken,
)
from overlay.transfer import Blob, FetchFailed
from overlay.wire import Want

log = logging.getLogger("gossipd.train")

R = TypeVar("R", bound=Reply)
Exchange = RoundExchange | PairExchange

# States in which this peer's vectors and model are not yet, or no longer, the run's.
NOTHING_TO_GIVE = ("starting", "bootstrapping", "failed")
# A peer that could not catch up with its neighbours goes on by itself for so long.
CATCH_UP_RETRY_S = 30.0
# Rounds may be long: whatever the job says, this much training is lost at the most (and one round).
CHECKPOINT_S = 60.0


class Surroundings(Beginning, Protocol):
    """What a run needs of the session around it."""

    def remember_round(self, run: str, number: int, data: dict[str, Any]) -> None:
        """Keep a round's metrics."""

    def touch(self) -> None:
        """Something has changed."""

    def trainers(self) -> int:
        """Live members with a learner, this peer included."""

    @property
    def paused(self) -> bool:
        """Whether the owner paused training."""


class Run:
    """A learner at work on one posted job."""

    def __init__(
        self,
        around: Surroundings,
        posted: PostedJob,
        learner: Learner,
        nursery: trio.Nursery,
        *,
        lies: bool = False,
    ) -> None:
        """`lies`: this peer tells its neighbours lies, for trials."""
        self._lies = lies
        self._around = around
        self._posted = posted
        self._job = posted.job
        self._learner = learner
        self._nursery = nursery
        self._between = trio.Lock()
        self._configured: Configured | None = None
        self._exchange: Exchange | None = None
        self._converged = Convergence(posted.job.training)
        self._gauge = GapGauge(nursery)
        self._round = 0
        self._saved_at = trio.current_time()
        self._catch_up_at = 0.0

    @property
    def run(self) -> str:
        """The posting's name."""
        return self._posted.run

    # The life of a run.

    async def configure(self, command: Configure) -> None:
        """Load data, model and checkpoint. Raises LearnerFailed or LearnerDied."""
        ready, _ = await self._learner.call(command, Configured)
        self._configured = ready
        by_pairs = self._job.algorithm.name == "ad-psgd"
        self._exchange = (PairExchange if by_pairs else RoundExchange)(
            self._around,
            self._nursery,
            run=self.run,
            job=self._job,
            ready=ready,
            take_model=self._take_model,
        )
        self._round = ready.round
        progress = self._around.progress
        progress.round, progress.rounds = ready.round, self._job.training.rounds
        progress.samples = ready.samples
        progress.layout, progress.layout_text = ready.layout, ready.layout_text
        if ready.round:
            self._begin_anew()
            self._around.report("train.resumed", {"round": ready.round})

    async def train(self) -> None:
        """All rounds, and the state `finished` at the end."""
        starter = Starter(
            self._around, self._learner, run=self.run, job=self._job, ready=self._ready_learner
        )
        await starter.settle(self.train_state())
        self._go_on_from(await starter.start(at_least=self._round + 2 if self._round else 1))
        while self._round < self._job.training.rounds and not self._is_done():
            await self._ready()
            if await self._has_caught_up(starter):
                continue
            async with self._between:
                await self._one_round()
            due = self._round % self._job.training.checkpoint_every == 0
            if due or trio.current_time() - self._saved_at > CHECKPOINT_S:
                await self.checkpoint()
        await self.checkpoint()
        self._around.publish_state("finished")
        self._around.report("train.finished", {"round": self._round})

    async def _has_caught_up(self, starter: Starter) -> bool:
        """Whether this peer was too far behind to be mixed with, and starts anew from the others'
        models."""
        if not self._exchange_.lockstep or trio.current_time() < self._catch_up_at:
            return False
        donors = starter.ahead(self._round, self._exchange_.lead)
        if not donors:
            return False
        self._around.report("train.behind", {"round": self._round})
        if (round := await starter.start_from(donors)) is None:
            self._catch_up_at = trio.current_time() + CATCH_UP_RETRY_S
            self._around.publish_state("training")
            return False
        self._go_on_from(round)
        return True

    def _go_on_from(self, round: int | None) -> None:
        if round is not None:
            self._round = round

    def _is_done(self) -> bool:
        """Whether training has converged and shall end; said once in any case."""
        if self._converged.is_news():
            self._around.report("train.converged", {"round": self._round})
        return self._converged.reached and self._job.training.on_converged == "stop"

    async def checkpoint(self) -> None:
        """Save the state; a disk that cannot take it is reported and training goes on."""
        progress = self._around.progress
        self._saved_at = trio.current_time()
        try:
            saved, _ = await self._ask(SaveCheckpoint(), CheckpointSaved)
        except LearnerFailed as error:
            progress.checkpoint_error = str(error)
            self._around.report("checkpoint.failed", {"reason": str(error)})
        else:
            progress.checkpoint_round, progress.checkpoint_error = saved.round, ""

    async def ask(self, command: Command, answer: type[R]) -> tuple[R, bytearray]:
        """Ask the learner something between two rounds, for somebody outside the run.

        The asker may be cancelled (a client that hung up): the question is then finished all the
        same. Raises LearnerFailed, LearnerDied.
        """
        if self._configured is None:
            raise LearnerFailed("job", "the learner is not ready yet")
        return await to_the_end(self._nursery, lambda: self._ask(command, answer))

    async def import_model(self, path: str) -> Imported:
        """Go on from the model of a safetensors file, as a newcomer does from its neighbours';
        saved before it is acknowledged. Raises LearnerFailed, LearnerDied."""
        return await to_the_end(self._nursery, lambda: self._import(path))

    # What neighbours say and want.

    def on_announce(self, peer: str, note: Announce) -> None:
        """A neighbour's round is ready: fetch it if it is wanted."""
        if self._exchange is not None:
            self._exchange.on_announce(peer, note, self._round)

    def on_paired(self, peer: str, note: Paired) -> None:
        """A neighbour has averaged with this peer's model."""
        if self._exchange is not None:
            self._exchange.on_paired(peer, note)

    def on_lost(self, peer: str) -> None:
        """The link to a neighbour is gone."""
        if self._exchange is not None:
            self._exchange.on_lost(peer)

    async def provide(self, peer: str, want: Want) -> Blob:
        """A blob that a neighbour wants. Raises FetchFailed."""
        if want.scope != self.run:
            raise FetchFailed("another job is running here")
        if self._exchange is None or self._around.progress.state in NOTHING_TO_GIVE:
            raise FetchFailed(f"this peer is {self._around.progress.state}")
        return await self._exchange.provide(peer, want, self._round)

    async def _take_model(self) -> tuple[int, bytearray]:
        try:
            taken, vector = await self.ask(Snapshot(), SnapshotTaken)
        except (LearnerFailed, LearnerDied) as error:
            raise FetchFailed(f"the learner has no model to give: {error}") from None
        return taken.round, vector

    # One round.

    async def _ready(self) -> None:
        """Wait while training is paused or too few peers are there, then be `training`."""
        around, wanted = self._around, self._job.peers_needed
        while around.paused or around.trainers() < wanted:
            if around.paused:
                around.publish_state("paused", "by this peer's owner")
            else:
                there = around.trainers()
                around.publish_state("waiting", f"{there} of at least {wanted} peers are here")
            await around.changed()
        around.publish_state("training")

    async def _one_round(self) -> None:
        number = self._round + 1
        training, exchange = self._job.training, self._exchange_
        evaluate = number % training.evaluate_every == 0 or number == training.rounds
        started, sent = trio.current_time(), self._around.overlay.traffic().data_sent
        restart = exchange.begin(number)
        lie_to = tuple(sorted(self._around.overlay.links)) if self._lies else ()
        work = RunLocal(number, evaluate, restart, lie_to)
        done, vectors = await self._learner.call(work, LocalDone)
        size = BYTES_PER_VALUE * self._ready_learner.values
        outgoing = Outgoing.split(vectors, size, lie_to)
        gathered = await exchange.exchange(number, outgoing, self.train_state(), done.seconds)
        payload: list[Payload] = [r.vectors for r in gathered.received.values()]
        payload += gathered.credits
        weights = tuple(gathered.weights[peer] for peer in gathered.received)
        senders = tuple(gathered.received)
        mix = Mix(number, gathered.own_weight, weights, evaluate, len(gathered.credits), senders)
        mixed, outcome = await self._learner.call(mix, Mixed, payload)
        await exchange.settle(number, gathered, outcome)
        self._round = number
        exchange.finish(number)
        self._record(
            number,
            {
                "loss": done.loss if done.loss is not None else mixed.loss,
                "accuracy_before": done.accuracy,
                "accuracy_after": mixed.accuracy,
                "test_loss": mixed.test_loss,
                "consensus_distance": mixed.distance,
                "change": mixed.change,
                **gathered.figures(),
                **judge(self._around.trust, self._job.robust, gathered, mixed),
                "spectral_gap": self._gauge.look(
                    self._around.overlay.machine.graph, self._job.gossip.mixing, exchange.epoch
                ),
                "round_s": trio.current_time() - started,
                "bytes_sent": self._around.overlay.traffic().data_sent - sent,
            },
        )
        self._converged.add(mixed.change, mixed.distance)

    def _record(self, number: int, figures: dict[str, Any]) -> None:
        progress = self._around.progress
        progress.round = number
        # A round without evaluation keeps the figures of the last one that had it.
        progress.figures |= {key: value for key, value in figures.items() if value is not None}
        self._around.remember_round(self.run, number, figures)

    # Small things.

    def _begin_anew(self) -> None:
        if self._ready_learner.keeps_sum:
            self._around.begin_anew()

    def train_state(self) -> TrainState:
        """Where this run stands, as told to neighbours."""
        progress = self._around.progress
        return TrainState(
            self.run,
            progress.state,
            self._round,
            progress.layout,
            progress.layout_text,
            progress.samples,
        )

    async def _ask(self, command: Command, answer: type[R]) -> tuple[R, bytearray]:
        async with self._between:
            return await self._learner.call(command, answer)

    async def _import(self, path: str) -> Imported:
        progress = self._around.progress
        async with self._between:
            if self._configured is None or progress.state in NOTHING_TO_GIVE:
                reason = f"this peer is {progress.state}; import a model once it trains"
                raise LearnerFailed("job", reason)
            imported, _ = await self._learner.call(Import(path), Imported)
            self._begin_anew()
        seen = {"accuracy": imported.accuracy, "test_loss": imported.test_loss}
        progress.figures |= {"accuracy_after": imported.accuracy, "test_loss": imported.test_loss}
        self._around.report("model.imported", {"path": path, "round": imported.round, **seen})
        await self.checkpoint()
        return imported

    @property
    def _ready_learner(self) -> Configured:
        assert self._configured is not None, "configure comes first"
        return self._configured

    @property
    def _exchange_(self) -> Exchange:
        assert self._exchange is not None, "configure comes first"
        return self._exchange
