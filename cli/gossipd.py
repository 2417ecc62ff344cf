"""gossipd: start a daemon, write a commented configuration, show a demonstration."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.version import ShowVersion
from learner.job import Job
from learner.job_file import job_from_file
from learner.schema import Problem, SchemaError, commented_toml

if TYPE_CHECKING:
    from daemon.running import Node

# Flags of `gossipd start` and the configuration keys they set.
FLAGS = {
    "name": "node.name",
    "data_dir": "node.data_dir",
    "log_level": "node.log_level",
    "listen": "overlay.listen",
    "advertise": "overlay.advertise",
    "join": "overlay.join",
    "insecure": "overlay.insecure",
    "profile": "overlay.profile",
    "control_tcp": "control.tcp",
    "threads": "learner.threads",
    "data": "data.source",
    "datasets": "data.dir",
    "part": "data.part",
    "lie": "lie.attack",
    "lie_with": "lie.accomplices",
}


def main(argv: list[str] | None = None) -> int:
    """The program; its exit code."""
    arguments = parser().parse_args(argv)
    run = {"start": _start, "init": _init, "demo": _demo, "lab": _lab, "local": _local}[
        arguments.command
    ]
    try:
        return run(arguments)
    except SchemaError as error:
        for problem in error.problems:
            print(f"gossipd: {problem}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="gossipd", description="Train PyTorch models together without a server."
    )
    top.add_argument("--version", action=ShowVersion)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _start_parser(commands.add_parser("start", help="run a daemon in the foreground"))
    init = commands.add_parser("init", help="write a commented configuration and job")
    init.add_argument("directory", nargs="?", type=Path, default=Path(), help="default: here")
    lab = commands.add_parser("lab", help="experiments on this machine alone", add_help=False)
    lab.add_argument("arguments", nargs=argparse.REMAINDER)
    _local_parser(commands.add_parser("local", help="run a job with real daemons on this machine"))
    demo = commands.add_parser("demo", help="five daemons, a crash, a newcomer: see it work")
    demo.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    demo.add_argument("--rounds", type=int, default=300, help="rounds of training (default 300)")
    demo.add_argument("--seed", type=int, default=2, help="seed of the job (default 2)")
    return top


def _local_parser(local: argparse.ArgumentParser) -> None:
    add = local.add_argument
    add("job", type=Path, help="a TOML job")
    add("--peers", type=_count, help="how many daemons; default: one a part of the job")
    add("--json", action="store_true", help="print one JSON object, with every round")
    add("--png", type=Path, help="draw the rounds into a picture")
    add("--export", type=Path, metavar="DIR", help="write every peer's model there (safetensors)")
    add("--limit", type=float, default=600.0, metavar="SECONDS", help="default: 600")
    add("--data-dir", default="", help="where torchvision finds data sets; default: here")
    add("--lie", default="", metavar="ATTACK", help="the last peers lie to the others, such as"
        " SignFlipping:scale=3 (docs/robustness.md)")  # fmt: skip
    add("--liars", type=_count, default=1, help="how many, with --lie (default 1)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of daemons; write 1 or more")
    return int(text)


def _start_parser(start: argparse.ArgumentParser) -> None:
    add = start.add_argument
    add("--config", type=Path, help="a gossipd.toml (gossipd init writes one)")
    add("--job", type=Path, help="a TOML job; the founder's job is the network's")
    add("--name", help="a label for people")
    add("--data-dir", help="state, checkpoints and control socket")
    add("--listen", metavar="HOST:PORT", help="for other peers; port 0 takes a free one")
    add("--advertise", action="append", metavar="ADDRESS", help="address told to others")
    add("--join", action="append", metavar="TICKET",
        help="from gossipctl invite; or wss://host:port of a member; repeatable")  # fmt: skip
    add("--insecure", action="store_true", default=None,
        help="plain links between daemons of this machine, for trying things out")  # fmt: skip
    add("--profile", choices=("lan", "local", "wan"), help="time constants of failure detection")
    add("--control-tcp", metavar="HOST:PORT", help="control API on TCP too, with tokens")
    add("--no-learner", action="store_true", help="a tracker or observer: trains nothing")
    add("--threads", type=int, help="torch threads")
    add("--data", metavar="SOURCE", help="this peer's own data, such as folder:/data/scans")
    add("--datasets", metavar="DIR", help="where torchvision finds data sets")
    add("--part", metavar="K/N", help="which part of a shared data set is this peer's")
    add("--lie", metavar="ATTACK", help="for trials on loopback: lie to the neighbours, such as"
        " SignFlipping:scale=3 (docs/robustness.md)")  # fmt: skip
    add("--lie-with", action="append", metavar="PEER", help="name of another liar; repeatable")
    add("--log-level", choices=("debug", "info", "warning", "error"))
    add("--json", action="store_true", help="print one JSON object when ready")


def _start(arguments: argparse.Namespace) -> int:
    from daemon.config import Config
    from daemon.config_sources import load_config

    flags: dict[str, Any] = {
        key: getattr(arguments, flag)
        for flag, key in FLAGS.items()
        if getattr(arguments, flag) is not None
    }
    if arguments.no_learner:
        flags["learner.enabled"] = False
    problems: list[Problem] = []
    config = job = None

    def read_config() -> Config:
        return load_config(arguments.config, flags=flags, environ=os.environ)

    try:
        config = read_config()
    except SchemaError as error:
        problems += error.problems
    try:
        job = _read_job(arguments.job) if arguments.job is not None else None
    except SchemaError as error:
        problems += error.problems
    if problems:
        raise SchemaError(problems)
    assert config is not None

    import trio

    from daemon.lock import AlreadyRunning
    from daemon.node import StartFailed, run_node

    logging.basicConfig(
        level=config.node.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Frames and handshakes of every message: never what somebody debugging gossipd wants.
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    try:
        trio.run(run_node, config, job, _announcer(arguments), read_config)
    except (AlreadyRunning, StartFailed) as error:
        print(f"gossipd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _read_job(path: Path) -> Job:
    try:
        return job_from_file(path)
    except OSError as error:
        raise SchemaError([Problem(str(path), "", f"cannot be read: {error}")]) from None


def _announcer(arguments: argparse.Namespace) -> Any:
    def ready(node: Node) -> None:
        overlay = node.overlay
        if arguments.json:
            facts = {
                "peer": overlay.my_id,
                "network": overlay.machine.network_id,
                "listen": overlay.address,
                "control": node.control_binds,
                "pid": os.getpid(),
            }
            print(json.dumps(facts), flush=True)
            return
        ctl = f"gossipctl --data-dir {node.config.data_dir}"
        me, lines = overlay.machine.table.me, []
        lines.append(f"gossipd is running: peer {overlay.my_id[:8]} ({me.name})")
        if node.notary is None:
            join = f"gossipd start --insecure --join {me.addresses[0]} --data-dir ANOTHER"
            lines.append(f"  peers join with:  {join}")
            lines.append("  links are PLAIN, neither encrypted nor authenticated (--insecure)")
        elif node.credentials.may_enrol:
            lines.append(f"  invite a peer:    {ctl} invite")
        lines.append(f"  control:          {ctl} status")
        print("\n".join(lines), flush=True)

    return ready


def _init(arguments: argparse.Namespace) -> int:
    from daemon.config import Config

    directory: Path = arguments.directory
    texts = {
        "gossipd.toml": commented_toml(
            Config,
            heading="Configuration of one gossipd peer. Every key is optional and shown with its"
            " default.\nPrecedence: flag > GOSSIPD_* variable > this file > default.",
        ),
        "job.toml": commented_toml(
            Job,
            heading="A gossipd job: what a network trains, and how. Every key is optional and shown"
            "\nwith its default. The founder starts with: gossipd start --job job.toml",
        ),
    }
    taken = [name for name in texts if (directory / name).exists()]
    if taken:
        message = f"gossipd: {' and '.join(taken)} exist in {directory.absolute()}; nothing written"
        print(message, file=sys.stderr)
        return 1
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text)
            print(f"wrote {directory / name}")
    except OSError as error:
        print(f"gossipd: cannot write there: {error}", file=sys.stderr)
        return 1
    return 0


def _lab(arguments: argparse.Namespace) -> int:
    """Become the laboratory's own process: this one never loads torch."""
    given = arguments.arguments or ["--help"]
    os.execv(sys.executable, [sys.executable, "-m", "learner.lab", *given])


def _local(arguments: argparse.Namespace) -> int:
    from cli.local_run import run_local

    return run_local(
        _read_job(arguments.job),
        source=str(arguments.job),
        peers=arguments.peers,
        as_json=arguments.json,
        png=arguments.png,
        export=arguments.export,
        limit_s=arguments.limit,
        data_dir=arguments.data_dir,
        attack=arguments.lie,
        liars=arguments.liars,
    )


def _demo(arguments: argparse.Namespace) -> int:
    from cli.demo import run_demo

    return run_demo(rounds=arguments.rounds, seed=arguments.seed, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
