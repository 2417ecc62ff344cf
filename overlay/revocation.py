"""Revocations: a member is out for good, and whoever says so may say so.

Rules kept here:
- the authority revokes anybody, an issuer plain members, and everybody itself (when it gives up a
  key);
- a revocation is never taken back: who comes again comes with a new key and a new invitation;
- a revoked issuer revokes nobody any more, and what it said of others is void, whenever it said so.
  The founder says again what is right of it (`notary.say_again`);
- of several words about one member the weightiest is kept (`Revocation.weight`): all peers come to
  hold the same, in whatever order they hear things;
- with an issuer go those whom it certified and who were not known before: nobody can tell whether
  their certificates were made after the revocation. Those who are known stay.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from overlay.certificates import BadCertificate, Certified, Chain, check_chain, read_chain
from overlay.identity import is_id
from overlay.keys import is_signed
from overlay.records import MAX_CHAIN, SIGNATURE_BYTES

MAX_REASON = 200
# Never forgotten, so bounded: ten thousand are 10 MB.
MAX_REVOCATIONS = 10_000
# By one author; the authority's own always find room.
MAX_SAID = 1_000


@dataclass(frozen=True, slots=True)
class Revocation:
    """`peer_id` is out since `at` (Unix seconds). `chain` is that of the member who says so, and
    empty when the network's authority does; an issuer adds the `subject`'s, which shows that there
    is such a member and that it is a plain one."""

    peer_id: str
    at: int
    reason: str
    chain: Chain
    signature: bytes
    subject: Chain = ()

    def __post_init__(self) -> None:
        if not is_id(self.peer_id):
            raise ValueError("peer id of the wrong form")
        if not 0 <= self.at < 2**53 or max(len(self.chain), len(self.subject)) > MAX_CHAIN:
            raise ValueError("number out of range")
        if len(self.reason) > MAX_REASON or not self.reason.isprintable():
            raise ValueError("reason too long or not printable")
        if len(self.signature) != SIGNATURE_BYTES:
            raise ValueError("signature of the wrong form")

    @property
    def author(self) -> str:
        """The id of the member who says so, '' for the authority. Raises BadCertificate."""
        return read_chain(self.chain).peer_id if self.chain else ""

    @property
    def is_issuers(self) -> bool:
        """Whether an issuer says so of somebody else."""
        return self.weight == 0

    @property
    def weight(self) -> int:
        """0: an issuer's word, which can become void; 1: a member's own, which says nothing against
        it; 2: the authority's."""
        return 2 if not self.chain else 1 if self.author == self.peer_id else 0

    @property
    def words(self) -> tuple[object, ...]:
        """What is signed."""
        return (self.peer_id, self.at, self.reason, list(self.chain), list(self.subject))


PURPOSE = "revocation"


class Revocations:
    """Those known here, by peer id."""

    def __init__(self, known: Iterable[Revocation] = ()) -> None:
        self._by_peer: dict[str, Revocation] = {}
        self._said: dict[str, int] = {}  # how many by each author ('': the authority)
        for revocation in known:
            self.add(revocation)

    def __contains__(self, peer: object) -> bool:
        return peer in self._by_peer

    def __len__(self) -> int:
        return len(self._by_peer)

    def __bool__(self) -> bool:
        return bool(self._by_peer)

    @property
    def by_peer(self) -> Mapping[str, Revocation]:
        """All of them, in the order in which they were learnt."""
        return self._by_peer

    def is_news(self, revocation: Revocation, *, besides: Container[str] = ()) -> bool:
        """Whether `add` would take one in, when those of `besides` are out too."""
        author = revocation.author
        if revocation.is_issuers and (author in self._by_peer or author in besides):
            return False
        held = self._by_peer.get(revocation.peer_id)
        if held is not None and not (held.is_issuers and held.author in besides):
            return held.weight < revocation.weight
        is_full = len(self._by_peer) >= MAX_REVOCATIONS or self._said.get(author, 0) >= MAX_SAID
        return not (author and is_full)

    def add(self, revocation: Revocation) -> bool:
        """Take one in; False when it is no news, void, or one too many."""
        if not self.is_news(revocation):
            return False
        if revocation.peer_id in self._by_peer:
            self.discard(revocation.peer_id)
        self._by_peer[revocation.peer_id] = revocation
        self._said[revocation.author] = self._said.get(revocation.author, 0) + 1
        return True

    def discard(self, peer: str) -> None:
        """Forget one that never counted (`counts`), or counts no more."""
        self._said[self._by_peer.pop(peer).author] -= 1

    def said_by(self, author: str) -> list[Revocation]:
        """What an issuer says of others."""
        if not self._said.get(author):
            return []
        return [r for r in self._by_peer.values() if r.is_issuers and r.author == author]

    def counts(self, certified: Certified) -> bool:
        """Whether somebody's own revocation counts, now that their certificate is seen: an issuer
        revokes plain members only, whatever it certified of others' keys."""
        own = self._by_peer.get(certified.peer_id)
        return own is not None and (certified.role == "member" or not own.is_issuers)

    def against(self, certified: Certified, *, known: bool) -> Revocation | None:
        """What keeps somebody out: their own revocation or, for a stranger, their issuer's."""
        if self.counts(certified):
            return self._by_peer[certified.peer_id]
        if known:
            return None
        theirs = (self._by_peer.get(issuer) for issuer in certified.issuers)
        # An issuer that gave up its own key did nobody harm.
        return next((r for r in theirs if r is not None and r.author != r.peer_id), None)


def is_authorised(
    revocation: Revocation,
    *,
    authority: bytes,
    authority_key: bytes,
    network: str,
) -> bool:
    """Whether its author may revoke its subject, and did."""
    key = authority_key
    if revocation.chain:
        try:
            # What counts is who its author was then, so that everybody judges alike, for ever.
            author = check_chain(revocation.chain, authority, float(revocation.at))
            if author.peer_id != revocation.peer_id:
                begins_at = read_chain(revocation.subject).begins_at
                subject = check_chain(revocation.subject, authority, begins_at)
                if author.role == "member" or subject.role != "member":
                    return False
                if subject.peer_id != revocation.peer_id:
                    return False
        except BadCertificate:
            return False
        key = author.public_key
    return is_signed(key, revocation.signature, PURPOSE, network, revocation.words)
