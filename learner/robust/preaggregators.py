"""What is done to the vectors before they are aggregated: float32 [n, d] → [m, d], a new tensor.

Clipping and ARC may be allowed to `overwrite` the vectors: a few rows are scaled where they stand,
which is many times quicker than to fill a new [n, d].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner import seeds
from learner.errors import LearnerError
from learner.robust.distances import admit, admit_by_norm, combine, gram, share
from learner.robust.names import check_number, check_whole
from learner.robust.selecting import nearest


@dataclass(frozen=True)
class NNM:
    """Nearest neighbour mixing: each vector becomes the mean of the n − f nearest, itself included.

    Makes most rules optimally robust for f < n/2 where the honest differ (Allouah, Farhadkhani,
    Guerraoui, Gupta, Pinot and Stephan, "Fixing by mixing", AISTATS 2023). float32 [n, d] → [n, d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("NNM", "f", self.f)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        if self.f >= len(vectors):
            raise LearnerError(
                "job", f"NNM: f = {self.f} must be below the number of vectors, {len(vectors)}"
            )
        admitted = admit(vectors, self.f)
        neighbours = nearest(gram(admitted.vectors).squares, admitted.f)
        weights = [share(places, len(admitted.vectors)) for places in neighbours]
        return combine(torch.stack(weights), admitted.vectors)


@dataclass(frozen=True)
class Bucketing:
    """The means of buckets of s vectors in random order; the last bucket may hold fewer.

    Lessens how much the honest differ, and takes f of n to f of ⌈n/s⌉ (Karimireddy, He and Jaggi,
    "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022). The order
    follows from (seed, round). float32 [n, d] → [⌈n/s⌉, d].
    """

    s: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("Bucketing", "s", self.s, least=1)
        check_whole("Bucketing", "seed", self.seed)

    def __call__(self, vectors: Tensor | Sequence[Tensor], *, round: int = 0) -> Tensor:
        rows = admit(vectors).vectors
        order = torch.randperm(len(rows), generator=self._generator(round))
        if self.s == 1:
            return rows[order]
        buckets = [share(places, len(rows)) for places in torch.split(order, self.s)]
        return combine(torch.stack(buckets), rows)

    def _generator(self, round: int) -> torch.Generator:
        """In round 0 byzfl's after torch.manual_seed(seed)."""
        if round:
            return seeds.generator(self.seed, round, "bucketing")
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Clipping:
    """Every vector at most c long: min(1, c/‖x_i‖) x_i. float32 [n, d] → [n, d].

    Bounds what one vector can do; the threshold is the caller's to know.
    """

    c: float = 2.0

    def __post_init__(self) -> None:
        check_number("Clipping", "c", self.c)

    def __call__(
        self, vectors: Tensor | Sequence[Tensor], *, round: int = 0, overwrite: bool = False
    ) -> Tensor:
        admitted, lengths = admit_by_norm(vectors)
        return _clipped(admitted.vectors, lengths, float(self.c), overwrite)


@dataclass(frozen=True)
class ARC:
    """Adaptive robust clipping: the k = ⌊2 (f/n) (n − f)⌋ longest are cut to the next one's length.

    Keeps the guarantees of the rule after it for f < n/2, and takes f ≤ n (Allouah, Guerraoui,
    Gupta, Jellouli, Rizk and Stephan, "The vital role of gradient clipping in Byzantine-resilient
    distributed learning", 2024, arXiv:2405.14432). float32 [n, d] → [n, d].
    """

    f: int = 0

    def __post_init__(self) -> None:
        check_whole("ARC", "f", self.f)

    def __call__(
        self, vectors: Tensor | Sequence[Tensor], *, round: int = 0, overwrite: bool = False
    ) -> Tensor:
        if self.f > len(vectors):
            raise LearnerError(
                "job", f"ARC: f = {self.f} must be at most the number of vectors, {len(vectors)}"
            )
        admitted, lengths = admit_by_norm(vectors, self.f)
        count = len(lengths)
        # In floats as byzfl has it: a whole number k may come out as k − 1.
        cut = int(2 * admitted.f / count * (count - admitted.f))
        longest = float(lengths.sort().values[count - cut - 1])
        return _clipped(admitted.vectors, lengths, longest, overwrite)


def _clipped(rows: Tensor, lengths: Tensor, longest: float, overwrite: bool) -> Tensor:
    clipped = rows if overwrite else rows.clone()
    for place in (lengths > longest).nonzero().flatten().tolist():
        clipped[place] *= longest / float(lengths[place])
    return clipped
