"""One run of the laboratory, from a job to its figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from learner import data, partition
from learner.data import Dataset
from learner.errors import LearnerError
from learner.evaluation import Evaluation
from learner.job import ROBUST, Job
from learner.lab.clock import Asynchronous
from learner.lab.conditions import Conditions
from learner.lab.federated import Federated, Federation
from learner.lab.liars import Liars
from learner.lab.rounds import Lockstep
from learner.lab.weights import Mixing, Nobody, Weights

# All that mix whole messages by W: those that can bear liars and, to see what they do, trackers.
LIARS_GO_WITH = (*ROBUST, "d2", "gt", "gt-atc", "gtadam", "gt-nsgdm")
KINDS = ("gossip", "local", "centralized", "federated")


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured after a round; lists have one entry a peer that is there (`peers`).

    Accuracies are fractions, losses nats; `loss` is the last training loss (None: not trained).
    `distance` is sqrt(mean ‖x_i − x̄‖²) / ‖x̄‖ over all of them, None where x̄ is zero.
    """

    round: int
    peers: list[int]
    accuracy: list[float]
    test_loss: list[float]
    loss: list[float | None]
    distance: float | None


@dataclass(slots=True)
class Outcome:
    """A run. `models_sent` is the length of all messages of one peer, in models; `error` says why
    it ended early; `threads` are torch's."""

    job: Job
    kind: str
    rounds: list[Figures] = field(default_factory=list)
    models: Tensor | None = None  # float32 [n, d], after the last round
    seconds: float = 0.0
    models_sent: int = 0
    error: str = ""
    threads: int = 1

    @property
    def accuracy(self) -> float:
        """The mean over the peers after the last round; NaN without one."""
        return _mean(self.rounds[-1].accuracy) if self.rounds and not self.error else math.nan

    @property
    def test_loss(self) -> float:
        """The same of the loss on the held-out samples."""
        return _mean(self.rounds[-1].test_loss) if self.rounds and not self.error else math.nan


class Peers(Protocol):
    """What runs in a laboratory."""

    round: int
    losses: list[float | None]

    @property
    def present(self) -> list[int]:
        """Who is there."""

    @property
    def judged(self) -> list[int]:
        """Those of them whose models are measured: the honest ones."""

    @property
    def x(self) -> Tensor:
        """All models, float32 [n, d]."""

    @property
    def vectors_sent(self) -> int:
        """Models that a peer's message of one round is worth."""

    def step(self) -> None:
        """One round."""

    def evaluate(self) -> list[Evaluation]:
        """On the held-out samples."""


def run(
    job: Job,
    *,
    kind: str = "gossip",
    conditions: Conditions = Conditions(),  # noqa: B008 (frozen)
    federation: Federation = Federation(),  # noqa: B008 (frozen)
    liars: Liars = Liars(),  # noqa: B008 (frozen)
    data_dir: str = "",
    threads: int = 1,
    on_round: Callable[[int], None] = lambda round: None,
) -> Outcome:
    """Run a job with `job.partition.parts` peers in this process.

    `kind`: gossip; local (nobody mixes); centralized (one peer with everybody's data and batches n
    times as large); federated (a server). `threads`: torch's, while this runs; some processors
    round differently with another number. `on_round(round)` is called after each. Training that
    diverges ends the run with its reason in `error`. Raises LearnerError for a job that cannot run.
    """
    began, outcome = time.perf_counter(), Outcome(job, kind, threads=threads)
    with _torch_threads(threads):
        peers = build(
            job,
            kind=kind,
            conditions=conditions,
            federation=federation,
            liars=liars,
            data_dir=data_dir,
        )
        _train(peers, outcome, on_round)
    outcome.models, outcome.models_sent = peers.x.clone(), peers.round * peers.vectors_sent
    outcome.seconds = time.perf_counter() - began
    return outcome


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(peers: Peers, outcome: Outcome, on_round: Callable[[int], None]) -> None:
    every, rounds = outcome.job.training.evaluate_every, outcome.job.training.rounds
    for number in range(1, rounds + 1):
        try:
            peers.step()
        except LearnerError as error:
            if error.kind != "model":
                raise
            outcome.error = error.message
            break
        if number % every == 0 or number == rounds:
            outcome.rounds.append(look(peers))
        on_round(number)


