"""`gossipd demo`: five real daemons train together; one is killed, one joins, all is measured.

A script like any owner's: it starts `gossipd start` processes, drives them through the control API,
and knows nothing of their insides. What it reports is measured, never assumed; the baseline is each
part trained alone by the same learner code.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.client import ControlError
from cli.local_peers import (
    LocalPeer,
    PeerFailed,
    distance_of_exports,
    interrupt_on_sigterm,
    local_peer,
)
from cli.render import number, percent, table

PEERS = 5
PARTS = PEERS + 1  # the last is the newcomer's
POLL_S = 0.5
PLAIN_EVERY_S = 3.0
LIMIT_S = 170.0  # a machine that is slower than this gets an error, not an endless demonstration

JOB = """
name = "digits demo"
seed = {seed}
[model]
name = "mlp"
[data]
source = "digits"
[partition]
kind = "dirichlet"
alpha = 0.5
parts = {parts}
[optimizer]
lr = 0.1
momentum = 0.9
[training]
rounds = {rounds}
local_steps = 10
min_peers = 4
"""


class DemoFailed(Exception):
    """The demonstration could not be carried through."""


@dataclass(slots=True)
class Peer:
    """One daemon of the demonstration, with its last known status."""

    daemon: LocalPeer
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its label."""
        return self.daemon.name

    def refresh(self) -> None:
        """Ask for its status; an unreachable peer keeps its last one. Raises PeerFailed."""
        self.status = self.daemon.ask("node.status") or self.status

    @property
    def train(self) -> dict[str, Any]:
        """Its training status."""
        found: dict[str, Any] = self.status.get("train", {})
        return found

    @property
    def round(self) -> int:
        """The rounds it completed."""
        return int(self.train.get("round", 0))


def run_demo(*, rounds: int, seed: int, as_json: bool) -> int:
    """Show everything and print the summary; 0 if it went as it should."""
    interrupt_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="gossipd-demo-"))
    try:
        with ExitStack() as stack:
            demo = Demo(folder, rounds=rounds, seed=seed, quiet=as_json, stack=stack)
            summary = demo.run()
    except (DemoFailed, PeerFailed, ControlError) as error:
        print(f"gossipd demo: {error} (logs are in {folder})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        print("gossipd demo: interrupted; every process was stopped", file=sys.stderr)
        return 130
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(summary) if as_json else _report(summary))
    return 0 if _succeeded(summary) else 1


