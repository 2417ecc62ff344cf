"""A million pieces of nonsense: codecs, enrolment, belief and the control API, by a seeded mutator.

    python -m benchmarks.fuzz [--inputs N] [--seed N] [--json]

Inputs are valid messages that were changed (as bytes and as trees), random trees and random bytes,
shared evenly among the targets of `benchmarks.fuzz_targets`. A crash is any error that the
target's callers do not expect; a hang is an input that takes more than `HANG_S`; memory is compared
with that after the first tenth of the inputs. Exit code 1 on a crash, a hang, or a growth of more
than `GROWTH_MB`.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import trio

from benchmarks.fuzz_contract import Target
from benchmarks.fuzz_targets import targets
from benchmarks.processes import rss_mb

INPUTS = 1_000_000
WARM_UP = 0.1
HANG_S = 1.0
GROWTH_MB = 30.0
SHOWN_CRASHES = 5
# Now and then a message is blown up to about so many bytes.
LARGE_BYTES = 70_000


@dataclass(slots=True)
class Tally:
    """What one target did."""

    inputs: int = 0
    crashes: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    shown: list[str] = field(default_factory=list)


def main() -> int:
    """Run the benchmark; its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = trio.run(fuzz, arguments.inputs, arguments.seed)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' ')}: {value}")
    is_quick = result["slowest_ms"] <= 1000 * HANG_S
    return 0 if not result["crashes"] and is_quick and result["rss_growth_mb"] <= GROWTH_MB else 1


