"""Names of things: peer ids, network ids, and how people see them.

An id is 32 bytes in lower-case base32 (52 characters, no padding), the form in which the hash of a
public key is written. Until links are authenticated the bytes are random and an id is a claim that
nobody proves; a name is a label and never an identity.
"""

from __future__ import annotations

import base64
import re
import secrets

ID_PATTERN = re.compile(r"[a-z2-7]{52}")


def new_id() -> str:
    """A fresh id: 256 random bits."""
    return base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return bool(ID_PATTERN.fullmatch(text))


def short(identity: str) -> str:
    """The first eight characters, for people."""
    return identity[:8]
