"""One named random generator per purpose, derived from (seed, part, purpose).

Rules kept here:
- the derivation is a BLAKE2b digest of the words, so it is equal on every machine and in every
  process (`hash()` is salted per process, and seed + part collides with the neighbour's seed);
- what all peers must draw alike (initial weights, the partition) uses the part `SHARED`;
- nobody draws from another purpose's generator, so that adding a draw moves no other number.
"""

from __future__ import annotations

import hashlib

import torch

SHARED = -1


def integer(seed: int, peer_part: int, purpose: str) -> int:
    """A number in [0, 2**63) that (seed, peer_part, purpose) determines."""
    words = f"gossipd\0{seed}\0{peer_part}\0{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1


def generator(seed: int, peer_part: int, purpose: str) -> torch.Generator:
    """A fresh CPU generator, seeded by `integer`."""
    return torch.Generator().manual_seed(integer(seed, peer_part, purpose))
