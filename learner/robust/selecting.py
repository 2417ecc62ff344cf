"""Rules that choose among the vectors, by their distances, and average what they chose.

MDA and SMEA look for the best n − f of n. Leaving out f rows so that no two of the rest are
farther apart than D is a vertex cover of the pairs that are. In it, sets of rows are the bits of
an integer, and `far[i]` are those far from i.

Rules kept here:
- a choice is made from [n, n] numbers in float64; the vectors are read once for these and once
  for the mean;
- ties go to the lower place, and to the lexicographically first subset;
- a size that could take for ever is refused before the start, whatever the vectors are: a sender
  must not be able to choose how long the others compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from learner.errors import LearnerError
from learner.robust.distances import admit, admit_by_norm, as_rows, check_minority, gram, mean_of
from learner.robust.names import check_whole

# Each search branches into f − 1 and at most f − 2: 2,200 sets for 16, and there are some dozens.
MOST_LEFT_OUT = 16
MOST_CHOICES = 200_000  # at 15 µs for the eigenvalues of one
BATCH = 4096
EQUAL = 1e-12  # eigenvalues so near are taken for equal


@dataclass(frozen=True)
class Krum:
    """The vector with the least sum of squared distances to its n − f nearest, itself included.

    Tolerates f < n/2 (Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine learning with
    adversaries", NeurIPS 2017, which takes one neighbour less). float32 [n, d] → [d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("Krum", "f", self.f)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("Krum", self.f, vectors)
        admitted = admit(vectors, self.f)
        scores = _scores(gram(admitted.vectors).squares, admitted.f)
        return admitted.vectors[int(scores.argmin())].clone()


@dataclass(frozen=True)
class MultiKrum:
    """The mean of the n − f vectors with the least Krum scores.

    Tolerates f < n/2 (Blanchard et al., NeurIPS 2017, as Krum). float32 [n, d] → [d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("MultiKrum", "f", self.f)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("MultiKrum", self.f, vectors)
        admitted = admit(vectors, self.f)
        scores = _scores(gram(admitted.vectors).squares, admitted.f)
        return mean_of(nearest(scores, admitted.f), admitted.vectors)


@dataclass(frozen=True)
class MoNNA:
    """The mean of the n − f vectors nearest to vector `idx`, which is trusted and one of them.

    Tolerates f < n/2 (Farhadkhani, Guerraoui, Gupta, Hoang, Pinot and Stephan, "Robust
    collaborative learning with linear gradient overhead", ICML 2023). float32 [n, d] → [d].
    """

    f: int = 0
    idx: int = 0

    def __post_init__(self) -> None:
        check_whole("MoNNA", "f", self.f)
        check_whole("MoNNA", "idx", self.idx)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("MoNNA", self.f, vectors)
        if self.idx >= len(vectors):
            raise LearnerError(
                "job",
                f"MoNNA: idx = {self.idx} must be below the number of vectors, {len(vectors)}",
            )
        rows = as_rows(vectors)
        admitted, distances = admit_by_norm(rows, self.f, rows[self.idx])
        if self.idx not in admitted.places:
            raise LearnerError(
                "layout",
                f"MoNNA: the trusted vector, idx = {self.idx}, is not finite: lower the learning "
                "rate, or look for the step that made it NaN",
            )
        return mean_of(nearest(distances, admitted.f), admitted.vectors)


@dataclass(frozen=True)
class MDA:
    """Minimum-diameter averaging: the mean of the n − f vectors whose farthest two are nearest.

    Of several such subsets the lexicographically first. Tolerates f < n/2 (El Mhamdi, Guerraoui,
    Guirguis, Hoang and Rouault, "Genuinely distributed Byzantine machine learning", PODC 2020).
    `least_diameter` finds it without going through all  float32 [n, d] → [d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("MDA", "f", self.f)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("MDA", self.f, vectors)
        if self.f > MOST_LEFT_OUT:
            raise LearnerError(
                "job",
                f"MDA: f = {self.f} could take for ever; take f ≤ {MOST_LEFT_OUT}, or MultiKrum",
            )
        admitted = admit(vectors, self.f)
        squares = gram(admitted.vectors).squares
        return mean_of(least_diameter(squares, admitted.f), admitted.vectors)


@dataclass(frozen=True)
class SMEA:
    """Smallest maximum eigenvalue averaging: the mean of the n − f vectors that spread the least.

    The spread of a subset is the largest eigenvalue of Σ (x − μ)(x − μ)ᵀ over it. Tolerates
    f < n/2 (Allouah, Guerraoui, Gupta, Pinot and Stephan, "On the privacy-robustness-utility
    trilemma in distributed learning", ICML 2023). Here the eigenvalues are exact; byzfl takes one
    step of power iteration from a random vector. float32 [n, d] → [d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("SMEA", "f", self.f)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        check_minority("SMEA", self.f, vectors)
        choices = math.comb(len(vectors), self.f)
        if choices > MOST_CHOICES:
            raise LearnerError(
                "job",
                f"SMEA: {len(vectors)} vectors have {choices} subsets without f = {self.f} of "
                f"them, and at most {MOST_CHOICES} are looked through; lower f, or take "
                "MDA or MultiKrum",
            )
        admitted = admit(vectors, self.f)
        found = gram(admitted.vectors)
        chosen = least_spread(found.products, found.squares, admitted.f)
        return mean_of(chosen, admitted.vectors)


def nearest(numbers: Tensor, f: int) -> Tensor:
    """The places of all but the f greatest of [n]; for [m, n], of each row: [m, n − f]."""
    return numbers.argsort(dim=-1, stable=True)[..., : numbers.shape[-1] - f]


def _scores(squares: Tensor, f: int) -> Tensor:
    return squares.sort(1).values[:, : len(squares) - f].sum(1)


def least_diameter(squares: Tensor, f: int) -> list[int]:
    """The n − f rows with the smallest largest distance; `squares` are distances² [n, n]."""
    everybody = (1 << len(squares)) - 1
    diameters = sorted(set(squares.flatten().tolist()))
    low, high = 0, len(diameters) - 1
    while low < high:
        middle = (low + high) // 2
        if coverable(_far(squares, diameters[middle]), everybody, f):
            high = middle
        else:
            low = middle + 1
    return _first_apart(_far(squares, diameters[low]), len(squares), f)


def coverable(far: list[int], alive: int, budget: int) -> bool:
    """Whether leaving out at most `budget` of the rows `alive` leaves no two far apart."""
    degrees = [(far[row] & alive).bit_count() for row in _members(alive)]
    most = max(degrees, default=0)
    if most <= 1 or sum(degrees) > 2 * budget * most:  # a row left out ends `most` pairs at best
        return sum(degrees) <= 2 * budget
    row = next(row for row in _members(alive) if (far[row] & alive).bit_count() == most)
    if coverable(far, alive & ~(1 << row), budget - 1):
        return True
    return most <= budget and coverable(far, alive & ~far[row] & ~(1 << row), budget - most)


def least_spread(products: Tensor, squares: Tensor, f: int) -> list[int]:
    """The n − f rows whose scatter matrix has the smallest largest eigenvalue.

    `products` are inner products relative to any point, `squares` distances², both [n, n].
    A row more never lowers the eigenvalue, and that of a pair is half its squared distance: so a
    pair that alone exceeds what some subset reaches is in no better one.
    """
    size = len(squares) - f
    tries = squares.argsort(dim=1, stable=True)[:, :size].sort(1).values
    reached = float(_spreads(products, tries).min()) * (1 + EQUAL)
    best, chosen = math.inf, list(range(size))
    candidates = _apart(_far(squares, 2 * reached), len(squares), f)
    while batch := list(islice(candidates, BATCH)):
        spreads = _spreads(products, torch.tensor(batch))
        least = float(spreads.min())
        if least < best * (1 - EQUAL):
            best = least
            chosen = batch[int((spreads <= least * (1 + EQUAL)).nonzero()[0])]
    return chosen


def _spreads(products: Tensor, places: Tensor) -> Tensor:
    """The largest eigenvalue of the scatter matrix of each subset [b, k]: float64 [b]."""
    inner = products[places[:, :, None], places[:, None, :]]
    inner = inner - inner.mean(1, keepdim=True)
    inner = inner - inner.mean(2, keepdim=True)
    spreads: Tensor = torch.linalg.eigvalsh(inner)[:, -1]
    return spreads


def _far(squares: Tensor, limit: float) -> list[int]:
    return [
        sum(1 << place for place, far in enumerate(row) if far)
        for row in (squares > limit).tolist()
    ]


def _first_apart(far: list[int], rows: int, f: int) -> list[int]:
    """The lexicographically first n − f rows of which no two are far; some must exist."""
    alive, budget = (1 << rows) - 1, f
    for row in range(rows):
        if alive >> row & 1:
            apart = alive & ~far[row]
            cost = (alive & far[row]).bit_count()
            if cost <= budget and coverable(far, apart, budget - cost):
                alive, budget = apart, budget - cost
            else:
                alive, budget = alive & ~(1 << row), budget - 1
    return list(islice(_members(alive), rows - f))


def _apart(far: list[int], rows: int, f: int) -> Iterator[list[int]]:
    """Every n − f rows of which no two are far, in lexicographic order."""

    def extend(chosen: list[int], start: int, excluded: int) -> Iterator[list[int]]:
        missing = rows - f - len(chosen)
        if not missing:
            yield chosen
        for row in range(start, rows - missing + 1) if missing else ():
            if not excluded >> row & 1:
                left = (~excluded & ~far[row]) >> (row + 1) & ((1 << (rows - row - 1)) - 1)
                if left.bit_count() >= missing - 1:
                    yield from extend([*chosen, row], row + 1, excluded | far[row])

    return extend([], 0, 0)


def _members(rows: int) -> Iterator[int]:
    while rows:
        lowest = rows & -rows
        yield lowest.bit_length() - 1
        rows ^= lowest
