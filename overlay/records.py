"""What is known about a member: what it says of itself, and what the others say of it.

A `Record` is the member's own word and nobody else's; a `Fate` is what befell it, said by others
(suspect, dead) or in parting (left). They are kept apart because they have different authors.

Rules kept here (SWIM, Das et al., DSN 2002, section 4.2):
- a higher incarnation supersedes a lower one, whatever was said;
- at equal incarnations the graver state wins: alive < suspect < dead < left;
- only the member itself raises its incarnation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from overlay.identity import is_id

MAX_ADDRESSES = 8
MAX_NAME = 64
MAX_INCARNATION = 2**53


class State(enum.StrEnum):
    """How a member is believed to be."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


GRAVITY = {State.ALIVE: 0, State.SUSPECT: 1, State.DEAD: 2, State.LEFT: 3}


@dataclass(frozen=True, slots=True)
class Record:
    """One member as it describes itself.

    `addresses` are dialled in order (`ws://host:port`); `learner` says whether it trains;
    `part` is the zero-based part of a shared data set that it claims, −1 for none.
    """

    peer_id: str
    name: str
    addresses: tuple[str, ...]
    incarnation: int
    learner: bool
    part: int

    def __post_init__(self) -> None:
        if not is_id(self.peer_id):
            raise ValueError("peer id of the wrong form")
        if len(self.name) > MAX_NAME or not self.name.isprintable():
            raise ValueError("name too long or not printable")
        if len(self.addresses) > MAX_ADDRESSES or any(len(a) > 256 for a in self.addresses):
            raise ValueError("too many or too long addresses")
        if not 0 <= self.incarnation < MAX_INCARNATION or not -1 <= self.part < 2**31:
            raise ValueError("number out of range")


class _Fate(NamedTuple):
    peer_id: str
    incarnation: int
    state: State


class Fate(_Fate):
    """What befell a member in the life that began with `incarnation`; `state` is never alive."""

    __slots__ = ()

    def __new__(cls, peer_id: str, incarnation: int, state: State) -> Fate:
        if not is_id(peer_id):
            raise ValueError("peer id of the wrong form")
        if not 0 <= incarnation < MAX_INCARNATION or state is State.ALIVE:
            raise ValueError("a fate is suspect, dead or left, at an incarnation in range")
        return super().__new__(cls, peer_id, incarnation, state)

    @property
    def is_live(self) -> bool:
        """Suspect only: still a member of the neighbour graph."""
        return self.state is State.SUSPECT

    def graver_than(self, other: Fate | None) -> bool:
        """Whether this is news to somebody who holds `other` about the same peer."""
        if other is None:
            return True
        mine = (self.incarnation, GRAVITY[self.state])
        return mine > (other.incarnation, GRAVITY[other.state])


@dataclass(frozen=True, slots=True)
class Member:
    """A row of the member table, for whoever looks at it."""

    record: Record
    state: State

    @property
    def is_live(self) -> bool:
        """Alive or suspect."""
        return self.state in (State.ALIVE, State.SUSPECT)
