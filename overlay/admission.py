"""Connections that have not said who they are yet: so many in all, so many of one address.

Rules kept here:
- nobody is kept out by those who connect and then say nothing: a newcomer is always let in, and
  where that is one too many, the oldest connection of the address that holds the most is closed
  (an honest handshake is over in milliseconds, a stalled one grows old);
- an address is what one party gets for one price: an IPv4 address, or a /64 of IPv6 (RFC 6177);
- loopback, and a stream without an address, may have every place there is.

Pure: closing is the caller's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from overlay.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """`total`: a network of 10,000 whose peers all come back within a minute brings 170 dials a
    second to a seed, and a handshake takes 0.1 s on slow lines, so 17; and several times that.
    `per_address`: a quarter, so that it takes four addresses to fill the house. At 128 an attacker
    of one address must open 32 connections in the time of an honest handshake behind the same
    address to crowd it out."""

    total: int = 128
    per_address: int = 32


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """One connection's place; `close` is called if it has to make room."""

    address: str
    close: Callable[[], None]


class Admission:
    """The places, oldest first."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._pending: dict[Pending, None] = {}
        self._held: dict[str, int] = {}

    def enter(self, host: str, close: Callable[[], None]) -> Pending:
        """Give a place to a connection from `host` ('' if it has no address), whoever has to go."""
        pending = Pending(address_group(host), close)
        self._pending[pending] = None
        self._held[pending.address] = self._held.get(pending.address, 0) + 1
        if (crowd := self._crowd(pending.address)) is not None:
            oldest = next(p for p in self._pending if p.address == crowd)
            self.leave(oldest)
            oldest.close()
        return pending

    def leave(self, pending: Pending) -> None:
        """It has said who it is, or is gone; nothing happens if it has left already."""
        if pending not in self._pending:
            return
        del self._pending[pending]
        self._held[pending.address] -= 1
        if not self._held[pending.address]:
            del self._held[pending.address]

    def __len__(self) -> int:
        return len(self._pending)

    def _crowd(self, newcomer: str) -> str | None:
        """The address that has to give up a place; at a tie the newcomer's neighbours do not."""
        if newcomer and self._held[newcomer] > self._settings.per_address:
            return newcomer
        if len(self._pending) <= self._settings.total:
            return None
        return max(self._held, key=lambda address: (self._held[address], address != newcomer))


def address_group(host: str) -> str:
    """What counts as one address; '' for loopback and whatever is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if is_loopback(str(address)):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def remote_host(stream: Any) -> str:
    """Where a stream comes from, '' if it has no socket; TLS around it makes no difference."""
    while (inner := getattr(stream, "transport_stream", None)) is not None:
        stream = inner
    socket = getattr(stream, "socket", None)
    if socket is None:
        return ""
    try:
        name = socket.getpeername()
    except OSError:  # it is gone already
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""
