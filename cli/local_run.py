"""`gossipd local JOB.toml`: a job run by real daemons on this machine, and what came of it.

A script like any owner's, as the demo is. Rules kept here:
- a peer a part, all of them there before the job is, so that they begin together;
- what the job names (code, files) is allowed to every peer: the job is one's own file;
- what is reported was measured by the peers; only the last consensus distance is computed here,
  from the models that they export.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.client import TIMED_OUT, USAGE, ControlError
from cli.local_peers import (
    LocalPeer,
    PeerFailed,
    distance_of_exports,
    interrupt_on_sigterm,
    local_peer,
    wait_until,
)
from cli.local_report import draw, report
from cli.render import number, percent
from learner.attacks.names import parse_attack
from learner.edges import peer_names
from learner.job import Job
from learner.schema import Problem, SchemaError

POLL_S = 0.3
# More daemons at a time would only wait for each other's imports.
STARTERS = 4
MAX_HISTORY = 10_000  # rows of one answer of metrics.get


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: the job, as it is given to the network, and the peers' names; the last `liars`
    of them lie by `attack`."""

    job: Job
    names: tuple[str, ...]
    attack: str = ""
    liars: int = 0

    def lies(self, index: int) -> bool:
        """Whether a peer is one of the liars."""
        return index >= len(self.names) - self.liars


