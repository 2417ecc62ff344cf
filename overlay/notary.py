"""Whose word is whose: signs what this peer says of itself and of others, checks what others say.

Records, testimonies, goodbyes, revocations, and jobs, which the overlay only carries, are signed by
their author, for one network each (`keys`), so that a peer that passes them on cannot change them,
and nobody speaks in another's name. Everybody checks before passing on: what is forged comes from
whoever brings it.

`Unsigned` is the notary of a network of plain links, and of simulations: it signs with zeros and
believes everything.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overlay import revocation as revoking
from overlay.addresses import is_address
from overlay.certificates import (
    BadCertificate,
    Certified,
    Chain,
    authority_key,
    check_chain,
    read_chain,
)
from overlay.identity import id_of_key, short
from overlay.keys import is_signed, sign
from overlay.records import SIGNATURE_BYTES, Fate, Record, State, Vote
from overlay.revocation import Revocation

RECORD, TESTIMONY, GOODBYE = "record", "testimony", "goodbye"


class Forged(Exception):
    """A word that its supposed author did not sign, or that no member of this network said."""


class Notary(Protocol):
    """What the overlay signs and checks with."""

    def record(self, record: Record) -> Record:
        """This peer's own record, signed."""

    def testimony(self, subject: str, incarnation: int, hard: bool) -> bytes:
        """The signature of this peer's word about another."""

    def goodbye(self, incarnation: int) -> tuple[Vote, ...]:
        """This peer's word that it leaves."""

    def knows(self, record: Record) -> bool:
        """Whether the certificate in a record makes its owner a member now. Raises Forged."""

    def has_expired(self, record: Record) -> bool:
        """Whether the certificate in a record that was believed once is over."""

    def vouches(self, subject: str, vote: Vote, observer: Record) -> bool:
        """Whether `observer` voted so on `subject`."""

    def has_left(self, record: Record, fate: Fate) -> bool:
        """Whether a fate is the member's own goodbye."""

    def may_revoke(self, revocation: Revocation) -> bool:
        """Whether its author may revoke its subject, and did."""

    def word(self, purpose: str, words: Sequence[object]) -> tuple[Chain, bytes]:
        """This peer's word on what the overlay only carries: its chain and its signature."""

    def author(
        self, purpose: str, words: Sequence[object], chain: Chain, signature: bytes, at: float
    ) -> Certified | None:
        """Whose word that is, as certified at Unix time `at`; None where nobody signs. Raises
        Forged."""


class Unsigned:
    """Believes everything."""

    def __init__(self, peer_id: str) -> None:
        self._peer_id = peer_id

    def record(self, record: Record) -> Record:
        return record

    def testimony(self, subject: str, incarnation: int, hard: bool) -> bytes:
        return b""

    def goodbye(self, incarnation: int) -> tuple[Vote, ...]:
        return (Vote(self._peer_id, incarnation, True, b""),)

    def knows(self, record: Record) -> bool:
        return True

    def has_expired(self, record: Record) -> bool:
        return False

    def vouches(self, subject: str, vote: Vote, observer: Record) -> bool:
        return True

    def has_left(self, record: Record, fate: Fate) -> bool:
        return True

    def may_revoke(self, revocation: Revocation) -> bool:
        return False

    def word(self, purpose: str, words: Sequence[object]) -> tuple[Chain, bytes]:
        return (), b""

    def author(
        self, purpose: str, words: Sequence[object], chain: Chain, signature: bytes, at: float
    ) -> Certified | None:
        if chain or signature:
            raise Forged(f"this {purpose} is signed, and nobody is certified here")
        return None


