"""What is known about a member: what it says of itself, and what the others say of it.

A `Record` is the member's own word and nobody else's; a `Fate` is what befell it, said by others
(suspect, dead) or in parting (left). They are kept apart because they have different authors, who
sign them (`notary`): the member its record and its goodbye, each observer its vote for a death.

Rules kept here (SWIM, Das et al., DSN 2002, section 4.2):
- a higher incarnation supersedes a lower one, whatever was said;
- at equal incarnations the graver state wins: alive < suspect < dead < left < revoked;
- only the member itself raises its incarnation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from overlay.identity import is_id

SIGNATURE_BYTES = 64  # Ed25519, RFC 8032
MAX_ADDRESSES = 8
MAX_NAME = 64
MAX_INCARNATION = 2**53
# The member's certificate, and that of an issuer who made it.
MAX_CHAIN = 2
# Observers of a member are its six neighbours on the rings; three of them are a quorum.
MAX_VOTES = 6


def check_words(*texts: str) -> None:
    """Raises ValueError for texts of others that would upset a terminal or a log."""
    if not all(text.isprintable() for text in texts):
        raise ValueError("text is not printable")


class State(enum.StrEnum):
    """How a member is believed to be."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"
    REVOKED = "revoked"


GRAVITY = {State.ALIVE: 0, State.SUSPECT: 1, State.DEAD: 2, State.LEFT: 3, State.REVOKED: 4}


@dataclass(frozen=True, slots=True)
class Record:
    """One member as it describes itself.

    `addresses` are dialled in order (`ws://host:port`); `learner` says whether it trains;
    `part` is the zero-based part of a shared data set that it claims, −1 for none. `chain` is the
    certificate that makes it a member (`certificates`), `signature` its own, over all the rest;
    both are empty in a network of plain links.
    """

    peer_id: str
    name: str
    addresses: tuple[str, ...]
    incarnation: int
    learner: bool
    part: int
    chain: tuple[bytes, ...] = ()
    signature: bytes = b""

    def __post_init__(self) -> None:
        if not is_id(self.peer_id):
            raise ValueError("peer id of the wrong form")
        if len(self.name) > MAX_NAME or not self.name.isprintable():
            raise ValueError("name too long or not printable")
        if len(self.addresses) > MAX_ADDRESSES or any(len(a) > 256 for a in self.addresses):
            raise ValueError("too many or too long addresses")
        if not 0 <= self.incarnation < MAX_INCARNATION or not -1 <= self.part < 2**31:
            raise ValueError("number out of range")
        if len(self.chain) > MAX_CHAIN or len(self.signature) not in (0, SIGNATURE_BYTES):
            raise ValueError("certificates or signature of the wrong form")

    @property
    def words(self) -> tuple[object, ...]:
        """What is signed."""
        return (
            self.peer_id,
            self.name,
            list(self.addresses),
            self.incarnation,
            self.learner,
            self.part,
            list(self.chain),
        )


class _Vote(NamedTuple):
    observer: str
    incarnation: int
    hard: bool
    signature: bytes


class Vote(_Vote):
    """One observer's word about a member (whose it is, the context says): it found the member
    silent or (`hard`) its port refusing, in the life that began with `incarnation`."""

    __slots__ = ()

    def __new__(cls, observer: str, incarnation: int, hard: bool, signature: bytes) -> Vote:
        if not is_id(observer):
            raise ValueError("peer id of the wrong form")
        if not 0 <= incarnation < MAX_INCARNATION:
            raise ValueError("number out of range")
        if len(signature) not in (0, SIGNATURE_BYTES):
            raise ValueError("signature of the wrong form")
        return super().__new__(cls, observer, incarnation, hard, signature)


class _Fate(NamedTuple):
    peer_id: str
    incarnation: int
    state: State
    votes: tuple[Vote, ...]


class Fate(_Fate):
    """What befell a member in the life that began with `incarnation`; `state` is never alive.

    `votes` are whose word it is: a death's observers, a leaver's own. Two fates are equal when they
    say the same, whoever vouches for it.
    """

    __slots__ = ()

    def __new__(
        cls, peer_id: str, incarnation: int, state: State, votes: tuple[Vote, ...] = ()
    ) -> Fate:
        if not is_id(peer_id):
            raise ValueError("peer id of the wrong form")
        if not 0 <= incarnation < MAX_INCARNATION or state is State.ALIVE:
            raise ValueError("a fate is suspect, dead or left, at an incarnation in range")
        if len(votes) > MAX_VOTES:
            raise ValueError("more votes than anybody needs")
        return super().__new__(cls, peer_id, incarnation, state, votes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fate) and self[:3] == other[:3]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:3])

    @property
    def is_live(self) -> bool:
        """Suspect only: still a member of the neighbour graph."""
        return self.state is State.SUSPECT

    @property
    def can_be_told(self) -> bool:
        """Whether others could believe it: a goodbye needs its own word, which is not kept from one
        life of this peer to the next, and a revocation is no fate that anybody tells."""
        if self.state is State.LEFT:
            return bool(self.votes)
        return self.state is not State.REVOKED

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