class Demo:
    """The course of the demonstration."""

    def __init__(
        self, folder: Path, *, rounds: int, seed: int, quiet: bool, stack: ExitStack
    ) -> None:
        self._folder = folder
        self._rounds = rounds
        self._quiet = quiet
        self._stack = stack
        self._job = folder / "job.toml"
        self._job.write_text(JOB.format(seed=seed, parts=PARTS, rounds=rounds))
        self._began = time.monotonic()
        self._drawn_at = 0.0
        self._peers: list[Peer] = []

    def run(self) -> dict[str, Any]:
        """The whole course; the summary."""
        self._say(f"measuring the baseline: {PARTS} peers, each alone on its own part …")
        alone = self._alone()
        self._say(f"starting {PEERS} daemons …")
        for number_ in range(PEERS):
            self._start(number_)
        self._watch_until(lambda: self._slowest() >= self._rounds // 3)
        killed, kill_known_s = self._kill()
        self._watch_until(lambda: self._slowest() >= self._rounds // 2)
        self._say("a newcomer joins")
        newcomer = self._start(PEERS)
        self._watch_until(lambda: all(p.train.get("state") == "finished" for p in self._peers))
        self._draw(last=True)
        return self._summary(alone, killed, kill_known_s, newcomer)

    # Acts.

    def _alone(self) -> list[float]:
        """Accuracy of every part trained by itself, with the budget of a whole run."""
        from learner.job_file import job_from_toml

        job = self._folder / "job.json"
        job.write_text(job_from_toml(self._job.read_text(), source="demo").to_json())
        parts = ",".join(str(part) for part in range(PARTS))
        done = subprocess.run(
            [sys.executable, "-m", "learner.alone", "--job", str(job), "--parts", parts],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"the baseline failed: {done.stderr.strip()[-500:]}")
        accuracy = json.loads(done.stdout)["accuracy"]
        return [float(accuracy[str(part)]) for part in range(PARTS)]

    def _start(self, index: int) -> Peer:
        name = f"peer{index + 1}"
        flags = ["--job", str(self._job)]
        if self._peers:
            flags = ["--join", self._peers[0].daemon.ticket]
        daemon = local_peer(name, self._folder / name, ["--part", f"{index + 1}/{PARTS}", *flags])
        peer = Peer(self._stack.enter_context(daemon))
        self._peers.append(peer)
        return peer

    def _kill(self) -> tuple[Peer, float]:
        """SIGKILL one peer; who it was, and when the last survivor knew."""
        victim = self._peers.pop(2)
        self._say(f"kill -9 {victim.name}")
        at = victim.daemon.kill()
        known: dict[str, float] = {}

        def everybody_knows() -> bool:
            for peer in self._peers:
                for event in peer.daemon.events("member.dead"):
                    if event["data"].get("peer") == victim.daemon.peer_id:
                        known[peer.name] = event["at"] - at
            return len(known) == len(self._peers)

        self._watch_until(everybody_knows, poll_s=0.1)
        self._say(f"the last survivor knew after {max(known.values()):.3f} s")
        return victim, max(known.values())

    # Looking.

    def _slowest(self) -> int:
        return min(peer.round for peer in self._peers)

    def _watch_until(self, done: Callable[[], bool], *, poll_s: float = POLL_S) -> None:
        while True:
            for peer in self._peers:
                peer.refresh()
            self._draw()
            if done():
                return
            failed = [p for p in self._peers if p.train.get("state") == "failed"]
            if failed:
                raise DemoFailed(f"{failed[0].name}: {failed[0].train['reason']}")
            if time.monotonic() - self._began > LIMIT_S:
                raise DemoFailed(f"not done after {LIMIT_S:.0f} s")
            time.sleep(poll_s)

    def _say(self, text: str) -> None:
        if not self._quiet:
            # What was drawn below the last line said is wiped: the table is drawn anew.
            wipe = "\x1b[J" if sys.stdout.isatty() else ""
            print(f"{wipe}[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def _draw(self, *, last: bool = False) -> None:
        """The live table on a terminal, now and then a line elsewhere."""
        if self._quiet or not self._peers:
            return
        now = time.monotonic()
        if sys.stdout.isatty():
            # Draw below what was said, and let the next drawing begin at the same place.
            text = self._table()
            print("\x1b[J" + text, flush=True)
            if not last:
                print(f"\x1b[{text.count(chr(10)) + 1}A", end="", flush=True)
        elif last or now - self._drawn_at >= PLAIN_EVERY_S:
            self._drawn_at = now
            for peer in self._peers:
                print(self._line(peer), flush=True)

    def _table(self) -> str:
        rows = [
            (
                peer.name,
                peer.train.get("state"),
                peer.round,
                len(peer.status.get("neighbours", [])),
                number(peer.train.get("loss"), 3),
                percent(peer.train.get("accuracy_before")),
                percent(peer.train.get("accuracy_after")),
            )
            for peer in self._peers
        ]
        return table(("PEER", "STATE", "ROUND", "LINKS", "LOSS", "BEFORE", "AFTER"), rows)

    def _line(self, peer: Peer) -> str:
        train = peer.train
        return (
            f"{peer.name} {train.get('state', 'starting'):<13} round {peer.round:>4}"
            f"  links {len(peer.status.get('neighbours', []))}"
            f"  loss {number(train.get('loss'), 3) or '–':>7}"
            f"  accuracy {percent(train.get('accuracy_before')) or '–':>7} before mixing,"
            f" {percent(train.get('accuracy_after')) or '–':>7} after"
        )

    # The summary.

    def _summary(
        self, alone: list[float], killed: Peer, kill_known_s: float, newcomer: Peer
    ) -> dict[str, Any]:
        histories = {
            p.name: p.daemon.call("metrics.get", limit=10_000)["history"] for p in self._peers
        }
        accuracy = {p.name: float(p.train["accuracy_after"]) for p in self._peers}
        survivors = [p.name for p in self._peers if p is not newcomer]
        survivor_parts = [p.train["part"] - 1 for p in self._peers]
        sent = [row["bytes_sent"] for rows in histories.values() for row in rows]
        return {
            "accuracy": accuracy,
            "survivors_mean_accuracy": statistics.fmean(accuracy[name] for name in survivors),
            "alone_mean_accuracy": statistics.fmean(alone[part] for part in survivor_parts),
            "alone_accuracy": {f"peer{part + 1}": value for part, value in enumerate(alone)},
            "consensus_distance": self._consensus_distance(),
            "killed": killed.name,
            "kill_known_everywhere_s": kill_known_s,
            **_entry(newcomer, {n: histories[n] for n in survivors}),
            "bytes_per_round": statistics.fmean(sent),
            "healed": self._healed(killed),
            "daemon_rss_mb_max": max(p.status["rss_bytes"] for p in self._peers) / 1e6,
            "rounds": self._rounds,
            "wall_s": time.monotonic() - self._began,
        }

    def _consensus_distance(self) -> float | None:
        paths = [peer.daemon.data_dir / "model.safetensors" for peer in self._peers]
        for peer, path in zip(self._peers, paths, strict=True):
            peer.daemon.call("model.export", path=str(path))
        return distance_of_exports(paths)

    def _healed(self, killed: Peer) -> bool:
        """Whether everybody agrees who is there, and the graph is whole."""
        ids = {peer.daemon.peer_id for peer in self._peers}
        for peer in self._peers:
            members = peer.daemon.call("overlay.members")
            live = {m["peer"] for m in members if m["state"] == "alive"}
            dead = {m["peer"] for m in members if m["state"] == "dead"}
            linked = {m["peer"] for m in members if m["neighbour"]}
            wanted = set(peer.daemon.call("overlay.topology")["neighbours"])
            if live != ids or killed.daemon.peer_id not in dead or not wanted <= linked:
                return False
        return bool(self._peers[0].daemon.call("overlay.topology")["connected"])


def _entry(newcomer: Peer, histories: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the newcomer started from, and what its first round did to its neighbours."""
    events = newcomer.daemon.events("train.bootstrapped")
    if not events:
        raise DemoFailed("the newcomer did not start from its neighbours' models")
    start = events[0]["data"]
    before, drops = [], []
    for rows in histories.values():
        after = {row["round"]: row["accuracy_after"] for row in rows}
        entered = _entry_round(rows, start["round"], mixed=len(histories))
        if start["round"] in after:
            before.append(after[start["round"]])
        if entered is not None and entered - 1 in after:
            drops.append(after[entered - 1] - after[entered])
    if len(before) < len(histories) or len(drops) < len(histories):
        raise DemoFailed("not every neighbour measured the round in which the newcomer entered")
    return {
        "joiner_round": start["round"],
        "joiner_first_accuracy": start["accuracy"],
        "joiner_neighbours_accuracy": statistics.fmean(before),
        "max_neighbour_drop": max(drops),
    }


def _entry_round(rows: list[dict[str, Any]], start: int, *, mixed: int) -> int | None:
    """The first round after `start` in which a neighbour really mixed `mixed` others: the other
    survivors and, for the first time, the newcomer. It may come later than start + 1, for a
    neighbour that had announced that round already mixes the newcomer in the next."""
    later = (row for row in rows if row["round"] > start)
    return next((r["round"] for r in later if r["neighbours"] - r["missing"] == mixed), None)


def _succeeded(summary: dict[str, Any]) -> bool:
    """Everybody ended above the baseline, and the overlay healed."""
    better = all(a > summary["alone_mean_accuracy"] for a in summary["accuracy"].values())
    return bool(better and summary["healed"])


def _report(summary: dict[str, Any]) -> str:
    gain = 100 * (summary["survivors_mean_accuracy"] - summary["alone_mean_accuracy"])
    return "\n".join(
        [
            "",
            f"together    {percent(summary['survivors_mean_accuracy'])} held-out accuracy (mean of"
            " the survivors)",
            f"alone       {percent(summary['alone_mean_accuracy'])} (the same peers, each on its"
            f" own part): {gain:+.1f} points",
            f"consensus   models lie {summary['consensus_distance']:.1e} of their norm from their"
            " mean",
            f"crash       {summary['killed']} was killed; the last survivor knew after"
            f" {summary['kill_known_everywhere_s']:.3f} s",
            f"newcomer    started at {percent(summary['joiner_first_accuracy'])} in round"
            f" {summary['joiner_round']}, its neighbours had"
            f" {percent(summary['joiner_neighbours_accuracy'])}; nobody lost more than"
            f" {100 * summary['max_neighbour_drop']:.1f} points by it",
            f"traffic     {summary['bytes_per_round'] / 1000:.0f} kB sent a peer and round",
            f"overlay     {'healed' if summary['healed'] else 'NOT healed'}",
            f"took        {summary['wall_s']:.0f} s",
        ]
    )