class Signing:
    """The notary of one member of one network."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        chain: Chain,
        authority: bytes,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._key = key
        self._authority = authority
        self._authority_key = authority_key(authority)
        self._clock = clock
        self.network = id_of_key(self._authority_key)
        self.renew(chain)

    def renew(self, chain: Chain) -> None:
        """Use a newer certificate of the same key from now on."""
        self.chain = chain
        self.certified = read_chain(chain)

    def certified_now(self, chain: Chain) -> Certified:
        """What a chain makes of its owner now. Raises BadCertificate."""
        return check_chain(chain, self._authority, self._clock())

    def record(self, record: Record) -> Record:
        mine = dataclasses.replace(record, chain=self.chain, signature=b"")
        signature = sign(self._key, RECORD, self.network, mine.words)
        return dataclasses.replace(mine, signature=signature)

    def testimony(self, subject: str, incarnation: int, hard: bool) -> bytes:
        return sign(self._key, TESTIMONY, self.network, (subject, incarnation, hard))

    def goodbye(self, incarnation: int) -> tuple[Vote, ...]:
        me = self.certified.peer_id
        signature = sign(self._key, GOODBYE, self.network, (me, incarnation))
        return (Vote(me, incarnation, True, signature),)

    def revocation(self, peer_id: str, reason: str, subject: Chain = ()) -> Revocation:
        """This peer's word that somebody is out; `subject` is that one's chain, but for itself."""
        now = int(self._clock())
        unsigned = Revocation(peer_id, now, reason, self.chain, bytes(SIGNATURE_BYTES), subject)
        return seal(unsigned, self._key, self.network, chain=self.chain)

    def knows(self, record: Record) -> bool:
        if not record.addresses or not all(map(is_address, record.addresses)):
            # Nobody could find out whether it is there.
            raise Forged(f"the record of {short(record.peer_id)} names no address")
        try:
            owner = self.certified_now(record.chain)
        except BadCertificate as error:
            if error.kind in ("expired", "early"):
                return False
            raise Forged(f"the record of {short(record.peer_id)}: {error}") from None
        if owner.peer_id != record.peer_id or not is_signed(
            owner.public_key, record.signature, RECORD, self.network, record.words
        ):
            raise Forged(f"the record of {short(record.peer_id)} is not its own word")
        return True

    def has_expired(self, record: Record) -> bool:
        return self._clock() >= read_chain(record.chain).expires_at

    def vouches(self, subject: str, vote: Vote, observer: Record) -> bool:
        words = (subject, vote.incarnation, vote.hard)
        key = read_chain(observer.chain).public_key
        return is_signed(key, vote.signature, TESTIMONY, self.network, words)

    def has_left(self, record: Record, fate: Fate) -> bool:
        words = (fate.peer_id, fate.incarnation)
        if fate.state is not State.LEFT or [v[:3] for v in fate.votes] != [(*words, True)]:
            return False
        key = read_chain(record.chain).public_key
        return is_signed(key, fate.votes[0].signature, GOODBYE, self.network, words)

    def may_revoke(self, revocation: Revocation) -> bool:
        return revoking.is_authorised(
            revocation,
            authority=self._authority,
            authority_key=self._authority_key,
            network=self.network,
        )

    def word(self, purpose: str, words: Sequence[object]) -> tuple[Chain, bytes]:
        return self.chain, sign(self._key, purpose, self.network, words)

    def author(
        self, purpose: str, words: Sequence[object], chain: Chain, signature: bytes, at: float
    ) -> Certified | None:
        try:
            author = check_chain(chain, self._authority, at)
        except BadCertificate as error:
            raise Forged(f"the author of this {purpose}: {error}") from None
        if not is_signed(author.public_key, signature, purpose, self.network, words):
            raise Forged(f"this {purpose} is not the word of {short(author.peer_id)}")
        return author


def seal(
    revocation: Revocation, key: Ed25519PrivateKey, network: str, *, chain: Chain
) -> Revocation:
    """The same revocation, signed with the key of this chain's owner (empty: the authority)."""
    unsigned = dataclasses.replace(revocation, chain=chain)
    signature = sign(key, revoking.PURPOSE, network, unsigned.words)
    return dataclasses.replace(unsigned, signature=signature)


def say_again(
    said: Iterable[Revocation], authority_key: Ed25519PrivateKey, network: str
) -> list[Revocation]:
    """What an issuer said of others, whose word is void soon, as the authority's word of now."""
    now = int(time.time())
    unsigned = [dataclasses.replace(revocation, at=now, subject=()) for revocation in said]
    return [seal(revocation, authority_key, network, chain=()) for revocation in unsigned]
