"""Accuracy and loss of a model on held-out data.

The model is evaluated in evaluation mode and comes back module by module in the mode it was in
(a frozen BatchNorm stays frozen); no gradient is recorded and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`accuracy` is a fraction, `loss` the mean cross-entropy in nats."""

    accuracy: float
    loss: float
    samples: int


def evaluate(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 512) -> Evaluation:
    """Evaluate on x float32 [n, …], y int64 [n], n ≥ 1, `batch_size` samples at a time."""
    correct, loss = 0, 0.0
    with _evaluation_mode(model), torch.no_grad():
        for inputs, labels in zip(
            torch.split(x, batch_size), torch.split(y, batch_size), strict=True
        ):
            logits = model(inputs)
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    return Evaluation(correct / len(y), loss / len(y), len(y))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
