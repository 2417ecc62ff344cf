"""How a peer with a ticket becomes a member, and how members renew their certificates.

One websocket on its own path. The member speaks first and shows the network's authority; the
newcomer compares it with its ticket's fingerprint and comes back on a second connection that this
authority verifies. Only there it says the secret, with a signing request; what it gets is its
certificate.

Rules kept here:
- the secret is said to nobody but a member of the ticket's network;
- a peer without a certificate can apply; a member can renew, for its own key or a new one;
- a refusal says why, in words for the person who holds the ticket.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from overlay import tls
from overlay.addresses import host_of
from overlay.certificates import (
    MAX_CERTIFICATE_BYTES,
    BadCertificate,
    Chain,
    authority_key,
    check_chain,
    read_chain,
    read_request,
    request,
)
from overlay.codec import Codec, WireError
from overlay.identity import id_of_key
from overlay.keys import key_id
from overlay.records import MAX_ADDRESSES, MAX_CHAIN, check_words
from overlay.revocation import Revocation
from overlay.tickets import SECRET_BYTES, Ticket
from overlay.transport import (
    ConnectionLost,
    DialRefused,
    HandshakeFailed,
    Line,
    Network,
    Tcp,
    WebSocket,
    open_client,
)
from overlay.wire import ENROL_PATH

# An authority, and a chain with room for addresses.
MAX_ENROL_BYTES = 16 * 1024
LIMIT_S = 10.0


class Denied(Exception):
    """No certificate, and why; `kind` is stable: unknown (secret), used, expired, revoked, role,
    malformed."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Unreachable(Exception):
    """Nobody who could enrol this peer answers now; it may work later."""


class Office(Protocol):
    """A member that may enrol others."""

    @property
    def authority(self) -> bytes:
        """The network's authority, DER."""

    async def admit(self, secret: bytes, key: Ed25519PublicKey) -> Chain:
        """A ticket's holder becomes a member. Raises Denied."""

    async def renew(
        self, chain: Chain, key: Ed25519PublicKey, revocation: Revocation | None
    ) -> Chain:
        """A member, whose this chain is, gets a new certificate. For another key than the old one
        it gives its own old id up (`revocation`). Raises Denied or BadCertificate."""


# On the wire.


@dataclass(frozen=True, slots=True)
class Authority:
    """The network's authority (DER): the member's first word."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class Apply:
    """A ticket's secret, and a signing request (DER)."""

    secret: bytes = field(repr=False)
    request: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ValueError("secret of the wrong form")


@dataclass(frozen=True, slots=True)
class Renew:
    """A signing request of somebody who is a member by this chain; with a new key it revokes the
    old id."""

    chain: tuple[bytes, ...]
    request: bytes
    revocation: Revocation | None

    def __post_init__(self) -> None:
        if not 1 <= len(self.chain) <= MAX_CHAIN:
            raise ValueError("a chain has one or two certificates")


@dataclass(frozen=True, slots=True)
class Granted:
    """The new certificate's chain (DER)."""

    chain: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.chain) <= MAX_CHAIN:
            raise ValueError("a chain has one or two certificates")


@dataclass(frozen=True, slots=True)
class Refused:
    """As `Denied`."""

    kind: str
    reason: str

    def __post_init__(self) -> None:
        check_words(self.kind, self.reason)


ENROL = Codec(
    {
        "authority": Authority,
        "apply": Apply,
        "renew": Renew,
        "granted": Granted,
        "refused": Refused,
    },
    max_bytes=MAX_ENROL_BYTES,
    max_binary=MAX_CERTIFICATE_BYTES,
    max_items=MAX_ADDRESSES,
)


# The member's side.


async def serve_enrolment(socket: WebSocket, office: Office, line: Line) -> None:
    """Answer one application. Raises ConnectionLost or WireError for what the other side did."""
    await socket.send(ENROL.encode(Authority(office.authority)))
    try:
        answer = Granted(await _grant(ENROL.decode(await socket.receive()), office, line))
    except ConnectionLost as error:
        if error.orderly:  # it has seen which network this is
            return
        raise
    except Denied as error:
        await socket.send(ENROL.encode(Refused(error.kind, str(error)[:500])))
    else:
        await socket.send(ENROL.encode(answer))
    await socket.close("done")


