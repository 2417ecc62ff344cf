"""Names of things: peer ids, network ids, and how people see them.

An id is the SHA-256 of an Ed25519 public key (a peer's; a network's is that of its certificate
authority) in lower-case base32: 52 characters, no padding. Whoever holds the key can prove it on a
link; a name is a label and never an identity. For people an id is written with two check digits in
groups of six (ISO/IEC 7064, MOD 1271-36), so that a slip of the hand is found. A network of plain
links has random ids, which nobody proves.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

ID_PATTERN = re.compile(r"[a-z2-7]{52}")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_GROUP = 6


def new_id() -> str:
    """A fresh id: 256 random bits."""
    return _base32(secrets.token_bytes(32))


def id_of_key(public_key: bytes) -> str:
    """The id of whoever holds the private key to this raw Ed25519 public key (32 bytes)."""
    return _base32(hashlib.sha256(public_key).digest())


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return bool(ID_PATTERN.fullmatch(text))


def short(identity: str) -> str:
    """The first eight characters, for people."""
    return identity[:8]


def spelled(identity: str) -> str:
    """An id with its check digits, in groups: what people copy."""
    whole = identity + _check_digits(identity)
    return "-".join(whole[start : start + _GROUP] for start in range(0, len(whole), _GROUP))


def read_id(text: str) -> str:
    """The id in `text`, spelled out or bare. Raises ValueError that says what is wrong."""
    plain = re.sub(r"[\s-]", "", text).lower()
    if is_id(plain):
        return plain
    identity, digits = plain[:-2], plain[-2:]
    if not is_id(identity):
        raise ValueError(f"{text[:80]!r} is no peer id: 52 letters and digits, or 54 in groups")
    if digits != _check_digits(identity):
        raise ValueError(f"{text[:80]!r} was mistyped: its check digits do not fit")
    return identity


def _check_digits(identity: str) -> str:
    """The two characters that make the whole ≡ 1 modulo 1271 in base 36."""
    rest = (1 - int(identity, 36) * 36 * 36) % 1271
    return _LETTERS[rest // 36] + _LETTERS[rest % 36]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
