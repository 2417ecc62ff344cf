"""Ed25519 keys (RFC 8032): a peer's own, and that of a network's certificate authority.

Rules kept here:
- a private key is written once, to a file of mode 0600 that appears whole or not at all, and a file
  that others may read is refused;
- what is signed is the msgpack of a list that begins with what it is for and the network's id, so
  that no signature serves in another place or another network.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from overlay.identity import id_of_key

# Longer words are checked anew each time: 8192 of these are 16 MB, and of the longest record that
# there may be 100 MB. An honest record has a third of it.
MAX_REMEMBERED_BYTES = 2048


class KeyUnusable(Exception):
    """A key file that cannot be used; the message says what to do."""


def new_key() -> Ed25519PrivateKey:
    """A fresh key."""
    return Ed25519PrivateKey.generate()


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The raw public key, 32 bytes."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw()


def key_id(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The id that belongs to a key."""
    return id_of_key(public_bytes(key))


def sign(key: Ed25519PrivateKey, purpose: str, network: str, words: Sequence[object]) -> bytes:
    """The signature, 64 bytes, of `words` (what msgpack knows) for one purpose in one network."""
    return key.sign(_signed_bytes(purpose, network, words))


def is_signed(
    public_key: bytes, signature: bytes, purpose: str, network: str, words: Sequence[object]
) -> bool:
    """Whether the holder of the key signed just this."""
    data = _signed_bytes(purpose, network, words)
    check = _is_valid if len(data) <= MAX_REMEMBERED_BYTES else _is_valid.__wrapped__
    return check(public_key, signature, data)


def to_pem(key: Ed25519PrivateKey) -> bytes:
    """PKCS #8, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(path: Path) -> Ed25519PrivateKey | None:
    """The key in a file, None if there is no such file. Raises KeyUnusable."""
    try:
        if path.stat().st_mode & 0o077:
            raise KeyUnusable(f"{path} may be read by others; run: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds no Ed25519 key; restore it from a copy")
    return key


def write_secret(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 that is there whole, and on the disk, or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@functools.lru_cache(maxsize=2048)
def _is_valid(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """A flood brings the same words on every link, and a signature takes a tenth of a millisecond
    to check."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_bytes(purpose: str, network: str, words: Sequence[object]) -> bytes:
    data: bytes = msgpack.packb([f"gossipd {purpose} 1", network, *words])
    return data
