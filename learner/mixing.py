"""Mixing rules and the consensus distance, on flat vectors.

Rules kept here:
- a rule is a function `(own[d], received[n, d], own_weight, weights[n]) -> [d]` into a new tensor;
  its inputs, which may be read-only views of a network buffer, are never changed;
- extra memory is bounded: the work goes in chunks that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# 2**18 float32 are 1 MiB: a chunk of the result stays in the second-level cache while every
# neighbour's chunk is added to it.
CHUNK_VALUES = 1 << 18


def weighted_mean(
    own: Tensor, received: Tensor, own_weight: float, weights: Sequence[float]
) -> Tensor:
    """own_weight · own + Σ weights[i] · received[i]: a row of W @ X. A new float32 [d]."""
    mixed = own * own_weight
    for start in range(0, mixed.numel(), CHUNK_VALUES):
        chunk = slice(start, start + CHUNK_VALUES)
        for row, weight in zip(received, weights, strict=True):
            mixed[chunk].add_(row[chunk], alpha=weight)
    return mixed


def consensus_distance(own: Tensor, received: Tensor) -> float | None:
    """sqrt(mean over self and received of ‖x_j − x̄‖²) / ‖x̄‖, accumulated in float64.

    None when nothing was received, or when x̄ is zero and the ratio has no meaning.
    """
    peers = len(received) + 1
    if peers == 1:
        return None
    spread = mean_square = 0.0
    step = max(1, 4 * CHUNK_VALUES // peers)
    for start in range(0, own.numel(), step):
        chunk = slice(start, start + step)
        rows = torch.cat([own[None, chunk], received[:, chunk]]).double()
        mean = rows.mean(0)
        mean_square += float(mean.square().sum())
        spread += float(rows.sub_(mean).square_().sum())
    return math.sqrt(spread / peers / mean_square) if mean_square > 0 else None


def finite_rows(received: Tensor) -> list[bool]:
    """For each row of [n, …] whether all of its values are finite."""
    return [bool(torch.isfinite(row).all()) for row in received]
