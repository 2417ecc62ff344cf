"""What the daemon and its learner process say to each other.

One command at a time: the daemon sends a command, the learner answers with exactly one reply.
Every message may carry a payload of raw little-endian float32 bytes beside it. Both ends are the
same program on the same machine and the channel is a private socketpair, so fields are plain and
the decoder only guards against mistakes. No torch, no Trio.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import msgpack


@dataclass(frozen=True, slots=True)
class Configure:
    """Load data and model, and the newest checkpoint if `resume`. Answered by Configured.

    `job` is the job's canonical JSON; `source` is the data source of this peer ('' for the job's),
    `data_dir` where torchvision finds or lays data sets; `part` the zero-based part of the
    partition; `threads` for torch (0: all cores). `checkpoint_dir` is made if it is not there.
    `lie`: the attack with which this peer lies, '' for an honest one; `accomplices`: the peers that
    it does not take for honest.
    """

    job: str
    source: str
    data_dir: str
    part: int
    checkpoint_dir: str
    resume: bool
    threads: int
    lie: str = ""
    accomplices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Configured:
    """The learner is ready at `round` completed rounds (0: the seeded initial model).

    `layout` is the digest of parameter names, shapes and dtypes, `dimension` the length of a model
    as a flat vector, `values` that of the message a round sends, `exchanged` what is in it (for
    people), `keeps_sum` whether peers that began anew must not mix those that have not (see
    `algorithms.base`), `layout_text` a short description for people ('6 tensors, 9,098 values').
    """

    layout: str
    layout_text: str
    dimension: int
    values: int
    exchanged: tuple[str, ...]
    keeps_sum: bool
    round: int
    samples: int
    test_samples: int


@dataclass(frozen=True, slots=True)
class RunLocal:
    """Do round `round`'s local work. Answered by LocalDone with the message.

    `restart`: others take part than in the round before. `lie_to`: the neighbours whom a lying
    learner shall make up messages for.
    """

    round: int
    evaluate: bool
    restart: bool = False
    lie_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalDone:
    """Payload: float32 [1 + len(lie_to), values], the message and then the lies. `loss` is the mean
    training loss, None without training."""

    round: int
    loss: float | None
    steps: int
    seconds: float
    accuracy: float | None
    test_loss: float | None


@dataclass(frozen=True, slots=True)
class Mix:
    """Mix round `round`. Payload: float32 [len(weights) + added, values].

    `own_weight` plus the sum of `weights` is 1; the last `added` vectors are steps that others owe
    this peer, added as they are. Answered by Mixed; where an algorithm goes by pairs its payload is
    float32 [k, values]: the mixed model and, if there was a partner, the step that it is owed.
    `senders` are the peers of the weights, which a lying learner remembers.
    """

    round: int
    own_weight: float
    weights: tuple[float, ...]
    evaluate: bool
    added: int = 0
    senders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mixed:
    """`round` rounds are complete. `distance` is the estimated relative consensus distance:
    sqrt(mean over self and inbox of ||x_j - x̄||²) / ||x̄||; None when the inbox was empty.
    `change` is how far the round moved the model, relative to its norm, where the job asks for it;
    `loss` the mean training loss of work that was done after mixing, None without. `weights` are
    those that each vector of the inbox had in the end (0: dropped by the rule), None where the rule
    weighs coordinate by coordinate; `rejected` are the vectors that were not finite."""

    round: int
    loss: float | None
    change: float | None
    seconds: float
    accuracy: float | None
    test_loss: float | None
    distance: float | None
    weights: tuple[float, ...] | None
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Replace the model by the weighted average of the payload and continue at `round`.

    Payload: float32 [len(weights), dimension], models only; `weights` are positive and need not
    sum to 1. The optimizer starts afresh. Answered by Bootstrapped.
    """

    round: int
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The averaged model's own held-out accuracy (a fraction) and loss, before any local step."""

    round: int
    accuracy: float | None
    test_loss: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hand out the current model. Answered by SnapshotTaken with payload float32 [dimension]."""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    round: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the current model on the held-out data. Answered by Evaluated."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    round: int
    accuracy: float | None
    test_loss: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class Export:
    """Write the current model to `path` as safetensors. Answered by Exported."""

    path: str


@dataclass(frozen=True, slots=True)
class Exported:
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Import:
    """Replace the model by that of the safetensors file `path`; the round stays, the optimizer
    starts afresh. Answered by Imported."""

    path: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The file's model on the held-out data, before any local step."""

    path: str
    round: int
    accuracy: float | None
    test_loss: float | None


@dataclass(frozen=True, slots=True)
class SaveCheckpoint:
    """Write a checkpoint now, atomically. Answered by CheckpointSaved or Failed('disk', …)."""


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    path: str
    round: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The command could not be carried out; the learner is as it was before it.

    `kind` is one of data, model, job, disk, layout, checkpoint, bug; `message` is for people and
    says what to do. A traceback, if any, is in the learner's log.
    """

    kind: str
    message: str


Command = (
    Configure | RunLocal | Mix | Bootstrap | Snapshot | Evaluate | Export | Import | SaveCheckpoint
)  # fmt: skip
Reply = (
    Configured | LocalDone | Mixed | Bootstrapped | SnapshotTaken | Evaluated | Exported
    | Imported | CheckpointSaved | Failed
)  # fmt: skip
Message = Command | Reply

_KINDS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        Configure, Configured, RunLocal, LocalDone, Mix, Mixed, Bootstrap, Bootstrapped,
        Snapshot, SnapshotTaken, Evaluate, Evaluated, Export, Exported, Import, Imported,
        SaveCheckpoint, CheckpointSaved, Failed,
    )
}  # fmt: skip


def encode(message: Message) -> bytes:
    """One msgpack array: the kind, then the fields in order."""
    fields = [getattr(message, field.name) for field in dataclasses.fields(message)]
    packed: bytes = msgpack.packb([type(message).__name__, *fields])
    return packed


def decode(data: bytes) -> Message:
    """The inverse of `encode`. Raises ValueError for anything else."""
    try:
        unpacked = msgpack.unpackb(data, use_list=False)
    except TypeError as error:  # a map as the key of a map
        raise ValueError(f"malformed learner message: {error}") from None
    if not isinstance(unpacked, tuple) or not unpacked:
        raise ValueError("a learner message is an array [kind, fields…]")
    kind, *fields = unpacked
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"unknown learner message {kind!r}")
    try:
        message: Message = _KINDS[kind](*fields)
    except TypeError as error:
        raise ValueError(f"malformed learner message {kind}: {error}") from None
    return message