@dataclass(slots=True)
class Peer:
    """One daemon at work; `now` are its newest figures, `history` its rounds, oldest first."""

    daemon: LocalPeer
    lies: bool = False
    now: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its label."""
        return self.daemon.name

    @property
    def finished(self) -> bool:
        """Whether it has nothing left to do."""
        return self.now.get("state") == "finished"

    def refresh(self) -> None:
        """Ask for what is new. Raises PeerFailed when it cannot train, or is gone."""
        since = self.history[-1]["round"] + 1 if self.history else 0
        answer = self.daemon.ask("metrics.get", since=since, limit=MAX_HISTORY)
        if answer is None:
            return
        self.now = answer["current"]
        self.history += answer["history"]
        if self.now["state"] == "failed":
            raise PeerFailed(f"{self.name}: {self.now['reason']}")

    def last(self, key: str) -> Any:
        """A figure of the newest round that has it."""
        return next((r[key] for r in reversed(self.history) if r.get(key) is not None), None)

    def total(self, key: str) -> int:
        """A figure summed over all rounds."""
        return sum(row.get(key) or 0 for row in self.history)


def run_local(
    job: Job,
    *,
    source: str,
    peers: int | None = None,
    as_json: bool = False,
    png: Path | None = None,
    export: Path | None = None,
    limit_s: float = 600.0,
    data_dir: str = "",
    attack: str = "",
    liars: int = 1,
) -> int:
    """Run a job and print what came of it; the exit code (5: not finished within the limit).

    `data_dir` is where torchvision's data sets lie (default: here); with an `attack` the last
    `liars` peers lie. Raises SchemaError for a job that so many peers cannot run.
    """
    chosen = plan(job, peers=peers, source=source, attack=attack, liars=liars if attack else 0)
    interrupt_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="gossipd-local-"))
    try:
        check_outputs(png, export)
        summary = run(chosen, folder, export=export, limit_s=limit_s, data_dir=data_dir,
            quiet=as_json)  # fmt: skip
        print(json.dumps(summary) if as_json else report(summary))
        if png:
            draw(summary, png)
    except (PeerFailed, ControlError, TimeoutError) as error:
        print(f"gossipd local: {error} (logs are in {folder})", file=sys.stderr)
        return error.exit_code if isinstance(error, ControlError) else 1
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        print("gossipd local: interrupted; every process was stopped", file=sys.stderr)
        return 130
    shutil.rmtree(folder, ignore_errors=True)
    if not summary["finished"]:
        print(f"gossipd local: not finished within {limit_s:g} s", file=sys.stderr)
        return TIMED_OUT
    return 0


def plan(job: Job, *, peers: int | None, source: str, attack: str = "", liars: int = 0) -> Plan:
    """Who runs it: as many peers as the job has parts, unless `peers` says otherwise; peer0, peer1,
    …, or who else its edges name, in that order. Training begins when all are there. Raises
    SchemaError."""
    names = peer_names(job.gossip.edges, peers or job.partition.parts)
    count = peers or len(names)
    problems = []
    if count != len(names):
        hint = f"leave out --peers, or write {len(names)}"
        problems.append(Problem(source, "gossip.edges", f"name {len(names)} peers", hint))
    if count > job.partition.parts and job.partition.kind != "none":
        message = f"is {job.partition.parts}, too few for {count} peers"
        problems.append(Problem(source, "partition.parts", message, "a peer needs a part"))
    if liars >= count:
        message = f"{liars} of {count} peers would lie"
        problems.append(Problem("command line", "--liars", message, "leave some honest"))
    if attack:
        try:
            parse_attack(attack)
        except ValueError as error:
            problems.append(Problem("command line", "--lie", str(error)))
    if problems:
        raise SchemaError(problems)
    training = dataclasses.replace(job.training, min_peers=count)
    return Plan(dataclasses.replace(job, training=training), names, attack, liars)


def check_outputs(png: Path | None, export: Path | None) -> None:
    """Find out before the run what could not be written after it. Raises ControlError (usage)."""
    if png and importlib.util.find_spec("matplotlib") is None:
        raise ControlError(USAGE, "a picture takes matplotlib: pip install 'gossipd[plot]'")
    try:
        if export:
            export.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ControlError(USAGE, f"cannot write into {export}: {error}") from None


# The run.


def run(
    plan: Plan, folder: Path, *, export: Path | None, limit_s: float, data_dir: str, quiet: bool
) -> dict[str, Any]:
    """The whole course; the summary. Afterwards no daemon is left. Raises PeerFailed,
    ControlError, TimeoutError."""
    began = time.monotonic()
    line = Line(shown=not quiet and sys.stderr.isatty())
    with ExitStack() as stack:
        stack.callback(line.clear)
        line.show(f"starting {len(plan.names)} daemons")
        peers = start(plan, folder, stack, data_dir=data_dir)
        stack.callback(end_together, peers)
        watch(peers, plan.job, began + limit_s, line)
        distance = export_all(peers, export or folder)
    return summarise(plan, peers, distance, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a terminal that is written anew; nothing elsewhere."""

    shown: bool

    def show(self, text: str) -> None:
        """Write it in place of what was there."""
        if self.shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave nothing."""
        self.show("")


def start(plan: Plan, folder: Path, stack: ExitStack, *, data_dir: str) -> list[Peer]:
    """The daemons, all of them members, with the job. Raises PeerFailed, TimeoutError."""
    config = folder / "gossipd.toml"
    config.write_text(f"[learner]\nallow = {json.dumps(plan.job.local_names())}\n")
    shared = ["--config", str(config), "--profile", "local"]
    shared += ["--datasets", str(Path(data_dir).absolute())]
    parts = plan.job.partition.parts if plan.job.partition.kind != "none" else 0

    def one(index: int, *flags: str) -> Peer:
        part = ["--part", f"{index + 1}/{parts}"] if parts else []
        # Not the name, for a Unix socket's path must be short.
        home = folder / str(index)
        daemon = local_peer(plan.names[index], home, [*shared, *part, *lie(plan, index), *flags])
        return Peer(stack.enter_context(daemon), plan.lies(index))

    first = one(0)
    with ThreadPoolExecutor(STARTERS) as pool:
        join = ("--join", first.daemon.ticket)
        others = [pool.submit(one, index, *join) for index in range(1, len(plan.names))]
    peers = [first, *(future.result() for future in others)]
    wait_until(lambda: all_there(peers), 30 + len(peers), "all daemons know each other")
    first.daemon.call("job.submit", job=json.loads(plan.job.to_json()))
    return peers


def lie(plan: Plan, index: int) -> list[str]:
    """What makes a peer a liar, who knows the others of its kind."""
    if not plan.lies(index):
        return []
    others = [n for i, n in enumerate(plan.names) if plan.lies(i) and i != index]
    return ["--lie", plan.attack, *(word for name in others for word in ("--lie-with", name))]


def all_there(peers: Sequence[Peer]) -> bool:
    """Whether every daemon counts all of them as members."""
    answers = [peer.daemon.ask("overlay.members") or [] for peer in peers]
    return all(
        sum(member["state"] == "alive" for member in members) == len(peers) for members in answers
    )


def watch(peers: Sequence[Peer], job: Job, until: float, line: Line) -> None:
    """Show the progress until all have finished, or until that time (monotonic). Raises
    PeerFailed."""
    while True:
        for peer in peers:
            peer.refresh()
        line.show(progress(peers, job))
        if all(peer.finished for peer in peers) or time.monotonic() > until:
            return
        time.sleep(POLL_S)


def progress(peers: Sequence[Peer], job: Job) -> str:
    """One line: the slowest peer's round, and how good the models are, or how far apart."""
    words = [f"round {min(peer.now.get('round', 0) for peer in peers)} of {job.training.rounds}"]
    honest = [peer for peer in peers if not peer.lies]
    if (accuracy := mean(peer.last("accuracy_after") for peer in honest)) is not None:
        words.append(f"accuracy {percent(accuracy)}")
    elif (distance := mean(peer.last("consensus_distance") for peer in peers)) is not None:
        words.append(f"consensus distance {number(distance, 3)}")
    return ", ".join(words)


