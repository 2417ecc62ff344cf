"""Four real daemons, one ten times slower, sync and async: python examples/asynchronous/live.py

Each way gets the same time. Daemons live in a temporary directory, which is removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.local_peers import LocalPeer, interrupt_on_sigterm, local_peer, wait_until
from cli.render import percent, table

HERE = Path(__file__).parent
PEERS = 4
# What a training step takes; five are a round. The first peer is the slow one.
STEP_S = (0.4, 0.04, 0.04, 0.04)
START_S = 60.0

# By peer: its rounds, oldest first.
Histories = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Run both ways and print what each peer did."""
    parser = argparse.ArgumentParser(description="four daemons, one ten times slower")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each way (default 60)")
    seconds = parser.parse_args().seconds
    interrupt_on_sigterm()
    # As if slowed.py were installed: every learner finds it.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    times = [seconds * share for share in (0.1, 0.25, 0.5, 1)]
    for mode in ("sync", "async"):
        with tempfile.TemporaryDirectory(prefix=f"{mode}-") as folder:
            histories = train(mode, Path(folder), seconds)
        print(f"\n{mode}, {seconds:g} s\n\n{report(histories, times)}", flush=True)


def train(mode: str, folder: Path, seconds: float) -> Histories:
    """Let four daemons train for a while; what they measured."""
    job, config = folder / "job.toml", folder / "gossipd.toml"
    text = (HERE / "live.toml").read_text()
    job.write_text(text.replace('mode = "async"', f'mode = "{mode}"'))
    config.write_text('[learner]\nallow = ["slowed:make"]\n')
    with ExitStack() as stack:
        peers: list[LocalPeer] = []
        for number, step_s in enumerate(STEP_S):
            flags = ["--config", str(config), "--part", f"{number + 1}/{PEERS}"]
            flags += ["--join", peers[0].ticket] if peers else ["--job", str(job)]
            name = "slow" if number == 0 else f"quick{number}"
            slowed = ("env", f"STEP_S={step_s}")
            peers.append(stack.enter_context(local_peer(name, folder / name, flags, prefix=slowed)))
        wait_until(lambda: all(map(has_begun, peers)), START_S, "all have done a round")
        time.sleep(seconds)
        answers = [peer.call("metrics.get", limit=10_000) for peer in peers]
    return {peer.name: answer["history"] for peer, answer in zip(peers, answers, strict=True)}


def has_begun(peer: LocalPeer) -> bool:
    """Whether a daemon has completed a round. Raises RuntimeError if it cannot train."""
    status = peer.ask("train.status") or {}
    if status.get("state") == "failed":
        raise RuntimeError(f"{peer.name}: {status['reason']}")
    return bool(status.get("round"))


def report(histories: Histories, times: Sequence[float]) -> str:
    """Each peer's rounds and accuracies at several times since the first began."""
    began = min(rows[0]["at"] - rows[0]["round_s"] for rows in histories.values())
    until = {
        name: [[row for row in rows if row["at"] - began <= at] for at in times]
        for name, rows in histories.items()
    }
    lines: list[tuple[Any, ...]] = []
    for name, seen in until.items():
        accuracies = [percent(rows[-1]["accuracy_after"]) if rows else None for rows in seen]
        lines.append((name, len(seen[-1]), *accuracies))
    means = [
        percent(statistics.fmean(seen[at][-1]["accuracy_after"] for seen in until.values()))
        if all(seen[at] for seen in until.values())
        else None
        for at in range(len(times))
    ]
    lines.append(("mean", None, *means))
    return table(("PEER", "ROUNDS", *(f"AT {at:g} S" for at in times)), lines)


if __name__ == "__main__":
    main()