async def _grant(message: object, office: Office, line: Line) -> Chain:
    try:
        match message:
            case Apply():
                return await office.admit(message.secret, read_request(message.request))
            case Renew() if line.certificate and message.chain[0] == line.certificate:
                key = read_request(message.request)
                return await office.renew(message.chain, key, message.revocation)
    except BadCertificate as error:
        raise Denied("malformed", str(error)) from None
    raise WireError("spoke out of turn")


# The newcomer's side.


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a newcomer gets: the network's authority and its own chain, DER."""

    authority: bytes
    chain: Chain

    @property
    def network(self) -> str:
        """The network's id."""
        return id_of_key(authority_key(self.authority))


async def enrol(tcp: Tcp, ticket: Ticket, key: Ed25519PrivateKey) -> Enrolled:
    """Become a member with a ticket. Raises Denied, or Unreachable."""
    reasons = []
    for address in ticket.addresses:
        try:
            with trio.fail_after(LIMIT_S):
                return await _enrol_at(tcp, address, ticket, key)
        except _FAILURES as error:
            reasons.append(f"{address}: {_words(error)}")
    raise Unreachable("nobody answers who could enrol this peer: " + "; ".join(reasons))


async def renew(
    network: Network,
    address: str,
    *,
    chain: Chain,
    key: Ed25519PrivateKey,
    authority: bytes,
    revocation: Revocation | None = None,
) -> Chain:
    """A new certificate of the member whose `chain` and network this is, for `key`, from an issuer
    that listens at `address`; for another key than the old one, `revocation` gives up the old id.
    Raises Denied, or Unreachable."""
    try:
        with trio.fail_after(LIMIT_S):
            line = await network.connect(address)
            async with _open(line, address) as (socket, _):
                await socket.send(ENROL.encode(Renew(chain, request(key), revocation)))
                return _granted(await socket.receive(), authority, key)
    except _FAILURES as error:
        raise Unreachable(f"{address}: {_words(error)}") from None


async def _enrol_at(tcp: Tcp, address: str, ticket: Ticket, key: Ed25519PrivateKey) -> Enrolled:
    async with _dial(tcp, address, tls.stranger(None)) as (socket, authority):
        await socket.close("compared")
        try:
            network = id_of_key(authority_key(authority))
        except BadCertificate:
            network = ""
        if network != ticket.network:
            raise Denied("authority", f"who answers at {address} is not of the ticket's network")
    async with _dial(tcp, address, tls.stranger(authority)) as (socket, _):
        await socket.send(ENROL.encode(Apply(ticket.secret, request(key))))
        return Enrolled(authority, _granted(await socket.receive(), authority, key))


@asynccontextmanager
async def _dial(
    tcp: Tcp, address: str, context: ssl.SSLContext
) -> AsyncIterator[tuple[WebSocket, bytes]]:
    plain = await tcp.connect(address)
    line = await tls.shake_hands(plain.stream, context, server_side=False)
    async with _open(line, address) as opened:
        yield opened


@asynccontextmanager
async def _open(line: Line, address: str) -> AsyncIterator[tuple[WebSocket, bytes]]:
    """The websocket, and the authority that the member named."""
    async with open_client(
        line.stream, host=host_of(address), path=ENROL_PATH, max_message_bytes=MAX_ENROL_BYTES
    ) as socket:
        first = ENROL.decode(await socket.receive())
        if not isinstance(first, Authority):
            raise HandshakeFailed("answered out of turn")
        yield socket, first.certificate


def _granted(data: bytes, authority: bytes, key: Ed25519PrivateKey) -> Chain:
    answer = ENROL.decode(data)
    if isinstance(answer, Refused):
        raise Denied(answer.kind, answer.reason)
    if not isinstance(answer, Granted):
        raise HandshakeFailed("answered out of turn")
    try:
        made = read_chain(answer.chain)
        check_chain(answer.chain, authority, made.begins_at)
    except BadCertificate as error:
        raise HandshakeFailed(f"gave a useless certificate: {error}") from None
    if made.peer_id != key_id(key):
        raise HandshakeFailed("gave a certificate for another key")
    return answer.chain


def _words(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, trio.TooSlowError) else str(error)


_FAILURES = (
    OSError, ValueError, DialRefused, HandshakeFailed, ConnectionLost, trio.TooSlowError,
)  # fmt: skip
