"""Rules that approach their answer step by step.

Every step is a combination of the vectors, and is taken on its weights [n] alone: the vectors are
read once for their inner products and once for the result (CAF: once more for each step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from learner.errors import LearnerError
from learner.robust.distances import (
    Gram,
    admit,
    admit_by_norm,
    as_rows,
    check_minority,
    combine,
    gram,
    projections,
    squares_from,
)
from learner.robust.names import check_number, check_whole

# Below this two vectors count as equal where a distance divides; only nu = 0 ever meets it.
LEAST_DISTANCE = 1e-150
# byzfl divides by the largest τ of all, also of vectors that have lost all trust: one that is far
# enough then keeps the others' trust from falling, for ever. After so many steps the largest is
# taken of those still trusted, which takes one of them away: CAF ends after n steps more.
STEPS_OVER_ALL = 64


@dataclass(frozen=True)
class GeometricMedian:
    """The smoothed Weiszfeld iteration towards the y with the least Σ ‖x_i − y‖.

    From y = 0, T times: y ← Σ x_i/β_i / Σ 1/β_i with β_i = max(nu, ‖x_i − y‖). The geometric median
    tolerates less than half; T steps from zero only approach it (Weiszfeld, Tohoku Mathematical
    Journal, 1937). float32 [n, d] → [d].
    """

    nu: float = 0.1
    T: int = 3

    def __post_init__(self) -> None:
        check_number("GeometricMedian", "nu", self.nu)
        check_whole("GeometricMedian", "T", self.T)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        rows = admit(vectors).vectors
        weights = torch.zeros(len(rows), dtype=torch.float64)
        if not self.T:
            return combine(weights, rows)
        found = gram(rows, point=torch.zeros(1).expand(rows.shape[1]))
        squares, products = found.squares[:-1, -1], found.products[:-1, :-1]
        for _ in range(self.T):
            weights = 1 / squares.sqrt().clamp(min=max(self.nu, LEAST_DISTANCE))
            weights /= weights.sum()
            squares = squares_from(products, weights)
        return combine(weights, rows)


@dataclass(frozen=True)
class CenteredClipping:
    """Steps from m that no vector can lengthen: v ← v + (1/n) Σ min(1, tau/‖x_i − v‖)(x_i − v).

    L steps from v = m, a float32 [d], or 0 where it is None. How much the faulty move it is bounded
    by tau (Karimireddy, He and Jaggi, "Learning from history for Byzantine robust optimization",
    ICML 2021). byzfl's object keeps v as the next call's m; here the caller hands it in.
    float32 [n, d] → [d].
    """

    m: Tensor | None = field(default=None, compare=False)
    L: int = 1
    tau: float = 100.0

    def __post_init__(self) -> None:
        if self.m is not None and not isinstance(self.m, Tensor):
            raise LearnerError("job", f"CenteredClipping: m must be a tensor [d], not {self.m!r}")
        if self.m is not None and not bool(torch.isfinite(self.m).all()):
            raise LearnerError(
                "job", "CenteredClipping: m must be finite: leave it out to start at 0"
            )
        check_whole("CenteredClipping", "L", self.L)
        check_number("CenteredClipping", "tau", self.tau)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        given = as_rows(vectors)
        start = self._start(given.shape[1])
        admitted, lengths = admit_by_norm(given, point=None if self.m is None else start)
        rows = admitted.vectors
        # The weights of the vectors, then that of m.
        weights = torch.zeros(len(rows) + 1, dtype=torch.float64)
        weights[-1] = 1
        products = gram(rows, point=start).products if self.L > 1 else torch.empty(0)
        for step in range(self.L):
            if step:
                lengths = squares_from(products, weights)[:-1].sqrt()
            steps = (self.tau / lengths).nan_to_num(nan=1.0).clamp(max=1) / len(rows)  # 0/0: there
            weights *= 1 - steps.sum()
            weights[:-1] += steps
        moved = combine(weights[:-1], rows)
        return moved if self.m is None else moved.add_(start, alpha=float(weights[-1]))

    def _start(self, values: int) -> Tensor:
        if self.m is None:
            return torch.zeros(1).expand(values)
        if self.m.shape != (values,):
            shape = list(self.m.shape)
            raise LearnerError(
                "job", f"CenteredClipping: m {shape} must be as long as the vectors, [{values}]"
            )
        return self.m.detach().float()


@dataclass(frozen=True)
class CAF:
    """The covariance-bound agnostic filter: the weighted mean where the weights spread the least.

    Weights c_i start at 1. While Σ c_i > n − 2f: with μ the weighted mean and v the direction of
    the largest eigenvalue of the weighted covariance, c_i ← c_i (1 − τ_i/max τ), where
    τ_i = ⟨x_i − μ, v⟩². The answer is the μ with the smallest such eigenvalue. Tolerates f < n/2
    (Allouah, Guerraoui and Stephan, "Towards trustworthy federated learning with untrusted
    participants", ICML 2025). Both are estimated by one step of power iteration from a random
    vector; `seed` draws these vectors, anew in each call. float32 [n, d] → [d].
    """

    f: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("CAF", "f", self.f)
        check_whole("CAF", "seed", self.seed)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("CAF", self.f, vectors)
        admitted = admit(vectors, self.f)
        rows = admitted.vectors
        trust = torch.ones(len(rows), dtype=torch.float64)
        chosen = trust / len(rows)
        if admitted.f:
            found, smallest, steps = gram(rows), math.inf, 0
            generator = torch.Generator().manual_seed(self.seed)
            while float(trust.sum()) > len(rows) - 2 * admitted.f:
                direction = torch.randn(rows.shape[1], generator=generator)
                weights = trust / trust.sum()
                eigenvalue, lengths = _power_step(rows, found, weights, direction)
                if eigenvalue < smallest:
                    smallest, chosen = eigenvalue, weights
                if not float(lengths[trust > 0].max()) > 0:  # all that is trusted lies on one point
                    break
                trust = _less_trust(trust, lengths, over_all=steps < STEPS_OVER_ALL)
                steps += 1
        return combine(chosen, rows)


def _less_trust(trust: Tensor, lengths: Tensor, *, over_all: bool) -> Tensor:
    """c_i (1 − τ_i/max τ), the maximum `over_all` or over those that are trusted."""
    most = lengths.max() if over_all else lengths[trust > 0].max()
    return trust * (1 - lengths / most).clamp(min=0)


def _power_step(
    rows: Tensor, found: Gram, weights: Tensor, direction: Tensor
) -> tuple[float, Tensor]:
    """(the estimated eigenvalue, every row's τ) of the covariance under weights [n] that sum to 1.

    With u = Σ w_i (x_i − μ) ⟨x_i − μ, direction⟩: ‖u‖, and ⟨x_i − μ, u/‖u‖⟩².
    """
    along = projections(rows, direction, found.reference) / direction.double().norm()
    shares = weights * (along - weights @ along)
    towards = found.products @ weights
    centred = found.products - towards[:, None] - towards + weights @ towards
    onto = centred @ shares
    square = float(shares @ onto)
    if square <= 0:
        return 0.0, torch.zeros_like(weights)
    return math.sqrt(square), onto.square() / square