async def fuzz(inputs: int, seed: int) -> dict[str, Any]:
    """Every figure; `seconds` are those of all inputs, their making included."""
    logging.disable(logging.CRITICAL)
    all_targets = targets(seed)
    tallies = {target.name: Tally() for target in all_targets}
    began = time.perf_counter()
    share = -(-inputs // len(all_targets))
    warm_up = int(share * WARM_UP)
    for target in all_targets:
        await attack(target, warm_up, random.Random(f"{seed} warm {target.name}"), tallies)
    gc.collect()
    before = rss_mb(os.getpid())
    for target in all_targets:
        await attack(target, share - warm_up, random.Random(f"{seed} {target.name}"), tallies)
    gc.collect()
    logging.disable(logging.NOTSET)
    return {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "crashes": sum(tally.crashes for tally in tallies.values()),
        "slowest_ms": round(1000 * max(tally.slowest_s for tally in tallies.values()), 2),
        "rss_growth_mb": round(rss_mb(os.getpid()) - before, 2),
        "seconds": round(time.perf_counter() - began, 1),
        "by_target": {name: _figures(tally) for name, tally in tallies.items()},
    }


async def attack(target: Target, count: int, rng: random.Random, tallies: dict[str, Tally]) -> None:
    """So many inputs for one target."""
    tally = tallies[target.name]
    mutator = Mutator(target, rng)
    for number in range(count):
        data = mutator.next()
        began = time.perf_counter()
        try:
            await target.check(data)
        except Exception as error:
            tally.crashes += 1
            if len(tally.shown) < SHOWN_CRASHES:
                tally.shown.append(f"{type(error).__name__}: {error} by {data[:400]!r}")
        took = time.perf_counter() - began
        tally.seconds += took
        tally.slowest_s = max(tally.slowest_s, took)
        if number % 1000 == 0:
            await trio.lowlevel.checkpoint()
    tally.inputs += count


def _figures(tally: Tally) -> dict[str, Any]:
    return {
        "inputs": tally.inputs,
        "crashes": tally.crashes,
        "slowest_ms": round(1000 * tally.slowest_s, 2),
        "seconds": round(tally.seconds, 1),
        **({"shown": tally.shown} if tally.shown else {}),
    }


# Making inputs.


class Mutator:
    """Inputs for one target."""

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._corpus, self._rng = target.corpus, rng
        self._pack = _pack_msgpack if target.form == "msgpack" else _pack_json
        unpack: Callable[[bytes], Any] = msgpack.unpackb if target.form == "msgpack" else json.loads
        self._trees = [unpack(data) for data in self._corpus]

    def next(self) -> bytes:
        """One more."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.45:
            return self._changed_tree()
        if kind < 0.85:
            return self._changed_bytes(rng.choice(self._corpus))
        if kind < 0.95:
            return self._pack(self._tree(rng.randrange(1, 6)))
        if kind < 0.999:
            return rng.randbytes(rng.randrange(200))
        return (rng.choice(self._corpus) * LARGE_BYTES)[: rng.randrange(2 * LARGE_BYTES)]

    def _changed_bytes(self, data: bytes) -> bytes:
        rng, made = self._rng, bytearray(data)
        for _ in range(1 + int(rng.expovariate(1.0))):
            at = rng.randrange(len(made) + 1)
            match rng.randrange(6):
                case 0 if at < len(made):
                    made[at] ^= 1 << rng.randrange(8)
                case 1 if at < len(made):
                    made[at] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xDD, 0xFF))
                case 2:
                    made[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 3:
                    del made[at : at + rng.randrange(1, 20)]
                case 4:
                    other = rng.choice(self._corpus)
                    made[at:] = other[rng.randrange(len(other)) :]
                case _:
                    made[at:at] = made[at : at + rng.randrange(1, 64)]
        return bytes(made)

    def _changed_tree(self) -> bytes:
        rng = self._rng
        tree = rng.choice(self._trees)
        for _ in range(1 + int(rng.expovariate(1.0))):
            tree = self._changed(tree)
        return self._pack(tree)

    def _changed(self, value: Any) -> Any:
        """A copy with one node changed."""
        rng = self._rng
        if isinstance(value, list) and value and rng.random() < 0.9:
            made, at = list(value), rng.randrange(len(value))
            match rng.randrange(8):
                case 0:
                    del made[at]
                case 1:
                    made.insert(at, made[rng.randrange(len(made))])
                case 2:
                    other = rng.randrange(len(made))
                    made[at], made[other] = made[other], made[at]
                case _:
                    made[at] = self._changed(made[at])
            return made
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(list(value))
            if rng.random() < 0.15:
                return {name: held for name, held in value.items() if name != key}
            return {**value, key: self._changed(value[key])}
        return self._another(value)

    def _another(self, value: Any) -> Any:
        """Something in the place of a leaf."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.3 and isinstance(value, int):
            return value + rng.choice((-1, 1, 2**31, 2**52, 2**53, 2**63, -(2**31)))
        if kind < 0.3 and isinstance(value, bytes) and value:
            at = rng.randrange(len(value))
            return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
        if kind < 0.3 and isinstance(value, str) and value:
            at = rng.randrange(len(value))
            return value[:at] + chr(rng.randrange(32, 0x3000)) + value[at + 1 :]
        if kind < 0.7:  # a leaf of another message
            return self._leaf_of(rng.choice(self._trees))
        return self._tree(rng.randrange(3))

    def _leaf_of(self, tree: Any) -> Any:
        while isinstance(tree, (list, dict)) and tree and self._rng.random() < 0.95:
            tree = self._rng.choice(tree if isinstance(tree, list) else list(tree.values()))
        return tree

    def _tree(self, depth: int) -> Any:
        rng = self._rng
        if depth and rng.random() < 0.6:
            items = [self._tree(depth - 1) for _ in range(rng.randrange(5))]
            if rng.random() < 0.3:
                return {f"k{number}": item for number, item in enumerate(items)}
            return items
        return rng.choice(
            (
                None, True, False, 0, 1, -1, 2**53, 2**64 - 1, -(2**63), 0.5, float("nan"),
                float("inf"), 1e308, "", "x" * 1100, "jsonrpc", "\x00", "\ud800", "é", b"",
                rng.randbytes(16), rng.randbytes(64), rng.randbytes(3000), [[[[]]]],
            )
        )  # fmt: skip


def _pack_msgpack(tree: Any) -> bytes:
    try:
        data: bytes = msgpack.packb(tree, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):  # an integer beyond 64 bits
        return b"\xc1"
    return data


def _pack_json(tree: Any) -> bytes:
    return json.dumps(tree, default=lambda raw: raw.decode("latin-1")).encode()


if __name__ == "__main__":
    sys.exit(main())
