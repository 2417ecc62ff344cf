"""Tickets: one line of text that lets somebody into a network.

A ticket names the network (the fingerprint of its authority), where its issuer listens, a secret
that only the issuer can redeem, and when it expires. Whoever has it can join: it is handed over
like a password. The four check bytes at its end tell a ticket that was damaged in copying from one
that is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from overlay.codec import Codec, WireError
from overlay.identity import is_id
from overlay.records import MAX_ADDRESSES

PREFIX = "gossipd-ticket-"
SECRET_BYTES = 16
MAX_TICKET = 4096
_CHECK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Ticket:
    """`network` is the authority's id, `expires_at` Unix seconds; the secret is shown to nobody."""

    network: str
    addresses: tuple[str, ...]
    secret: bytes = field(repr=False)
    expires_at: int

    def __post_init__(self) -> None:
        if not is_id(self.network) or len(self.secret) != SECRET_BYTES:
            raise ValueError("network or secret of the wrong form")
        if not 1 <= len(self.addresses) <= MAX_ADDRESSES:
            raise ValueError("a ticket names one to eight addresses")
        if not 0 <= self.expires_at < 2**53:
            raise ValueError("number out of range")


_CODEC = Codec({"1": Ticket}, max_bytes=MAX_TICKET, max_binary=SECRET_BYTES)


def is_ticket(text: str) -> bool:
    """Whether a text is meant to be a ticket, whole or not."""
    return text.strip().startswith(PREFIX)


def write_ticket(ticket: Ticket) -> str:
    """The ticket as one word without spaces."""
    data = _CODEC.encode(ticket)
    return PREFIX + base64.urlsafe_b64encode(data + _check(data)).decode().rstrip("=")


def read_ticket(text: str) -> Ticket:
    """The ticket in a text. Raises ValueError, which never quotes it: it holds a secret."""
    word = text.strip().removeprefix(PREFIX)
    try:
        data = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
        body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if is_ticket(text.strip()) and check == _check(body):
            ticket: Ticket = _CODEC.decode(body)
            return ticket
    except (binascii.Error, WireError, ValueError):
        pass
    raise ValueError("the ticket is damaged: copy the whole of it once more, or ask for a new one")


def _check(data: bytes) -> bytes:
    return hashlib.sha256(b"gossipd ticket" + data).digest()[:_CHECK_BYTES]
