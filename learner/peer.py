"""One peer's learning behind the commands of `messages`: configure, train, mix, save.

Rules kept here:
- no process, no socket: `Learner.answer` takes a command and gives a reply, so that the worker, a
  test and a laboratory on one machine drive the same object;
- every command either happens as a whole or leaves everything as it was;
- a LearnerError becomes a `Failed` reply with its advice; anything else is a bug of ours, whose
  traceback goes to the log and never to the reply.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner import algorithms, checkpoint, data, models, partition
from learner import messages as say
from learner.algorithms import inbox_view
from learner.data import Dataset
from learner.errors import LearnerError
from learner.evaluation import Evaluation, evaluate
from learner.job import Job, check_source, job_from_json
from learner.mixing import finite_rows, weighted_mean
from learner.schema import SchemaError
from learner.trainer import State, Trainer
from learner.vector import Layout

logger = logging.getLogger("learner")

Answer = tuple[say.Reply, memoryview]
NOTHING = memoryview(b"")


class Learner:
    """Answers commands. Before the first Configure only Configure can be answered."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def answer(self, command: say.Message, payload: bytearray) -> Answer:
        """The one reply to `command` and its payload; never raises for a failed command."""
        try:
            return self._carry_out(command, payload)
        except LearnerError as error:
            if error.__cause__ is not None:
                logger.info("%s failed", type(command).__name__, exc_info=error)
            return say.Failed(error.kind, error.message), NOTHING
        except Exception as error:
            logger.exception("bug while carrying out %s", type(command).__name__)
            text = f"{type(command).__name__}: {type(error).__name__}: {error}"
            return say.Failed("bug", f"{text[:300]} (the traceback is in the log)"), NOTHING

    def _carry_out(self, command: say.Message, payload: bytearray) -> Answer:
        if isinstance(command, say.Configure):
            self._session = Session(command)
            return self._session.configured(), NOTHING
        if type(command) not in COMMANDS:
            raise LearnerError("job", f"{type(command).__name__} is no command")
        if self._session is None:
            raise LearnerError("job", f"{type(command).__name__} came before Configure")
        return COMMANDS[type(command)](self._session, command, payload)


class Session:
    """A configured job: data, model, trainer and algorithm, at `round` completed rounds."""

    def __init__(self, command: say.Configure) -> None:
        """Load everything, and the newest checkpoint if asked to. Raises LearnerError."""
        if command.threads > 0:
            torch.set_num_threads(command.threads)
        self._job = _job(command)
        self._data = _data(self._job, command)
        self._trainer, self._layout = assemble(self._job, self._data, command.part)
        self._algorithm = algorithms.build(self._job.algorithm, self._trainer, self._layout)
        self._checkpoints = Path(command.checkpoint_dir)
        self.round = 0
        self._pending: int | None = None  # the round whose local work is done but not mixed
        if command.resume:
            self._resume()

    def configured(self) -> say.Configured:
        return say.Configured(
            layout=agreement(self._layout, self._data),
            layout_text=describe(self._layout, self._data),
            dimension=self._layout.dimension,
            exchanged=self._algorithm.exchanged,
            round=self.round,
            samples=self._trainer.samples,
            test_samples=len(self._data.y_test),
        )

    def run_local(self, command: say.RunLocal, payload: bytearray) -> Answer:
        started = time.perf_counter()
        # Failing local work undoes itself; only an evaluation after it needs this copy.
        before = self._trainer.state() if command.evaluate else None
        outgoing = self._algorithm.local(command.round)
        seconds = time.perf_counter() - started
        try:
            seen = self._evaluate() if before else None
        except BaseException:
            if before:
                self._trainer.restore(before)
            self._abandon_round()
            raise
        self._pending = command.round
        progress = self._algorithm.progress
        reply = say.LocalDone(
            command.round, progress.loss, progress.steps, seconds, *_accuracy_and_loss(seen)
        )
        return reply, _bytes(outgoing)

    def mix(self, command: say.Mix, payload: bytearray) -> Answer:
        """Senders whose vectors are not finite are left out; their weight stays on oneself."""
        if command.round != self._pending:
            raise LearnerError(
                "job", f"round {command.round} cannot be mixed: its local work has not been done"
            )
        started = time.perf_counter()
        exchanged = len(self._algorithm.exchanged)
        inbox = inbox_view(payload, len(command.weights), exchanged, self._layout.dimension)
        own_weight, weights, inbox = _without_poison(command, inbox)
        with self._weights_kept_on_error():
            distance = self._algorithm.mix(own_weight, weights, inbox)
            seconds = time.perf_counter() - started
            seen = self._evaluate() if command.evaluate else None
        self._abandon_round()
        self.round = command.round
        return say.Mixed(command.round, seconds, *_accuracy_and_loss(seen), distance), NOTHING

    def bootstrap(self, command: say.Bootstrap, payload: bytearray) -> Answer:
        count = len(command.weights)
        vectors = inbox_view(payload, count, 1, self._layout.dimension)[:, 0]
        weights = _normalised(command.weights)
        finite = finite_rows(vectors)
        if not any(finite):
            raise LearnerError("layout", f"all {count} models hold NaN or infinity")
        if not all(finite):
            logger.warning("%d of %d models hold NaN or infinity", finite.count(False), count)
            vectors = vectors[torch.tensor(finite)]
            kept = [weight for weight, good in zip(weights, finite, strict=True) if good]
            weights = [weight / math.fsum(kept) for weight in kept]
        average = weighted_mean(vectors[0], vectors[1:], weights[0], weights[1:])
        with self._weights_kept_on_error():
            self._layout.assign(self._trainer.model, average)
            seen = self._evaluate()
        self._trainer.reset_optimizer()
        self._abandon_round()
        self.round = command.round
        return say.Bootstrapped(command.round, seen.accuracy, seen.loss), NOTHING

    def snapshot(self, command: say.Snapshot, payload: bytearray) -> Answer:
        return say.SnapshotTaken(self.round), _bytes(self._layout.flatten(self._trainer.model))

    def evaluate(self, command: say.Evaluate, payload: bytearray) -> Answer:
        seen = self._evaluate()
        return say.Evaluated(self.round, seen.accuracy, seen.loss, seen.samples), NOTHING

    def export(self, command: say.Export, payload: bytearray) -> Answer:
        size = checkpoint.export(Path(command.path), self._trainer.model)
        return say.Exported(command.path, size), NOTHING

    def save(self, command: say.SaveCheckpoint, payload: bytearray) -> Answer:
        """Best sent between rounds: local work that is not mixed yet would be done again."""
        started = time.perf_counter()
        state = self._trainer.state()
        path = checkpoint.save(
            self._checkpoints,
            checkpoint.Checkpoint(
                self.round, self._job.digest, self._layout.digest, state.position, state.tensors
            ),
        )
        seconds = time.perf_counter() - started
        return say.CheckpointSaved(str(path), self.round, seconds), NOTHING

    def _resume(self) -> None:
        found, warnings = checkpoint.load_newest(self._checkpoints, job=self._job.digest)
        for warning in warnings:
            logger.warning("%s", warning)
        if found is None:
            return
        if found.layout != self._layout.digest:
            raise LearnerError(
                "checkpoint", f"the checkpoint in {self._checkpoints} is of another model than the"
                " job's code and data make now; put them back, or move the checkpoints away",
            )  # fmt: skip
        self._trainer.restore(State(found.tensors, found.position))
        self.round = found.round

    def _evaluate(self) -> Evaluation:
        return evaluate(self._trainer.model, self._data.x_test, self._data.y_test)

    def _abandon_round(self) -> None:
        self._algorithm.forget()
        self._pending = None

    @contextmanager
    def _weights_kept_on_error(self) -> Iterator[None]:
        before = self._layout.flatten(self._trainer.model)
        try:
            yield
        except BaseException:
            self._layout.assign(self._trainer.model, before)
            raise


