"""How quick links are with TLS on: from the dial to a ready link, and what a data link carries.

    python -m benchmarks.links [--dials N] [--mib N] [--json]

Two overlays in one process over TLS 1.3 on loopback, with certificates of one authority. A link is
ready when both ends hold it: after the TLS and websocket handshakes and the greetings, with each
record and certificate checked. Then one end pulls blobs from the other over the data link. Exit
code 0 if the median dial is within 50 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from daemon.credentials import Credentials
from overlay.driver import Overlay, open_overlay
from overlay.enrolment import Enrolled
from overlay.profile import PROFILES
from overlay.records import Record
from overlay.tls import Tls
from overlay.transfer import Blob, make_blob
from overlay.transport import Tcp
from overlay.wire import Want

BOUND_MS = 50.0


class Quiet:
    """A room above that gives everybody the same bytes."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    def report(self, kind: str, data: dict[str, Any]) -> None: ...

    def note(self, peer: str, body: bytes) -> None: ...

    def linked(self, peer: str) -> None: ...

    def network_adopted(self, network_id: str) -> None: ...

    async def provide(self, peer: str, want: Want) -> Blob:
        return self._blob


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.links", description=__doc__)
    parser.add_argument("--dials", type=int, default=30)
    parser.add_argument("--mib", type=int, default=64, help="of each blob")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = trio.run(measure, Path(folder), given.dials, given.mib)
    print(json.dumps(found) if given.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return 0 if found["link_ready_ms"] <= BOUND_MS else 1


async def measure(folder: Path, dials: int, mib: int) -> dict[str, float]:
    """Milliseconds and MB/s."""
    blob = await make_blob(bytes(mib << 20), version=1, layout="", weight=1)
    founder = _credentials(folder / "founder", None)
    times = []
    async with _overlay(founder, blob) as seed:
        for number in range(dials):
            async with _overlay(_credentials(folder / str(number), founder), blob) as one:
                times.append(await _dial(one, seed))
                await one.leave()
        async with _overlay(_credentials(folder / "puller", founder), blob) as one:
            await _dial(one, seed)
            speeds = [await _pull(one, seed.my_id, mib) for _ in range(3)]
    return {
        "link_ready_ms": round(1000 * statistics.median(times), 2),
        "link_ready_worst_ms": round(1000 * max(times), 2),
        "data_mb_s": round(statistics.median(speeds), 1),
    }


async def _dial(one: Overlay, seed: Overlay) -> float:
    began = time.perf_counter()
    await one.join(seed.address)
    while not (one.links and one.my_id in seed.links):  # noqa: ASYNC110 — a thousandth at a time
        await trio.sleep(0.001)
    return time.perf_counter() - began


async def _pull(one: Overlay, peer: str, mib: int) -> float:
    began = time.perf_counter()
    await one.fetch(peer, "", "", -1, check=lambda offer: None)
    return (mib << 20) / 1e6 / (time.perf_counter() - began)


def _credentials(folder: Path, founder: Credentials | None) -> Credentials:
    folder.mkdir()
    made = Credentials(folder)
    if founder is None:
        made.found()
    else:
        chain = founder.certify(made.key.public_key(), "member")
        made.take(Enrolled(founder.authority, chain))
    return made


@asynccontextmanager
async def _overlay(mine: Credentials, blob: Blob) -> AsyncIterator[Overlay]:
    async with open_overlay(
        Record(mine.peer_id, "", (), 1, True, -1),
        network_id=mine.network,
        listen="127.0.0.1:0",
        advertise=(),
        network=Tls(Tcp(), mine.contexts()),
        profile=PROFILES["local"],
        listener=Quiet(blob),
        may_adopt=lambda: False,
        rng=random.Random(1),
        notary=mine.signing(),
    ) as overlay:
        yield overlay


if __name__ == "__main__":
    sys.exit(main())
