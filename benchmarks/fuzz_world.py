"""A small network whose members have keys and certificates, and what they truly said of each other.

Rules kept here:
- one seed is one network, but for the times in its certificates;
- `said` is all that anybody signed: whatever else is believed is a finding.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.notes import Announce, JobOffer, JobRequest, JobState, Paired, Proof, TrainState
from learner.job import Job
from overlay.certificates import Chain, certify, found_authority, request
from overlay.digests import BUCKETS
from overlay.enrolment import Apply, Authority, Granted, Refused, Renew
from overlay.identity import id_of_key
from overlay.keys import key_id, public_bytes
from overlay.membership import Membership
from overlay.notary import Notary, Signing, seal
from overlay.records import Fate, Record, State
from overlay.revocation import Revocation
from overlay.wire import (
    PROTOCOL_VERSION,
    Evidence,
    Heartbeat,
    Hello,
    LinkMessage,
    News,
    Note,
    Refuse,
    Revoked,
    SyncPage,
    SyncRequest,
    Welcome,
)


@dataclass(frozen=True, slots=True)
class _Person:
    key: Ed25519PrivateKey
    notary: Signing
    record: Record


class World:
    """A founder, an issuer and three members; one more is known to nobody yet."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        keys = [Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)) for _ in range(7)]
        self._authority_key, *people = keys
        self.authority = found_authority(self._authority_key)
        self.network = id_of_key(public_bytes(self._authority_key))
        roles = ("founder", "issuer", "member", "member", "member", "member")
        chains = [
            certify(
                key.public_key(), role,  # type: ignore[arg-type]
                issuer_key=self._authority_key, issuer=(), authority=self.authority,
            )
            for key, role in zip(people, roles, strict=True)
        ]  # fmt: skip
        self.people = [
            self._person(key, chain, number)
            for number, (key, chain) in enumerate(zip(people, chains, strict=True))
        ]
        self.table = Membership(self.people[0].record, notary=self.people[0].notary)
        for person in self.people[1:-1]:
            self.table.merge(person.record, 0.0)
        self.newcomer = self.people[-1]
        self.said = {word for message in self.words() for word in words_in(message)}
        self.said |= {person.record for person in self.people}
        self.judge: Notary = self.people[0].notary

    def _person(self, key: Ed25519PrivateKey, chain: Chain, number: int) -> _Person:
        notary = Signing(key, chain, self.authority)
        plain = Record(
            key_id(key), f"p{number}", (f"wss://127.0.0.1:{4000 + number}",), 1, False, -1
        )
        return _Person(key, notary, notary.record(plain))

    # Messages.

    def words(self) -> list[LinkMessage]:
        """Signed and true: what may be believed."""
        _, issuer, one, two, three, _ = self.people
        renewed = one.notary.record(dataclasses.replace(one.record, incarnation=2, name="again"))
        dead = Fate(
            two.record.peer_id, 1, State.DEAD,
            tuple(self._testimony(person, two).vote for person in (one, three, issuer)),
        )  # fmt: skip
        left = Fate(three.record.peer_id, 1, State.LEFT, three.notary.goodbye(1))
        doubt = Fate(one.record.peer_id, 1, State.SUSPECT)
        evidence = tuple(self._testimony(person, two) for person in (one, three))
        return [
            News((renewed, self.newcomer.record), (dead, left, doubt), evidence),
            News((self.newcomer.record,), (), (self._testimony(one, three, hard=False),)),
            SyncPage((renewed, self.newcomer.record, two.record), (dead, left)),
            Revoked(
                (
                    issuer.notary.revocation(two.record.peer_id, "a test", two.record.chain),
                    self._by_authority(),
                )
            ),
        ]

    def control_messages(self) -> list[Any]:
        """One of each kind at least."""
        record, token = self.newcomer.record, bytes(16)
        return [
            *self.words(),
            Hello(PROTOCOL_VERSION, self.network, record, token, token, 5, None),
            Welcome(self.network, record, token, 5),
            Refuse("revoked", "out", None, self._by_authority()),
            Heartbeat(2**64 - 1),
            SyncRequest(tuple(range(BUCKETS))),
            Note(b"a note"),
        ]

    def enrol_messages(self) -> list[Any]:
        """One of each kind."""
        signing_request = request(self.newcomer.key)
        return [
            Authority(self.authority), Apply(bytes(16), signing_request),
            Renew(self.people[2].record.chain, signing_request, None),
            Granted(self.newcomer.record.chain), Refused("used", "the ticket was used"),
        ]  # fmt: skip

    def notes(self) -> list[Any]:
        """One of each kind."""
        text, author = Job().to_json(), self.people[2]
        chain, signature = author.notary.word("job", (1, text, 1))
        peer = author.record.peer_id
        return [
            JobState(1, "d1"), JobRequest(), JobOffer(1, text, Proof(1, chain, signature)),
            TrainState("1-d1", "training", 1, "layout", "in words", 100),
            Announce("1-d1", 1, (peer,)), Paired("1-d1", 1),
        ]  # fmt: skip

    def _testimony(self, observer: _Person, subject: _Person, *, hard: bool = True) -> Evidence:
        peer = subject.record.peer_id
        signature = observer.notary.testimony(peer, 1, hard)
        return Evidence(peer, 1, observer.record.peer_id, hard, signature)

    def _by_authority(self) -> Revocation:
        unsigned = Revocation(self.people[3].record.peer_id, 1, "", (), bytes(64))
        return seal(unsigned, self._authority_key, self.network, chain=())


def words_in(message: object) -> set[Any]:
    """What somebody signed, each with what it is about. Of a suspicion nobody signs anything."""
    words: set[Any] = set()
    match message:
        case News() | SyncPage():
            words |= set(message.records)
            for fate in message.fates:
                words |= {(fate.peer_id, fate.state is State.LEFT, vote) for vote in fate.votes}
            if isinstance(message, News):
                words |= {(e.subject, False, e.vote) for e in message.evidence}
        case Revoked():
            words |= set(message.revocations)
    return words
