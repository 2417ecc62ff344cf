"""A module as one flat float32 vector, and back.

Rules kept here:
- the order is the module's own (`named_parameters`, then averaged buffers), a tied tensor counts
  once, and two modules fit each other exactly when their layout digests are equal;
- floating-point buffers (BatchNorm statistics) belong to the vector when the job averages them;
  integer buffers (counters) never do, nor do buffers that a state_dict leaves out;
- `flatten` copies; `assign` checks everything before it changes anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.errors import LearnerError

ANOTHER_MODEL = (
    "the saved state is of another model than the job's; move the checkpoint folder away to start"
    " afresh"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the vector."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the vector is made of, in order."""

    entries: tuple[Entry, ...]
    parameters: int  # how many of the first entries are parameters; buffers follow

    @classmethod
    def of(cls, model: nn.Module, buffers: str = "average") -> Layout:
        """The layout of `model`; `buffers` is 'average' or 'keep' (see `job.Model.buffers`).

        Raises LearnerError (layout) when there is nothing to exchange, or a tensor is complex.
        """
        tensors: dict[str, Tensor] = dict(model.named_parameters())
        parameters = len(tensors)
        if buffers == "average":
            tensors |= _averaged_buffers(model)
        for name, tensor in tensors.items():
            if not tensor.dtype.is_floating_point:
                raise LearnerError(
                    "layout", f"{name} is {tensor.dtype}; only floating-point weights can be mixed"
                )
        if not any(tensor.numel() for tensor in tensors.values()):
            raise LearnerError("layout", "the model has no weights: there is nothing to train")
        return cls(
            tuple(
                Entry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in tensors.items()
            ),
            parameters,
        )

    @property
    def has_buffers(self) -> bool:
        """Whether the vector holds more than parameters."""
        return self.parameters < len(self.entries)

    @property
    def trained(self) -> int:
        """How many of the first values of the vector are parameters."""
        return sum(entry.values for entry in self.entries[: self.parameters])

    @property
    def dimension(self) -> int:
        """The length of the flat vector."""
        return sum(entry.values for entry in self.entries)

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 over names, shapes and dtypes."""
        text = json.dumps([[e.name, list(e.shape), e.dtype] for e in self.entries])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """For people: '6 tensors, 9,098 values'."""
        count = len(self.entries)
        return f"{count} tensor{'s' * (count != 1)}, {self.dimension:,} values"

    def flatten(self, model: nn.Module) -> Tensor:
        """A copy of the model's values: float32 [dimension] on the CPU."""
        flat = torch.empty(self.dimension)
        with torch.no_grad():
            for part, tensor in zip(self.parts(flat), self._tensors(model), strict=True):
                part.copy_(tensor)
        return flat

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The vector, float32 [dimension], of tensors by name, as a state_dict holds them."""
        return torch.cat([tensors[entry.name].float().flatten() for entry in self.entries])

    def assign(self, model: nn.Module, vector: Tensor) -> None:
        """Copy `vector` (float32 [dimension]) into the model.

        Raises LearnerError (layout), with the model as it was, for a wrong length or dtype.
        """
        if tuple(vector.shape) != (self.dimension,) or vector.dtype != torch.float32:
            raise LearnerError(
                "layout",
                f"a vector of {self.dimension} float32 values is needed, not "
                f"{vector.dtype} {tuple(vector.shape)}: the peers' models differ",
            )
        tensors = self._tensors(model)
        with torch.no_grad():
            for part, tensor in zip(self.parts(vector), tensors, strict=True):
                tensor.copy_(part)

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Views of the vector, float32 [dimension], in the tensors' shapes."""
        pieces = torch.split(vector, [entry.values for entry in self.entries])
        return [piece.view(entry.shape) for piece, entry in zip(pieces, self.entries, strict=True)]

    def stacked(self, vectors: Tensor) -> dict[str, Tensor]:
        """Views of n vectors, float32 [n, dimension], by name: [n, …] each."""
        pieces = torch.split(vectors, [entry.values for entry in self.entries], dim=1)
        return {
            entry.name: piece.reshape(len(vectors), *entry.shape)
            for piece, entry in zip(pieces, self.entries, strict=True)
        }

    def frozen(self, model: nn.Module) -> Tensor | None:
        """Which values belong to parameters that are not to be trained, bool [dimension]; None if
        all are."""
        parameters = dict(model.named_parameters())
        if all(parameter.requires_grad for parameter in parameters.values()):
            return None
        frozen = {name for name, p in parameters.items() if not p.requires_grad}
        flags = [entry.name in frozen for entry in self.entries]
        sizes = torch.tensor([entry.values for entry in self.entries])
        return torch.tensor(flags).repeat_interleave(sizes)

    def kept(self, model: nn.Module) -> dict[str, Tensor]:
        """Copies of the model's buffers that are not in the vector."""
        names = {entry.name for entry in self.entries}
        return {
            name: buffer.detach().clone()
            for name, buffer in model.named_buffers()
            if name not in names
        }

    def put_kept(self, model: nn.Module, kept: dict[str, Tensor]) -> None:
        """The inverse of `kept`. Raises LearnerError (checkpoint) for another model's buffers."""
        names = {entry.name for entry in self.entries}
        mine = {name: b for name, b in model.named_buffers() if name not in names}
        if mine.keys() != kept.keys() or any(kept[n].shape != b.shape for n, b in mine.items()):
            raise LearnerError("checkpoint", ANOTHER_MODEL)
        with torch.no_grad():
            for name, buffer in mine.items():
                buffer.copy_(kept[name])

    def _tensors(self, model: nn.Module) -> list[Tensor]:
        """The model's own tensors in the layout's order; raises if it is another model."""
        named: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        found = [named.get(entry.name) for entry in self.entries]
        fitting = [
            tensor
            for tensor, entry in zip(found, self.entries, strict=True)
            if tensor is not None and tuple(tensor.shape) == entry.shape
        ]
        if len(fitting) != len(self.entries):
            raise LearnerError("layout", "the model does not have this layout's tensors")
        return fitting


def _averaged_buffers(model: nn.Module) -> dict[str, Tensor]:
    kept = model.state_dict().keys()
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in kept and buffer.dtype.is_floating_point
    }
