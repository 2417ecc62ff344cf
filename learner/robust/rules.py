"""The robust mixing rules by name: what stands for a row of W @ X where neighbours may lie.

Rules kept here:
- a rule is called with one's own message [m], the neighbours' [k, m] and their mixing weights, and
  gives a new message; what it is given stays as it is, and it remembers nothing between calls;
- one's own message is trusted: it is never left out;
- no rule sees a message that is not finite or of another length: the guard before it takes those
  out (`guard`), and their weight stays on oneself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.job import Job, Robust
from learner.mixing import CHUNK_VALUES, weighted_mean
from learner.robust import reweighing
from learner.robust.byzfl import robust_aggregator
from learner.robust.coordinatewise import Median, TrMean
from learner.robust.distances import TooFew, gram, squares_from
from learner.robust.reweighing import Neighbourhood, Reweighing

logger = logging.getLogger("learner")


@dataclass(frozen=True, slots=True)
class Mixture:
    """What came out: float32 [m], and each neighbour's weight in it; None where a rule weighs
    coordinate by coordinate."""

    vector: Tensor
    weights: tuple[float, ...] | None


# Called with own [m], received [k, m], k weights whose sum is below 1, and the round.
Rule = Callable[[Tensor, Tensor, Sequence[float], int], Mixture]

REWEIGHINGS: dict[str, Reweighing] = {
    "nna": reweighing.nearest,
    "monna": reweighing.monna,
    "clipped-gossip": reweighing.clipped_gossip,
    "clipped-sum": reweighing.clipped_sum,
    "remove-then-clip": reweighing.remove_then_clip,
    "balance": reweighing.balance,
}


def rule_of(job: Job) -> Rule:
    """The job's rule at work. Raises LearnerError (job) for byzfl dictionaries that are wrong."""
    settings, rounds = job.robust, job.training.rounds
    if not settings.active:
        return mean
    if settings.rule in REWEIGHINGS:
        return _by_distance(REWEIGHINGS[settings.rule], settings, rounds)
    if settings.rule == "ios":
        return _outlier_scissor(settings)
    return _aggregating(settings)


def mean(own: Tensor, received: Tensor, weights: Sequence[float], round: int) -> Mixture:
    """W's row: (1 − Σw)·own + Σ w_j·received_j."""
    mixed = weighted_mean(own, received, 1 - math.fsum(weights), weights)
    return Mixture(mixed, tuple(weights))


def average_of(
    models: Tensor, worths: Sequence[float], settings: Robust, *, caught: int = 0
) -> Tensor:
    """What a newcomer starts from, given others' models, float32 [n, d]: float32 [d].

    The mean weighted by their worths; where b may lie about models and worths, the trimmed mean, in
    which nobody counts more than another; of the b, so many are `caught` already. Raises TooFew
    (job) for 2b models or fewer then."""
    if settings.active:
        return TrMean(max(0, settings.liars - caught))(models)
    total = math.fsum(worths)
    return weighted_mean(models[0], models[1:], worths[0] / total, [w / total for w in worths[1:]])


def _by_distance(reweigh: Reweighing, settings: Robust, rounds: int) -> Rule:
    def rule(own: Tensor, received: Tensor, weights: Sequence[float], round: int) -> Mixture:
        distances = _distances(own, received)
        norm = float(torch.linalg.vector_norm(own, dtype=torch.float64))
        progress = min(1.0, round / rounds)
        seen = Neighbourhood(distances, weights, norm, progress, settings)
        return mean(own, received, reweigh(seen), round)

    return rule


def _distances(own: Tensor, received: Tensor) -> list[float]:
    """The Euclidean distances of received [k, m] from own [m], accumulated in float64; infinity
    for who is so far off that a difference overflows."""
    squares = torch.zeros(len(received), dtype=torch.float64)
    step = max(1, CHUNK_VALUES // max(1, len(received)))
    for start in range(0, own.numel(), step):
        chunk = slice(start, start + step)
        away = received[:, chunk] - own[chunk]
        squares += torch.linalg.vector_norm(away, dim=1, dtype=torch.float64).square_()
    return squares.sqrt_().tolist()


def _outlier_scissor(settings: Robust) -> Rule:
    """IOS, the iterative outlier scissor: b times, the neighbour farthest from the weighted mean of
    those that are left (and oneself) is cut off; that mean, with weights that sum to 1 again (Wu,
    Chen & Ling, "Byzantine-resilient decentralized stochastic optimization with robust aggregation
    rules", IEEE TSP 2023, Algorithm 2)."""

    def rule(own: Tensor, received: Tensor, weights: Sequence[float], round: int) -> Mixture:
        everybody = torch.cat([own[None], received])
        products = gram(everybody).products
        left = torch.tensor([1 - math.fsum(weights), *weights], dtype=torch.float64)
        for _ in range(min(settings.liars, len(received))):
            distances = squares_from(products, _normalised(left))
            distances[left == 0] = -torch.inf
            distances[0] = -torch.inf
            left[distances.argmax()] = 0
        return mean(own, received, _normalised(left)[1:].tolist(), round)

    return rule


def _normalised(weights: Tensor) -> Tensor:
    """To a sum of 1; all on oneself (the first) where nobody has any."""
    total = weights.sum()
    if total > 0:
        return weights / total
    alone = torch.zeros_like(weights)
    alone[0] = 1
    return alone


def _aggregating(settings: Robust) -> Rule:
    """A rule on oneself and the neighbours alike, whatever W says: the coordinate-wise median
    (Yin, Chen, Kannan & Bartlett, ICML 2018), the coordinate-wise trimmed mean without the b
    largest and the b smallest values (the same), or byzfl's."""

    def trimmed(rows: Tensor, round: int) -> Tensor:
        return TrMean(settings.liars)(rows)

    def median(rows: Tensor, round: int) -> Tensor:
        return Median()(rows)

    aggregate = {"trimmed-mean": trimmed, "median": median}.get(settings.rule)
    if aggregate is None:
        by_name = robust_aggregator(
            settings.aggregator_info, settings.pre_agg_list, f=settings.liars
        )

        def aggregate(rows: Tensor, round: int) -> Tensor:
            return by_name(rows, round=round, overwrite=True)

    def rule(own: Tensor, received: Tensor, weights: Sequence[float], round: int) -> Mixture:
        alone = mean(own, received, [0.0] * len(received), round)
        if len(received) < 2 * settings.liars:  # the liars may be half of all, or more
            return alone
        try:
            return Mixture(aggregate(torch.cat([own[None], received]), round), None)
        except TooFew as error:  # for an f that the dictionary gives, or after buckets were made
            logger.warning("round %d: left alone: %s", round, error)
            return alone

    return rule