def build(
    job: Job,
    *,
    kind: str = "gossip",
    conditions: Conditions = Conditions(),  # noqa: B008 (frozen)
    federation: Federation = Federation(),  # noqa: B008 (frozen)
    liars: Liars = Liars(),  # noqa: B008 (frozen)
    data_dir: str = "",
) -> Peers:
    """The peers of a run, before the first round. Raises LearnerError."""
    if kind not in KINDS:
        raise LearnerError("job", f"{kind!r} is no kind of run; known: {', '.join(KINDS)}")
    conditions.check(job.partition.parts)
    liars.check(job.partition.parts)
    dataset = data.load(job.data, "", data_dir, job.seed)
    parts = shares(job, dataset)
    if kind == "centralized":
        job, conditions = _together(job, len(parts)), Conditions()
        parts = [torch.unique(torch.cat(parts))]
    if kind == "federated":
        _refuse_liars(liars)
        return Federated(job, dataset, parts, federation=federation)
    alone = kind in ("local", "centralized")
    liars = Liars() if alone else liars
    weights: Mixing = Nobody(len(parts))
    if not alone:
        beside = liars.each if liars.lie else 0
        weights = Weights(job, len(parts), seed=str(job.seed), beside=beside)
    _check_liars(job, liars)
    if job.training.mode == "async" and kind == "gossip":
        if conditions != replace(Conditions(), work=conditions.work):
            raise LearnerError(
                "job", "an asynchronous job takes the condition `work` only; leave out the others,"
                ' or set training.mode = "sync"',
            )  # fmt: skip
        return Asynchronous(job, dataset, parts, weights=weights, work=conditions.work)
    return Lockstep(job, dataset, parts, weights=weights, conditions=conditions, liars=liars)


def _refuse_liars(liars: Liars) -> None:
    if liars.lie:
        raise LearnerError("job", "a server has no lying neighbours; leave [liars] out")


def _check_liars(job: Job, liars: Liars) -> None:
    fits = job.training.mode == "sync" and job.algorithm.weighting == "equal"
    if liars.lie and not (fits and job.algorithm.name in LIARS_GO_WITH):
        raise LearnerError(
            "job", "liars go with a sync job, equal weighting and one of the algorithms"
            f" {', '.join(LIARS_GO_WITH)}; leave [liars] out, or take one of them",
        )  # fmt: skip


def shares(job: Job, dataset: Dataset) -> list[Tensor]:
    """Each peer's training samples, indices int64; all of them where nothing is shared out."""
    if not len(dataset.y_train) or job.partition.kind == "none":
        return [torch.arange(len(dataset.y_train))] * job.partition.parts
    return [part.long() for part in partition.split(dataset.y_train, job.partition, job.seed)]


def look(peers: Peers) -> Figures:
    """What there is to measure now."""
    seen = peers.evaluate()
    there = peers.judged
    chosen = [seen[peer] for peer in there] if seen else []
    return Figures(
        peers.round,
        there,
        [one.accuracy for one in chosen],
        [one.loss for one in chosen],
        [peers.losses[peer] for peer in there],
        _distance(peers.x[there]),
    )


def _together(job: Job, count: int) -> Job:
    training = replace(job.training, batch_size=job.training.batch_size * count, mode="sync")
    return replace(job, training=training)


def _distance(x: Tensor) -> float | None:
    mean = x.double().mean(0)
    norm = float(mean.norm())
    spread = float((x.double() - mean).square().sum(1).mean().sqrt())
    return spread / norm if norm else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
