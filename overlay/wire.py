"""Every message between two peers: what it is, its limits, and its bytes.

Two websockets join two neighbours. The control link carries the messages of `CONTROL` (at most
64 KiB each, so nothing large ever stands in front of a heartbeat); the data link carries those of
`DATA`, tensors in chunks that the receiver asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.codec import Codec
from overlay.digests import BUCKETS
from overlay.founding import Candidacy
from overlay.identity import is_id
from overlay.records import MAX_INCARNATION, SIGNATURE_BYTES, Fate, Record, Vote, check_words
from overlay.revocation import Revocation

PROTOCOL_VERSION = 5
SUBPROTOCOL = "gossipd.1"
CONTROL_PATH = "/control"
DATA_PATH = "/data"
ENROL_PATH = "/enrol"
MAX_CONTROL_BYTES = 64 * 1024
# Larger chunks gain nothing on a loopback measurement and delay a cancelled transfer's end.
CHUNK_BYTES = 256 * 1024
MAX_DATA_BYTES = CHUNK_BYTES + 4096

# Opening a control link.


@dataclass(frozen=True, slots=True)
class Hello:
    """The dialling side's first message. `network` is '' for a peer that has none yet, which then
    says its `candidacy`; `instance` changes with every start of a process; `link_id` names this
    pair of websockets."""

    version: int
    network: str
    record: Record
    instance: bytes
    link_id: bytes
    digest: int
    candidacy: Candidacy | None

    def __post_init__(self) -> None:
        _check_greeting(self.network, self.instance, self.digest)
        if len(self.link_id) != 16:
            raise ValueError("link id of the wrong form")


@dataclass(frozen=True, slots=True)
class Welcome:
    """The accepting side's answer; `network` is the network that the dialler now belongs to."""

    network: str
    record: Record
    instance: bytes
    digest: int

    def __post_init__(self) -> None:
        _check_greeting(self.network, self.instance, self.digest)
        if not self.network:
            raise ValueError("a network id is required")


@dataclass(frozen=True, slots=True)
class Refuse:
    """No link, and why: `kind` is stable (network, version, duplicate, self, homeless, busy,
    expired, revoked). A homeless peer says its `candidacy`; who is revoked sees by whom."""

    kind: str
    reason: str
    candidacy: Candidacy | None = None
    revocation: Revocation | None = None

    def __post_init__(self) -> None:
        check_words(self.kind, self.reason)


# On a control link.


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I am here, and this is the digest of my member table."""

    digest: int

    def __post_init__(self) -> None:
        _check_digest(self.digest)


class _Evidence(NamedTuple):
    subject: str
    incarnation: int
    observer: str
    hard: bool
    signature: bytes


class Evidence(_Evidence):
    """`observer` found `subject` silent, or (`hard`) its port refusing after a reset link."""

    __slots__ = ()

    def __new__(
        cls, subject: str, incarnation: int, observer: str, hard: bool, signature: bytes = b""
    ) -> Evidence:
        if not is_id(subject) or not is_id(observer):
            raise ValueError("peer id of the wrong form")
        if not 0 <= incarnation < MAX_INCARNATION:
            raise ValueError("number out of range")
        if len(signature) not in (0, SIGNATURE_BYTES):
            raise ValueError("signature of the wrong form")
        return super().__new__(cls, subject, incarnation, observer, hard, signature)

    @property
    def vote(self) -> Vote:
        """The same, where it is said whom it is about."""
        return Vote(self.observer, self.incarnation, self.hard, self.signature)


@dataclass(frozen=True, slots=True)
class News:
    """What is new to the sender; whoever finds it new passes it on. Records come before fates."""

    records: tuple[Record, ...]
    fates: tuple[Fate, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Our digests differ. These are those of the parts of my table: send me what you hold in the
    parts where yours differ."""

    digests: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.digests) != BUCKETS:
            raise ValueError(f"a table has {BUCKETS} parts")
        for digest in self.digests:
            _check_digest(digest)


@dataclass(frozen=True, slots=True)
class SyncPage:
    """What the sender holds, as far as tables differ. It may be old: the word of a death in it is
    weighed like a doubt first."""

    records: tuple[Record, ...]
    fates: tuple[Fate, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """These are out for good."""

    revocations: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """An opaque message of the room above (the session) to its counterpart."""

    body: bytes


# On a data link.


@dataclass(frozen=True, slots=True)
class DataHello:
    """Binds this websocket to the control link that carries the same id."""

    link_id: bytes

    def __post_init__(self) -> None:
        if len(self.link_id) != 16:
            raise ValueError("link id of the wrong form")


@dataclass(frozen=True, slots=True)
class DataWelcome:
    """The data link is ready."""


@dataclass(frozen=True, slots=True)
class Want:
    """Send me `stream` (of the job `scope`) at `version`; −1 is the newest."""

    request: int
    scope: str
    stream: str
    version: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What would come: compared with the local layout before a byte is allocated.

    `layout` is the layout digest, `weight` what the sender was trained on (samples), `digest` the
    BLAKE2b-128 of the whole blob.
    """

    request: int
    version: int
    layout: str
    size_bytes: int
    weight: int
    digest: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.size_bytes < 2**40 or not 0 <= self.weight < 2**53:
            raise ValueError("number out of range")
        if not 0 <= self.version < 2**53:
            raise ValueError("version out of range")
        if len(self.digest) != 16:
            raise ValueError("digest of the wrong form")


@dataclass(frozen=True, slots=True)
class Decline:
    """The wanted thing is not to be had, and why."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Go on: send the offered blob's chunks."""

    request: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a blob at `offset`, with their CRC-32 (zlib)."""

    request: int
    offset: int
    crc32: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Again:
    """The chunk at `offset` came damaged: send it once more."""

    request: int
    offset: int


@dataclass(frozen=True, slots=True)
class Finish:
    """No more of this request: it is complete, or no longer wanted."""

    request: int


LinkMessage = Heartbeat | News | SyncRequest | SyncPage | Revoked
ControlMessage = Hello | Welcome | Refuse | LinkMessage | Note
DataMessage = Want | Offer | Decline | Accept | Chunk | Again | Finish

CONTROL = Codec(
    {
        "hello": Hello,
        "welcome": Welcome,
        "refuse": Refuse,
        "hb": Heartbeat,
        "news": News,
        "sync?": SyncRequest,
        "sync": SyncPage,
        "revoked": Revoked,
        "note": Note,
    },
    max_bytes=MAX_CONTROL_BYTES,
    max_binary=MAX_CONTROL_BYTES,
)
DATA = Codec(
    {
        "hello": DataHello,
        "welcome": DataWelcome,
        "want": Want,
        "offer": Offer,
        "decline": Decline,
        "accept": Accept,
        "chunk": Chunk,
        "again": Again,
        "finish": Finish,
    },
    max_bytes=MAX_DATA_BYTES,
    max_binary=CHUNK_BYTES,
)


def _check_greeting(network: str, instance: bytes, digest: int) -> None:
    if network and not is_id(network):
        raise ValueError("network id of the wrong form")
    if len(instance) != 16:
        raise ValueError("instance of the wrong form")
    _check_digest(digest)


def _check_digest(digest: int) -> None:
    if not 0 <= digest < 2**64:
        raise ValueError("digest out of range")
