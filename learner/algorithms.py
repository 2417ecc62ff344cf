"""The algorithms: what a peer does by itself in a round, and how it mixes what it receives.

Rules kept here:
- an algorithm knows neither the network nor the laboratory: flat vectors out, flat vectors in;
- it mixes exactly the vectors it sent, so that every peer's row of W meets the same X;
- nothing changes before everything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from learner.errors import LearnerError
from learner.mixing import consensus_distance, weighted_mean
from learner.schema import suggestion
from learner.trainer import Progress, Trainer
from learner.vector import Layout


class Algorithm(Protocol):
    """One peer's side of a decentralized algorithm; k quantities are exchanged."""

    exchanged: tuple[str, ...]
    progress: Progress

    def local(self, round: int) -> Tensor:
        """Round `round`'s local work. Returns the outgoing float32 [k, d]; sets `progress`."""

    def mix(self, own_weight: float, weights: Sequence[float], inbox: Tensor) -> float | None:
        """Mix the inbox float32 [n, k, d] in. Returns the consensus distance of the models."""

    def forget(self) -> None:
        """Drop what was sent: the model has been replaced from elsewhere."""


class DPSGD:
    """Decentralized parallel SGD (Lian et al., NeurIPS 2017, Algorithm 1).

    In its adapt-then-combine form x ← W(x − ηg): local steps first, then one mixing of the models.
    With more than one local step a round it is local SGD with gossip averaging.
    """

    exchanged: tuple[str, ...] = ("model",)

    def __init__(self, trainer: Trainer, layout: Layout) -> None:
        self._trainer, self._layout = trainer, layout
        self._sent: Tensor | None = None
        self.progress = Progress(0.0, 0)

    def local(self, round: int) -> Tensor:
        """Train for a round's steps. Returns the model as float32 [1, d]."""
        self.progress = self._trainer.run(self._trainer.round_steps)
        self._sent = self._layout.flatten(self._trainer.model)
        return self._sent[None]

    def mix(self, own_weight: float, weights: Sequence[float], inbox: Tensor) -> float | None:
        """The model becomes own_weight · sent + Σ weights[i] · inbox[i].

        Raises LearnerError: job when nothing was sent this round or the weights do not sum to 1,
        layout when the inbox [n, 1, d] has another shape. The model is then as it was.
        """
        if self._sent is None:
            raise LearnerError("job", "there is nothing to mix: no local work came before")
        _check_weights(own_weight, weights)
        if tuple(inbox.shape) != (len(weights), 1, self._layout.dimension):
            raise LearnerError("layout", f"the inbox has shape {tuple(inbox.shape)}")
        received = inbox[:, 0]
        mixed = weighted_mean(self._sent, received, own_weight, weights)
        distance = consensus_distance(self._sent, received)
        self._layout.assign(self._trainer.model, mixed)
        self._sent = None
        return distance

    def forget(self) -> None:
        self._sent = None


ALGORITHMS: dict[str, Callable[[Trainer, Layout], Algorithm]] = {"dpsgd": DPSGD}


def build(name: str, trainer: Trainer, layout: Layout) -> Algorithm:
    """The algorithm that a job names. Raises LearnerError (job) for an unknown one."""
    if name not in ALGORITHMS:
        raise LearnerError("job", f"no algorithm {name!r} ({suggestion(name, ALGORITHMS)})")
    return ALGORITHMS[name](trainer, layout)


def _check_weights(own_weight: float, weights: Sequence[float]) -> None:
    total = math.fsum([own_weight, *weights])
    # NaN fails both comparisons. Weights are doubles made by 1 / (1 + degree); 1e-6 is generous.
    if not (min([own_weight, *weights]) >= 0 and abs(total - 1) <= 1e-6):
        raise LearnerError("job", f"mixing weights must be ≥ 0 and sum to 1, not to {total}")


def inbox_view(payload: bytearray, senders: int, quantities: int, dimension: int) -> Tensor:
    """The payload as float32 [senders, quantities, dimension], without copying it.

    Raises LearnerError (layout) when its length is another.
    """
    wanted = 4 * senders * quantities * dimension
    if len(payload) != wanted:
        raise LearnerError(
            "layout",
            f"{len(payload)} bytes arrived where {senders} vectors of {dimension} values "
            f"({wanted} bytes) belong: the peers' models differ",
        )
    shape = (senders, quantities, dimension)
    return (
        torch.frombuffer(payload, dtype=torch.float32).view(shape) if wanted else torch.empty(shape)
    )
