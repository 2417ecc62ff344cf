"""Certificates that are renewed by themselves, and keys that are changed on demand.

Rules kept here:
- a certificate is renewed when two thirds of its life are over, by any issuer that answers (an
  issuer's by the founder); until that works it is tried again and again, and said;
- a new key is a new id: the peer is certified under it by means of its old certificate, revokes
  the old id itself, and starts over under the new one with all that it has learnt. What an issuer
  said of others under the old id the founder, who certifies it, says again.
"""

from __future__ import annotations

import logging
import time

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.running import Node
from overlay import enrolment
from overlay.certificates import BACKDATED, Certified, Chain, read_chain
from overlay.enrolment import Denied, Unreachable
from overlay.keys import new_key
from overlay.revocation import Revocation

log = logging.getLogger("gossipd")

LOOK_S = 60.0  # clocks are set, machines sleep, issuers are revoked: look at least so often
RETRY_SHARE = 1 / 50  # of a certificate's life, between two tries
LEAST_S = 1.0


class NotRenewed(Exception):
    """No issuer gave a certificate; the message says what each of them said."""


def due_at(certified: Certified) -> float:
    """When to renew a certificate, Unix seconds: two thirds after it was made."""
    made_at = certified.begins_at + BACKDATED.total_seconds()
    return made_at + (certified.expires_at - made_at) * 2 / 3


async def keep_certificate(node: Node) -> None:
    """Renew this peer's certificate in time, for ever."""
    while True:
        certified = node.credentials.certified
        left = 0.0 if _has_lost_its_issuer(node) else due_at(certified) - time.time()
        if left > 0:
            await trio.sleep(min(left, LOOK_S))
            continue
        try:
            await renew(node)
        except (NotRenewed, OSError) as error:
            node.session.report("certificate.not_renewed", {"reason": str(error)})
        # Also when it was renewed: with clocks far apart the new one is due at once.
        await trio.sleep(max(LEAST_S, min(LOOK_S, _life(certified) * RETRY_SHARE)))


async def renew(node: Node) -> None:
    """Get a newer certificate for the same key. Raises NotRenewed or OSError."""
    credentials = node.credentials
    async with node.certificate_lock:
        if node.wants_restart:
            return
        if credentials.is_founder:
            credentials.renew_own()
        else:
            credentials.renew(await _from_an_issuer(node, credentials.key))
        node.use_certificate()
    expires_at = credentials.certified.expires_at
    node.session.report("certificate.renewed", {"expires_at": expires_at})


async def rotate(node: Node) -> str:
    """Change this peer's key; its new id. The daemon starts over under it. Raises NotRenewed,
    OSError or StoreFailed."""
    credentials, notary = node.credentials, node.notary
    assert notary is not None
    async with node.certificate_lock:
        key = new_key()
        out = notary.revocation(credentials.peer_id, "its owner changed the key")
        if credentials.is_founder:
            chain = credentials.certify(key.public_key(), "founder")
        else:
            chain = await _from_an_issuer(node, key, out)
        credentials.prepare(key, chain)
        told = [*node.inherited(out.peer_id), out]
        await node.keeper.remember_revocations(told)
        credentials.turn_over()
        for revocation in told:
            node.overlay.revoke(revocation)
        node.restart()
    return credentials.peer_id


async def _from_an_issuer(
    node: Node, key: Ed25519PrivateKey, revocation: Revocation | None = None
) -> Chain:
    reasons = []
    mine = node.credentials
    for address in issuers(node):
        try:
            return await enrolment.renew(
                node.transport,
                address,
                chain=mine.chain,
                key=key,
                authority=mine.authority,
                revocation=revocation,
            )
        except (Denied, Unreachable) as error:
            reasons.append(str(error))
    raise NotRenewed("; ".join(reasons) or "no issuer is a member now")


def _has_lost_its_issuer(node: Node) -> bool:
    """Whether who certified this peer is out: then strangers do not believe its certificate."""
    return any(map(node.is_revoked, node.credentials.certified.issuers))


def issuers(node: Node) -> list[str]:
    """Where those listen who may renew this peer's certificate."""
    table, mine = node.overlay.machine.table, node.credentials.certified
    found: list[str] = []
    for record in table.live():
        if record.peer_id == table.my_id or not record.chain:
            continue
        role = read_chain(record.chain).role
        if role == "founder" or (role == "issuer" and mine.role == "member"):
            found += record.addresses[:1]
    return found


def _life(certified: Certified) -> float:
    return certified.expires_at - certified.begins_at - BACKDATED.total_seconds()
