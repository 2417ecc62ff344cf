"""What goes into the overlay machine (events) and what comes out of it (effects)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from overlay.founding import Candidacy
from overlay.records import Record
from overlay.wire import LinkMessage

# refused: no process listens on any address of the target; unreachable: no answer, or a broken
# one; declined: the target answered and wants no link now.
DialOutcome = Literal["refused", "unreachable", "declined"]


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A control link to the member `record` describes is ready; `digest` is its table's and
    `target` that of the Dial that led here ('' if the other side dialled)."""

    record: Record
    digest: int
    target: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link ended. `orderly`: one side closed it on purpose; otherwise it was lost."""

    peer: str
    orderly: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A message came in on a link."""

    peer: str
    message: LinkMessage


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial of `target` (a Dial's) came to nothing."""

    target: str
    outcome: DialOutcome
    reason: str


@dataclass(frozen=True, slots=True)
class MetHomeless:
    """Another peer without a network answered, or asked; `seed` is the address that was dialled
    ('' if the other side dialled)."""

    candidacy: Candidacy
    seed: str


@dataclass(frozen=True, slots=True)
class Join:
    """Somebody asked to join through these addresses."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """This peer is going."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Time has passed."""


Event = LinkUp | LinkDown | Received | DialFailed | MetHomeless | Join | Leave | Wake


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message on the link to `peer`."""

    peer: str
    message: LinkMessage


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link within `timeout_s`. `target` is the peer id, or the address where the id is not
    known."""

    target: str
    addresses: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class CloseLink:
    """End the link to `peer`."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Found a network: make an id for it and `adopt_network`."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something people and scripts want to know: an event of kind `kind`."""

    kind: str
    data: dict[str, Any]


Effect = Send | Dial | CloseLink | Found | Report
