"""What a daemon costs: memory and CPU with four links, and how quickly gossipctl answers.

    python -m benchmarks.footprint [--json]

Five daemons without learners form a full mesh, settle, and idle for `IDLE_S`; the worst of them
counts. Then `gossipctl status` is timed as a user runs it (a process of its own); the median of
`CALLS` counts. Bounds: 80 MB resident, 2 % of a core, 0.25 s. Exit code 0 if all hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.processes import cores, cpu_s, rss_mb
from cli.local_peers import LocalPeer, interrupt_on_sigterm, local_peer, wait_until

PEERS = 5
IDLE_S = 20.0
CALLS = 21
RSS_MB, IDLE_PERCENT, STATUS_S = 80.0, 2.0, 0.25


def main() -> int:
    """Run the benchmark; its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.footprint", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    result = measure()
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' ')}: {value:.3f}")
    within = (
        max(result["rss_mb_max"], result["rss_mb_max_after_topology"]) <= RSS_MB
        and result["idle_cpu_percent_max"] <= IDLE_PERCENT
        and result["status_s_median"] <= STATUS_S
    )
    return 0 if within else 1


def measure() -> dict[str, Any]:
    """Every figure."""
    with tempfile.TemporaryDirectory(prefix="gossipd-footprint-") as name, ExitStack() as stack:
        peers: list[LocalPeer] = []
        for index in range(PEERS):
            join = ["--join", peers[0].ticket] if peers else []
            flags = ["--no-learner", *join]
            peers.append(
                stack.enter_context(local_peer(f"p{index}", Path(name) / f"{index}", flags))
            )
        wait_until(lambda: all(_links(peer) == PEERS - 1 for peer in peers), 10.0, "a full mesh")
        pids = [peer.process.pid for peer in peers]
        before = [cpu_s(pid) for pid in pids]
        time.sleep(IDLE_S)
        spent = [cpu_s(pid) - then for pid, then in zip(pids, before, strict=True)]
        rss = [rss_mb(pid) for pid in pids]
        status_s = [_time_status(peers[0]) for _ in range(CALLS)]
        for peer in peers:  # the analysis imports networkx and numpy
            peer.call("overlay.topology")
        analysed = [rss_mb(pid) for pid in pids]
    return {
        "rss_mb_max": max(rss),
        "rss_mb_max_after_topology": max(analysed),
        "idle_cpu_percent_max": 100 * max(spent) / IDLE_S,
        "status_s_median": statistics.median(status_s),
        "status_s_max": max(status_s),
        "links": PEERS - 1,
        "cores": cores(),
    }


def _links(peer: LocalPeer) -> int:
    return len(peer.call("node.status")["neighbours"])


def _time_status(peer: LocalPeer) -> float:
    program = Path(sys.executable).with_name("gossipctl")
    command = [str(program), "--data-dir", str(peer.data_dir), "status"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=10)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
