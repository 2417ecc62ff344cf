"""Sharing out a data set that every peer holds: which samples are whose.

Rules kept here:
- pure: labels, rule and seed in, index tensors out; equal inputs give equal parts on every peer,
  so nobody has to be told which samples are his;
- no sample is lost and none is in two parts.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy
import torch
from torch import LongTensor, Tensor

from learner import job, seeds
from learner.data import Dataset
from learner.errors import LearnerError

# A part with fewer samples could hardly fill a batch. Skewed draws over many parts miss it often;
# after REDRAWS tries (each a new draw) the fullest parts give some away.
MINIMUM_SAMPLES = 10
REDRAWS = 20

Counts = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.int64]]


def split(labels: Tensor, partition: job.Partition, seed: int) -> list[LongTensor]:
    """One sorted index tensor int64 per part; `labels` is int64 [n].

    iid: sizes differ by at most one. dirichlet: label skew as in Hsu et al. 2019 (arXiv:1909.06335)
    in the variant of Yurochkin et al. 2019 (ICML, section 4): each class is cut into shares drawn
    from Dir(alpha) over the parts. none: one part with everything. Raises LearnerError (data) when
    there are more parts than samples.
    """
    if partition.kind == "none":
        return [_indices(torch.arange(len(labels)))]
    if len(labels) < partition.parts:
        raise LearnerError(
            "data", f"{len(labels)} training samples cannot be shared among {partition.parts}"
            f" parts; set partition.parts to at most {len(labels)}",
        )  # fmt: skip
    generator = seeds.generator(seed, seeds.SHARED, "partition")
    order = torch.randperm(len(labels), generator=generator)
    if partition.kind == "iid":
        return [_indices(part) for part in order.tensor_split(partition.parts)]
    return _dirichlet(labels, order, partition, seed)


def take(dataset: Dataset, partition: job.Partition, part: int, seed: int) -> Dataset:
    """`dataset` with only the training samples of `part`; the test samples stay whole.

    Where nothing is shared out (kind none) any part that is not negative has everything. Raises
    LearnerError (job) for a part that does not exist.
    """
    if part < 0 or (partition.kind != "none" and part >= partition.parts):
        raise LearnerError(
            "job", f"there is no part {part}: parts go from 0 to {partition.parts - 1}; give each"
            " peer a part of its own in that range, or found the network with more parts",
        )  # fmt: skip
    if partition.kind == "none":
        return dataset
    chosen = split(dataset.y_train, partition, seed)[part]
    return replace(dataset, x_train=dataset.x_train[chosen], y_train=dataset.y_train[chosen])


def _dirichlet(
    labels: Tensor, order: Tensor, partition: job.Partition, seed: int
) -> list[LongTensor]:
    by_class = [order[labels[order] == label] for label in range(int(labels.max()) + 1)]
    sizes = [len(members) for members in by_class]
    # numpy's sampler survives concentrations at which normalised gamma draws are all zero.
    rng = numpy.random.default_rng(seeds.integer(seed, seeds.SHARED, "dirichlet shares"))
    minimum = min(MINIMUM_SAMPLES, len(labels) // partition.parts)
    for _ in range(REDRAWS):
        counts = _draw_counts(rng, sizes, partition)
        if counts.sum(0).min() >= minimum:
            break
    parts: list[list[Tensor]] = [[] for _ in range(partition.parts)]
    for members, row in zip(by_class, counts, strict=True):
        for part, piece in zip(parts, torch.split(members, row.tolist()), strict=True):
            part.append(piece)
    return [_indices(part) for part in _levelled([torch.cat(part) for part in parts], minimum)]


def _draw_counts(rng: numpy.random.Generator, sizes: list[int], partition: job.Partition) -> Counts:
    """int64 [classes, parts]: how many samples of each class each part gets."""
    shares = rng.dirichlet([partition.alpha] * partition.parts, size=len(sizes))
    cuts = numpy.cumsum(shares, axis=1)[:, :-1] * numpy.array(sizes)[:, None]
    inner = numpy.clip(numpy.rint(cuts).astype(numpy.int64), 0, numpy.array(sizes)[:, None])
    ends = [numpy.zeros((len(sizes), 1), numpy.int64), inner, numpy.array(sizes)[:, None]]
    return numpy.diff(numpy.concatenate(ends, axis=1), axis=1)


def _levelled(parts: list[Tensor], minimum: int) -> list[Tensor]:
    """Samples moved from the fullest parts until every part has the minimum."""
    fullest = [(-len(part), index) for index, part in enumerate(parts)]
    heapq.heapify(fullest)
    for index in range(len(parts)):
        while (missing := minimum - len(parts[index])) > 0:
            size, giver = heapq.heappop(fullest)
            moved = min(missing, -size - minimum)
            parts[index] = torch.cat([parts[index], parts[giver][:moved]])
            parts[giver] = parts[giver][moved:]
            heapq.heappush(fullest, (size + moved, giver))
    return parts


def _indices(part: Tensor) -> LongTensor:
    return part.sort().values  # type: ignore[return-value]
