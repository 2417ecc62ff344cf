"""Enrolling members: invitations that were made here, and certificates for those who redeem them.

Rules kept here:
- a secret is kept as its hash: whoever reads the database cannot redeem a ticket;
- a use is written down before the certificate is given; the same key may ask again, should the
  answer have been lost on the way, and uses nothing up;
- tickets that were used up or have expired are remembered for a while, to say so.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from daemon.credentials import Credentials
from daemon.store import Invitation, Store
from overlay.certificates import Certified, Chain, Role, check_chain
from overlay.enrolment import Denied
from overlay.keys import key_id
from overlay.revocation import Revocation
from overlay.tickets import SECRET_BYTES, Ticket, write_ticket

REMEMBERED_S = 7 * 86400.0
MAX_TTL_S = 30 * 86400.0
MAX_USES = 10_000


class InvitationRefused(Exception):
    """This peer makes no such ticket; the message says why."""


class Roll(Protocol):
    """Who is out of the network."""

    def is_revoked(self, peer: str) -> bool:
        """Whether a peer is out for good."""

    def is_out(self, member: Certified) -> bool:
        """Whether a member is out: revoked, or a stranger whose issuer was."""

    async def give_up(self, revocation: Revocation) -> bool:
        """Remember and tell that a member gives up its own id; False if it did not say so."""


class Office:
    """One member's (`overlay.enrolment.Office`)."""

    def __init__(
        self,
        credentials: Credentials,
        store: Store,
        roll: Roll,
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._credentials = credentials
        self._store = store
        self._roll = roll
        self._report = report

    @property
    def authority(self) -> bytes:
        """The network's authority, DER."""
        return self._credentials.authority

    async def invite(
        self, addresses: tuple[str, ...], *, ttl_s: float, uses: int, role: Role
    ) -> tuple[str, Ticket]:
        """A new ticket as text, and what it says. Raises InvitationRefused, StoreFailed."""
        self._check(ttl_s, uses, role)
        secret = secrets.token_bytes(SECRET_BYTES)
        expires_at = int(time.time() + ttl_s)
        invitation = Invitation(_hash(secret), role, uses, expires_at)
        await self._store.in_thread(self._store.add_invitation, invitation)
        ticket = Ticket(self._credentials.network, addresses, secret, expires_at)
        self._report("invitation.made", {"role": role, "uses": uses, "expires_at": expires_at})
        return write_ticket(ticket), ticket

    async def admit(self, secret: bytes, key: Ed25519PublicKey) -> Chain:
        """A ticket's holder becomes a member. Raises Denied."""
        newcomer = key_id(key)
        if self._roll.is_revoked(newcomer):
            raise Denied("revoked", "this peer's key was revoked: start with a new data directory")
        if not self._credentials.may_enrol:
            raise Denied("role", "that member is no issuer (any more): ask for another ticket")
        now, hashed = time.time(), _hash(secret)
        await self._store.in_thread(self._store.forget_invitations, int(now - REMEMBERED_S))
        invitation = self._store.invitation(hashed)
        if invitation is None:
            raise Denied(
                "unknown",
                "the ticket is not known there: it was altered, or made by another member, or long"
                " ago; ask for a new one",
            )
        if now >= invitation.expires_at:
            raise Denied("expired", "the ticket has expired: ask for a new one")
        if not await self._store.in_thread(self._store.redeem, hashed, newcomer):
            raise Denied("used", "the ticket was used already: ask for a new one")
        chain = self._certify(key, invitation.role)
        self._report("member.enrolled", {"peer": newcomer, "role": invitation.role})
        return chain

    async def renew(
        self, chain: Chain, key: Ed25519PublicKey, revocation: Revocation | None
    ) -> Chain:
        """A member, whose this chain is, gets a new certificate. For another key than the old one
        it gives its own old id up, or it would be two. Raises Denied or BadCertificate."""
        member = check_chain(chain, self.authority, time.time())
        if self._roll.is_out(member) or self._roll.is_revoked(key_id(key)):
            raise Denied("revoked", "this peer was revoked")
        if not self._credentials.may_enrol:
            raise Denied("role", "that member is no issuer")
        made = self._certify(key, member.role)
        if key_id(key) != member.peer_id:
            is_own = revocation is not None and revocation.peer_id == member.peer_id
            if revocation is None or not is_own or not await self._roll.give_up(revocation):
                raise Denied("malformed", "a new key comes with the end of the old id")
        return made

    def _certify(self, key: Ed25519PublicKey, role: Role) -> Chain:
        try:
            return self._credentials.certify(key, role)
        except ValueError as error:
            raise Denied("role", str(error)) from None

    def _check(self, ttl_s: float, uses: int, role: str) -> None:
        mine = self._credentials
        if not mine.may_enrol:
            raise InvitationRefused(
                "this peer is no issuer: ask the founder, or a member whose role is issuer"
                " (gossipctl members)"
            )
        if role not in ("member", "issuer"):
            raise InvitationRefused(f"{role!r} is no role: member or issuer")
        if role == "issuer" and not mine.is_founder:
            raise InvitationRefused("only the network's founder appoints issuers")
        if not 1 <= ttl_s <= MAX_TTL_S:
            raise InvitationRefused("a ticket is valid for 1 second to 30 days")
        if not 1 <= uses <= MAX_USES:
            raise InvitationRefused(f"a ticket has 1 to {MAX_USES:,} uses")


def _hash(secret: bytes) -> str:
    return hashlib.sha256(b"gossipd invitation" + secret).hexdigest()
