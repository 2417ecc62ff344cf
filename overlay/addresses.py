"""Addresses of peers: `wss://host:port`, or `ws://` for plain links."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of `ws://host:port` or `host:port`. Raises ValueError saying what is right."""
    text = address if "://" in address else f"ws://{address}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    known = parts.scheme in ("ws", "wss")
    if not known or not parts.hostname or port is None or parts.path not in ("", "/"):
        raise ValueError(f"{_quoted(address)} is no peer address; write wss://host:port")
    return parts.hostname, port


def is_address(text: str) -> bool:
    """Whether a text is an address that can be dialled."""
    try:
        host, _ = split_address(text)
        host.encode("idna")
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """What was written instead of an address; not if it may be a damaged ticket, a secret."""
    return "this" if "ticket" in text or len(text) > 80 else repr(text)


def host_of(address: str) -> str:
    """The `host:port` of an address."""
    return address.partition("://")[2] or address