def export_all(peers: Sequence[Peer], folder: Path) -> float | None:
    """Write every model as NAME.safetensors; how far apart the honest ones are. Raises
    ControlError."""
    files = [f"{peer.name.replace('/', '_')}.safetensors" for peer in peers]
    paths = [folder.absolute() / file for file in files]
    for peer, path in zip(peers, paths, strict=True):
        peer.daemon.call("model.export", path=str(path))
    return distance_of_exports([p for p, peer in zip(paths, peers, strict=True) if not peer.lies])


def end_together(peers: Sequence[Peer]) -> None:
    """Ask all to go, before each is waited for."""
    for peer in peers:
        peer.daemon.process.terminate()


# What came of it.


def summarise(
    plan: Plan, peers: Sequence[Peer], distance: float | None, seconds: float
) -> dict[str, Any]:
    """Everything that is known, for JSON."""
    names = {peer.daemon.peer_id: peer.name for peer in peers}
    rows = [row for peer in peers for row in peer.history]
    began = min((row["at"] - row["round_s"] for row in rows), default=0.0)
    honest = [peer for peer in peers if not peer.lies]
    return {
        "job": plan.job.name,
        "rounds": plan.job.training.rounds,
        "finished": all(peer.finished for peer in peers),
        "attack": plan.attack,
        "mean_accuracy": mean(peer.last("accuracy_after") for peer in honest),
        "mean_test_loss": mean(peer.last("test_loss") for peer in honest),
        "consensus_distance": distance,
        "training_s": max((row["at"] for row in rows), default=0.0) - began,
        "seconds": seconds,
        "peers": [_facts(peer, names) for peer in peers],
    }


def _facts(peer: Peer, names: dict[str, str]) -> dict[str, Any]:
    weights = peer.last("weights") or {}
    return {
        "name": peer.name,
        "peer": peer.daemon.peer_id,
        "lies": peer.lies,
        "state": peer.now.get("state"),
        "part": peer.now.get("part"),
        "round": peer.now.get("round"),
        "loss": peer.last("loss"),
        "accuracy": peer.last("accuracy_after"),
        "test_loss": peer.last("test_loss"),
        "consensus_distance": peer.last("consensus_distance"),
        "own_weight": peer.last("own_weight"),
        "weights": {names.get(other, other): weight for other, weight in weights.items()},
        "missing": peer.total("missing"),
        "bytes_sent": peer.total("bytes_sent"),
        "history": peer.history,
    }


def mean(values: Any) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known else None
