"""Local training of one peer: a model, an optimizer, and batches, all of which can be resumed.

Rules kept here:
- batches come from the trainer's own generator, derived from (seed, part); dropout and the like
  draw from torch's global generator, whose state is swapped in for a run and out again after it;
- `state` and `restore` cover everything that a further step depends on, so that a resumed run is
  bit-identical to one that never stopped;
- a run that fails leaves the trainer as it was, and weights from a loss that is not finite are
  never handed out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner import job, quick_start, seeds
from learner.errors import LearnerError

_DIVERGED = (
    "the loss is not finite: training diverged; lower the learning rate (optimizer.lr) or set"
    " optimizer.clip_norm"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run did: the mean training loss over its `steps`."""

    loss: float
    steps: int


@dataclass(frozen=True, slots=True)
class State:
    """All that further training depends on. Tensors are copies; names are 'model.*',
    'optimizer.INDEX.*', 'batches.*' and 'random.torch'. `position` counts into the epoch."""

    tensors: dict[str, Tensor]
    position: int


class Batches:
    """Reshuffled epochs of n samples; a tail of one sample joins the batch before it, because
    BatchNorm cannot train on one."""

    def __init__(self, samples: int, batch_size: int, generator: torch.Generator) -> None:
        self._samples, self._size, self._generator = samples, batch_size, generator
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0

    def __next__(self) -> Tensor:
        """Indices int64 of the next batch, at most batch_size + 1 of them."""
        if self.position >= len(self.order):
            self.order = torch.randperm(self._samples, generator=self._generator)
            self.position = 0
        end = self.position + self._size
        if self._size > 1 and end == self._samples - 1:
            end += 1
        batch = self.order[self.position : end]
        self.position = min(end, self._samples)
        return batch

    @property
    def per_epoch(self) -> int:
        """How many batches one pass over the samples takes."""
        full, tail = divmod(self._samples, self._size)
        joins = tail == 1 and self._size > 1 and full > 0
        return full + (tail > 0 and not joins)

    def state(self) -> dict[str, Tensor]:
        return {"batches.order": self.order.clone(), "batches.random": self._generator.get_state()}

    def restore(self, tensors: dict[str, Tensor], position: int) -> None:
        """Take a saved place up again; a place in other data (another length) is forgotten."""
        order = tensors["batches.order"]
        if len(order) in (0, self._samples):
            self.order, self.position = order.clone(), position
            self._generator.set_state(tensors["batches.random"])


class Trainer:
    """Trains `model` in place on x float32 [n, …], y int64 [n]."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        optimizer: job.Optimizer,
        training: job.Training,
        seed: int,
        part: int,
    ) -> None:
        self.model, self._x, self._y = model, x, y
        self._settings, self._training = optimizer, training
        self._batches = Batches(len(y), training.batch_size, seeds.generator(seed, part, "batches"))
        self._random = seeds.generator(seed, part, "dropout").get_state()
        self._optimizer = self._new_optimizer()

    @property
    def samples(self) -> int:
        return len(self._y)

    @property
    def round_steps(self) -> int:
        """Optimizer steps of one round: the job's local_epochs if set, else its local_steps."""
        epochs = self._training.local_epochs
        return epochs * self._batches.per_epoch if epochs else self._training.local_steps

    def run(self, steps: int) -> Progress:
        """Do `steps` optimizer steps.

        Raises LearnerError (model), with everything as it was before the run, when the loss or a
        weight is not finite, or when the model refuses a batch.
        """
        before = self.state()
        try:
            with self._own_randomness():
                losses = torch.stack([self._step(next(self._batches)) for _ in range(steps)])
            self._check_weights()
        except BaseException:
            self.restore(before)
            raise
        return Progress(float(losses.double().mean()), steps)

    def reset_optimizer(self) -> None:
        """Start the optimizer afresh, for a model that came from elsewhere."""
        self._optimizer = self._new_optimizer()

    def state(self) -> State:
        """A copy of everything that further training depends on."""
        tensors = {f"model.{name}": tensor for name, tensor in self._model_tensors().items()}
        for index, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()
                        if isinstance(value, Tensor)}  # fmt: skip
        tensors |= {**self._batches.state(), "random.torch": self._random}
        copies = {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return State(copies, self._batches.position)

    def restore(self, state: State) -> None:
        """The inverse of `state`. Raises LearnerError (checkpoint) for another model's state."""
        saved = _below("model.", state.tensors)
        tensors = self._model_tensors()
        fits = saved.keys() == tensors.keys() and all(
            saved[name].shape == tensor.shape for name, tensor in tensors.items()
        )
        if not fits:
            raise LearnerError(
                "checkpoint", "the saved state is of another model than the job's; move the"
                " checkpoint folder away to start afresh",
            )  # fmt: skip
        self._restore_optimizer(_below("optimizer.", state.tensors))
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        self._batches.restore(state.tensors, state.position)
        self._random = state.tensors["random.torch"].clone()

    def _step(self, batch: Tensor) -> Tensor:
        """One optimizer step; returns the loss as a scalar tensor."""
        self.model.train()
        self._optimizer.zero_grad()
        try:
            loss = functional.cross_entropy(self.model(self._x[batch]), self._y[batch])
        except (RuntimeError, ValueError) as error:
            raise LearnerError(
                "model", f"the model refused a training batch of {len(batch)} samples: {error}"
            ) from error
        if not math.isfinite(float(loss.detach())):
            raise LearnerError("model", _DIVERGED)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self._optimizer.step()
        return loss.detach()

    def _check_weights(self) -> None:
        """The last step may overflow weights that no loss has shown yet."""
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise LearnerError("model", _DIVERGED)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        chosen, parameters = self._settings, list(self.model.parameters())
        if chosen.name == "adam":
            return quick_start.Adam(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay)
        return quick_start.SGD(
            parameters, lr=chosen.lr, momentum=chosen.momentum, nesterov=chosen.nesterov,
            weight_decay=chosen.weight_decay,
        )  # fmt: skip

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        optimizer = self._new_optimizer()
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        self._optimizer = optimizer

    def _model_tensors(self) -> dict[str, Tensor]:
        """Parameters and all buffers, a tied tensor once."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
            self._random = torch.get_rng_state()
        finally:
            torch.set_rng_state(outside)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
