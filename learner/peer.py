"""One peer's learning behind the commands of `messages`: configure, train, mix, save.

Rules kept here:
- no process, no socket: `Learner.answer` takes a command and gives a reply, so that the worker, a
  test and a laboratory on one machine drive the same object;
- every command either happens as a whole or leaves everything as it was;
- a LearnerError becomes a `Failed` reply with its advice; anything else is a bug of ours, whose
  traceback goes to the log and never to the reply.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner import algorithms, assembly, checkpoint, data, model_file
from learner import messages as say
from learner.data import Dataset
from learner.errors import LearnerError
from learner.evaluation import Evaluation
from learner.job import Job, check_source
from learner.job_file import job_from_json
from learner.liar import Liar, with_lies
from learner.mixing import (
    check_weights,
    consensus_distance,
    finite_rows,
    inbox_view,
    weighted_mean,
)
from learner.robust.guard import guard
from learner.robust.rules import average_of, rule_of
from learner.schema import SchemaError

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
    """A configured job: data, model and algorithm, at `round` completed rounds."""

    def __init__(self, command: say.Configure) -> None:
        """Load everything, and the newest checkpoint if asked to. Raises LearnerError."""
        if command.threads > 0:
            torch.set_num_threads(command.threads)
        self._job = _job(command)
        self._data = _data(self._job, command)
        if command.lie:
            self._data = with_lies(self._data, command.lie)
        self._trainer = assembly.one_peer(self._job, self._data, command.part)
        self._layout = self._trainer.layout
        self._algorithm = algorithms.build(self._trainer, self._job)
        self._rule = rule_of(self._job)
        if command.lie and self._algorithm.pairs:
            raise LearnerError("job", "a peer cannot lie in ad-psgd; leave lie.attack out")
        self._liar = (
            Liar(command.lie, command.accomplices, number=command.part) if command.lie else None
        )
        self._checkpoints = Path(command.checkpoint_dir)
        self.round = 0
        self._pending: Pending | None = None
        self._before: Tensor | None = None  # the model after the round before, if that is asked for
        if command.resume:
            self._resume()

    def configured(self) -> say.Configured:
        return say.Configured(
            layout=assembly.agreement(self._layout, self._data),
            layout_text=assembly.describe(self._layout, self._data),
            dimension=self._layout.dimension,
            values=self._algorithm.message_values,
            exchanged=(*self._algorithm.exchanged, *self._algorithm.scalars),
            keeps_sum=self._algorithm.keeps_sum,
            round=self.round,
            samples=self._trainer.samples[0],
            test_samples=len(self._data.y_test),
        )

    def run_local(self, command: say.RunLocal, payload: bytearray) -> Answer:
        started = time.perf_counter()
        self._pending = None
        with self._all_kept_on_error():
            if command.restart:
                self._algorithm.restart()
            message = self._algorithm.local(command.round)
            self._trainer.check()
            seconds = time.perf_counter() - started
            seen = self._evaluate() if command.evaluate else None
        self._pending = Pending(command.round, message)
        loss, steps = self._learnt()
        reply = say.LocalDone(command.round, loss, steps, seconds, *_accuracy_and_loss(seen))
        if self._liar:
            lies = self._liar.lies(message, command.lie_to, command.round)
            return reply, _bytes(torch.cat([message, lies]))
        return reply, _bytes(message)

    def mix(self, command: say.Mix, payload: bytearray) -> Answer:
        """Senders whose vectors are not finite are left out; their weight stays on oneself, or is
        lost where it is a share that they gave away. A liar mixes as the honest do."""
        pending = self._pending
        if pending is None or command.round != pending.round:
            raise LearnerError(
                "job", f"round {command.round} cannot be mixed: its local work has not been done"
            )
        started = time.perf_counter()
        pushes = self._algorithm.pushes
        check_weights(command.own_weight, command.weights, shares=pushes)
        values = self._algorithm.message_values
        arrived = inbox_view(payload, len(command.weights) + command.added, values)
        inbox, steps = arrived[: len(command.weights)], arrived[len(command.weights) :]
        good = guard(inbox, command.weights)
        own_weight = command.own_weight + (0.0 if pushes else good.dropped)
        weights, inbox = good.weights, good.received
        if good.rejected:
            logger.warning(
                "round %d: %d of %d vectors hold NaN or infinity and are left out",
                command.round, len(good.rejected), len(command.weights),
            )  # fmt: skip
        steps = steps[torch.tensor(finite_rows(steps), dtype=torch.bool)]
        with self._all_kept_on_error():
            mixed, used = self._mixed(pending.message, own_weight, weights, inbox)
            distance = self._distance(pending.message, inbox, used)
            self._algorithm.mix(mixed + steps.sum(0) if len(steps) else mixed)
            self._trainer.check()
            seconds = time.perf_counter() - started
            seen = self._evaluate() if command.evaluate else None
        self._pending, self.round = None, command.round
        loss, _ = self._learnt()
        if self._liar:
            self._liar.hear(dict(zip(command.senders, arrived, strict=False)))
        shown = None if used is None else _spread(used, good.passed, len(command.weights))
        reply = say.Mixed(
            command.round, loss, self._change(), seconds, *_accuracy_and_loss(seen), distance,
            shown, tuple(good.rejected),
        )  # fmt: skip
        if not self._algorithm.pairs:
            return reply, NOTHING
        pairs = zip(weights, inbox, strict=True)
        owed = [weight * (pending.message[0] - theirs) for weight, theirs in pairs]
        return reply, _bytes(torch.stack([self._trainer.x[0], *owed]))

    def bootstrap(self, command: say.Bootstrap, payload: bytearray) -> Answer:
        count = len(command.weights)
        vectors = inbox_view(payload, count, self._layout.dimension)
        good = guard(vectors, _normalised(command.weights))
        if not good.passed:
            raise LearnerError("layout", f"all {count} models hold NaN or infinity")
        if good.rejected:
            logger.warning("%d of %d models hold NaN or infinity", len(good.rejected), count)
        average = average_of(
            good.received, good.weights, self._job.robust, caught=len(good.rejected)
        )
        seen = self._start_from(average)
        self.round = command.round
        return say.Bootstrapped(command.round, *_accuracy_and_loss(seen)), NOTHING

    def snapshot(self, command: say.Snapshot, payload: bytearray) -> Answer:
        return say.SnapshotTaken(self.round), _bytes(self._trainer.x[0].clone())

    def evaluate(self, command: say.Evaluate, payload: bytearray) -> Answer:
        seen = self._evaluate()
        reply = say.Evaluated(self.round, *_accuracy_and_loss(seen), len(self._data.y_test))
        return reply, NOTHING

    def export(self, command: say.Export, payload: bytearray) -> Answer:
        size = checkpoint.export(Path(command.path), self._trainer.compute.module(self._trainer.x))
        return say.Exported(command.path, size), NOTHING

    def import_model(self, command: say.Import, payload: bytearray) -> Answer:
        model = self._trainer.compute.module(self._trainer.x)
        tensors = model_file.load(Path(command.path), model.state_dict())
        kept = {name: tensors.get(name, own) for name, own in self._layout.kept(model).items()}
        with self._all_kept_on_error():
            self._layout.put_kept(model, kept)
            seen = self._start_from(self._layout.gather(tensors))
        return say.Imported(command.path, self.round, *_accuracy_and_loss(seen)), NOTHING

    def save(self, command: say.SaveCheckpoint, payload: bytearray) -> Answer:
        """Best sent between rounds: local work that is not mixed yet would be done again."""
        started = time.perf_counter()
        path = checkpoint.save(
            self._checkpoints,
            checkpoint.Checkpoint(
                self.round, self._job.digest, self._layout.digest, self._algorithm.state()
            ),
        )
        seconds = time.perf_counter() - started
        return say.CheckpointSaved(str(path), self.round, seconds), NOTHING

    def _start_from(self, vector: Tensor) -> Evaluation | None:
        """A model that came from elsewhere, float32 [d], and how good it is: nothing of before
        holds for it, be it a momentum, a tracker or the work of the round under way."""
        with self._all_kept_on_error():
            self._trainer.put(vector[None])
            seen = self._evaluate()
        self._algorithm.forget()
        self._pending, self._before = None, None
        return seen

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
        self._algorithm.restore(found.tensors)
        self.round = found.round

    def _mixed(
        self, message: Tensor, own_weight: float, weights: list[float], inbox: Tensor
    ) -> tuple[Tensor, tuple[float, ...] | None]:
        """This peer's row of W times the messages, float32 [1, m], or what the robust rule makes of
        it; and the weights that the inbox's messages had, if they had any as a whole."""
        if self._job.robust.active:
            assert self._pending is not None
            mixture = self._rule(message[0], inbox, weights, self._pending.round)
            return mixture.vector[None], mixture.weights
        row = torch.tensor([[own_weight, *weights]], dtype=torch.float64)
        if self._algorithm.reweighs:
            count = len(self._algorithm.scalars)
            scalars = torch.cat([message[:, -count:], inbox[:, -count:]])
            row = self._algorithm.weigh(row, scalars)
        own, *others = row[0].tolist()
        return weighted_mean(message[0], inbox, own, others)[None], tuple(others)

    def _distance(
        self, message: Tensor, inbox: Tensor, used: tuple[float, ...] | None
    ) -> float | None:
        """The consensus distance to those that were mixed in: of others' models nobody knows
        whether anybody has them."""
        rows = None
        if used is not None and self._job.robust.active:
            rows = [row for row, weight in enumerate(used) if weight > 0]
        models = self._algorithm.models
        return consensus_distance(models(message)[0], models(inbox), rows)

    def _evaluate(self) -> Evaluation | None:
        """None where the job has nothing to predict."""
        if not len(self._data.y_test):
            return None
        x = self._trainer.x
        (seen,) = self._trainer.compute.evaluate(x, self._data.x_test, self._data.y_test)
        return seen

    def _learnt(self) -> tuple[float | None, int]:
        progress = self._algorithm.take_progress()
        return (None if progress.losses is None else float(progress.losses[0])), progress.steps

    def _change(self) -> float | None:
        """How far the model is from the one after the round before, relative to its norm."""
        if not self._job.training.converged_change:
            return None
        before, self._before = self._before, self._trainer.x[0].clone()
        if before is None or not (norm := float(before.norm())):
            return None
        return float((self._before - before).norm()) / norm

    @contextmanager
    def _all_kept_on_error(self) -> Iterator[None]:
        before = self._algorithm.state()
        try:
            yield
        except BaseException:
            self._algorithm.restore(before)
            raise


@dataclass(frozen=True, slots=True)
class Pending:
    """A round whose local work is done but not mixed; `message` is float32 [1, m]."""

    round: int
    message: Tensor


COMMANDS: dict[type[Any], Callable[[Session, Any, bytearray], Answer]] = {
    say.RunLocal: Session.run_local,
    say.Mix: Session.mix,
    say.Bootstrap: Session.bootstrap,
    say.Snapshot: Session.snapshot,
    say.Evaluate: Session.evaluate,
    say.Export: Session.export,
    say.Import: Session.import_model,
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


def _spread(weights: tuple[float, ...], rows: list[int], count: int) -> tuple[float, ...]:
    """The weights of some rows among `count`, 0 for the others."""
    spread = [0.0] * count
    for row, weight in zip(rows, weights, strict=True):
        spread[row] = weight
    return tuple(spread)


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
