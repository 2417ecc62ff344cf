"""What is known about a member: its record, and which of two records is newer.

Rules kept here (SWIM, Das et al., DSN 2002, section 4.2):
- a higher incarnation supersedes a lower one, whatever the states;
- at equal incarnations the graver state wins: alive < suspect < dead < left;
- only the member itself raises its incarnation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from overlay.identity import is_id

MAX_ADDRESSES = 8
MAX_NAME = 64


class State(enum.StrEnum):
    """How a member is believed to be."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


_GRAVITY = {State.ALIVE: 0, State.SUSPECT: 1, State.DEAD: 2, State.LEFT: 3}


@dataclass(frozen=True, slots=True)
class Record:
    """One member as it describes itself, and the state others believe it to be in.

    `addresses` are dialled in order (`ws://host:port`); `learner` says whether it trains;
    `part` is the zero-based part of a shared data set that it claims, −1 for none.
    """

    peer_id: str
    name: str
    addresses: tuple[str, ...]
    incarnation: int
    state: State
    learner: bool
    part: int

    def __post_init__(self) -> None:
        if not is_id(self.peer_id):
            raise ValueError("peer id of the wrong form")
        if len(self.name) > MAX_NAME or not self.name.isprintable():
            raise ValueError("name too long or not printable")
        if len(self.addresses) > MAX_ADDRESSES or any(len(a) > 256 for a in self.addresses):
            raise ValueError("too many or too long addresses")
        if not 0 <= self.incarnation < 2**53 or not -1 <= self.part < 2**31:
            raise ValueError("number out of range")

    @property
    def is_live(self) -> bool:
        """Alive or suspect: still a member of the neighbour graph."""
        return self.state in (State.ALIVE, State.SUSPECT)


def supersedes(new: Record, old: Record) -> bool:
    """Whether `new` is news to somebody who holds `old` (both of one peer)."""
    return (new.incarnation, _GRAVITY[new.state]) > (old.incarnation, _GRAVITY[old.state])