def assemble(job: Job, dataset: Dataset, part: int) -> tuple[Trainer, Layout]:
    """The trainer of one part with the job's initial model, and the model's layout."""
    mine = partition.take(dataset, job.partition, part, job.seed)
    model = models.build(job.model, dataset.input_shape, dataset.classes, job.seed)
    trainer = Trainer(
        model, mine.x_train, mine.y_train,
        optimizer=job.optimizer, training=job.training, seed=job.seed, part=part,
    )  # fmt: skip
    return trainer, Layout.of(model, job.model.buffers)


def agreement(layout: Layout, dataset: Dataset) -> str:
    """The digest that peers compare: equal tensors, and equal meanings of the class numbers."""
    if not dataset.class_names:
        return layout.digest
    words = json.dumps([layout.digest, dataset.class_names]).encode()
    return hashlib.sha256(words).hexdigest()[:16]


def describe(layout: Layout, dataset: Dataset) -> str:
    """The same for people: '6 tensors, 9,098 values, classes cat, dog'."""
    names = ", ".join(dataset.class_names)
    return f"{layout.text}, classes {names}"[:120] if names else layout.text


COMMANDS: dict[type[Any], Callable[[Session, Any, bytearray], Answer]] = {
    say.RunLocal: Session.run_local,
    say.Mix: Session.mix,
    say.Bootstrap: Session.bootstrap,
    say.Snapshot: Session.snapshot,
    say.Evaluate: Session.evaluate,
    say.Export: Session.export,
    say.SaveCheckpoint: Session.save,
}


def _job(command: say.Configure) -> Job:
    try:
        return job_from_json(command.job, source="job")
    except SchemaError as error:
        raise LearnerError("job", str(error)) from error


def _data(job: Job, command: say.Configure) -> Dataset:
    if command.source and (wrong := check_source(command.source)):
        raise LearnerError("data", f"the configured data source: {wrong}")
    return data.load(job.data, command.source, command.data_dir, job.seed)


def _without_poison(command: say.Mix, inbox: Tensor) -> tuple[float, list[float], Tensor]:
    finite = finite_rows(inbox)
    if all(finite):
        return command.own_weight, list(command.weights), inbox
    kept = [weight for weight, good in zip(command.weights, finite, strict=True) if good]
    dropped = [weight for weight, good in zip(command.weights, finite, strict=True) if not good]
    logger.warning(
        "round %d: %d of %d vectors hold NaN or infinity and are left out",
        command.round, len(dropped), len(finite),
    )  # fmt: skip
    return command.own_weight + math.fsum(dropped), kept, inbox[torch.tensor(finite)]


def _normalised(weights: tuple[float, ...]) -> list[float]:
    total = math.fsum(weights)
    if not weights or not math.isfinite(total) or min(weights) <= 0:
        raise LearnerError("job", f"bootstrap weights must be positive numbers, not {weights}")
    return [weight / total for weight in weights]


def _accuracy_and_loss(seen: Evaluation | None) -> tuple[float | None, float | None]:
    return (seen.accuracy, seen.loss) if seen else (None, None)


def _bytes(vectors: Tensor) -> memoryview:
    """The tensor's own memory, without copying it."""
    return vectors.contiguous().numpy().data.cast("B")
