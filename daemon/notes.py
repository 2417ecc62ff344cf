"""What the sessions of two neighbours say to each other over the control link.

The overlay carries these as opaque notes. Jobs are spread peer to peer; training state and round
announcements concern neighbours only.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.certificates import MAX_CERTIFICATE_BYTES
from overlay.codec import Codec
from overlay.identity import is_id
from overlay.records import MAX_CHAIN, SIGNATURE_BYTES

MAX_NOTE_BYTES = 48 * 1024
MAX_PARTNERS = 512
MAX_VERSION = 2**53 - 1
STATES = (
    "off", "idle", "starting", "bootstrapping", "waiting", "training", "paused", "stopped",
    "finished", "failed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobState:
    """The job this peer holds; version 0 is none."""

    version: int
    digest: str

    def __post_init__(self) -> None:
        _check_job(self.version, self.digest)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Send me your job."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who submitted a job: when (Unix seconds), with which certificates, and the signature. Empty
    in a network of plain links."""

    at: int = 0
    chain: tuple[bytes, ...] = ()
    signature: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.at < 2**53 or len(self.chain) > MAX_CHAIN:
            raise ValueError("number out of range")
        if len(self.signature) not in (0, SIGNATURE_BYTES):
            raise ValueError("signature of the wrong form")


@dataclass(frozen=True, slots=True)
class JobOffer:
    """A job as canonical JSON."""

    version: int
    text: str
    proof: Proof

    def __post_init__(self) -> None:
        _check_job(self.version, "")


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where this peer stands. `run` is job version and digest ('3-1f…'), `round` the rounds
    completed, `layout` the digest of its model's layout and `layout_text` the same for people."""

    run: str
    state: str
    round: int
    layout: str
    layout_text: str
    samples: int

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError("unknown training state")
        if not 0 <= self.round < 2**53 or not 0 <= self.samples < 2**53:
            raise ValueError("number out of range")
        if max(len(self.run), len(self.layout), len(self.layout_text)) > 128:
            raise ValueError("text too long")


@dataclass(frozen=True, slots=True)
class Announce:
    """Round `round`'s message is ready here, these are the peers that mix it in, and `epoch` stands
    for who takes part."""

    run: str
    round: int
    partners: tuple[str, ...]
    epoch: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.round < 2**53 or len(self.run) > 128 or not 0 <= self.epoch < 2**53:
            raise ValueError("out of range")
        if len(self.partners) > MAX_PARTNERS or not all(is_id(p) for p in self.partners):
            raise ValueError("partners of the wrong form")


@dataclass(frozen=True, slots=True)
class Paired:
    """In my round `round` I averaged with your model; your half can be fetched here."""

    run: str
    round: int

    def __post_init__(self) -> None:
        if not 0 <= self.round < 2**53 or len(self.run) > 128:
            raise ValueError("out of range")


Note = JobState | JobRequest | JobOffer | TrainState | Announce | Paired

NOTES = Codec(
    {
        "job": JobState,
        "job?": JobRequest,
        "job!": JobOffer,
        "train": TrainState,
        "round": Announce,
        "paired": Paired,
    },
    max_bytes=MAX_NOTE_BYTES,
    max_text=20_000,
    max_binary=MAX_CERTIFICATE_BYTES,
)


def _check_job(version: int, digest: str) -> None:
    if not 0 <= version <= MAX_VERSION or len(digest) > 64:
        raise ValueError("job version or digest out of range")
