"""How soon thirty daemons know that one of them died, and what that costs while nobody dies.

    python -m benchmarks.detection [--peers 30] [--kills 5] [--profile lan] [--json]

Real `gossipd start --no-learner` daemons on loopback, and Serf's agents beside them, by the same
course, when a program `serf` is on PATH (`"serf": null` otherwise). Seconds, from the event to:

- `converged_s`: everybody holds everybody for alive and has the links that the graph wants, from
  the moment at which the last daemon was ready (`converged_from_launch_s`: was launched);
- `kill_known_first_s`, `_median_s`, `_last_s`: the first, the median, the last survivor knows of a
  kill -9; each the median over the kills, which `kills` lists;
- `silence_known_last_s`, `silence_returned_s`: the last one knows of a SIGSTOP; and, from SIGCONT,
  that the silent one lives.

`idle_cpu_percent_total` is the CPU of all daemons together in percent of one core, `rss_mb_max` the
memory of the largest. `busy_false_deaths` counts verdicts while busy loops take every core.

Exit code 0 if all of `BOUNDS` hold for gossipd, 1 if not or if something never came about.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.course import Plan, run_course
from benchmarks.daemons import daemons
from benchmarks.processes import machine
from benchmarks.serf import SerfFailed, find_serf, serf_agents, serf_version
from cli.client import ControlError
from cli.local_peers import PeerFailed, interrupt_on_sigterm
from cli.render import number, table

# The most that each figure may be.
BOUNDS: dict[str, float] = {
    "converged_s": 3.0,
    "kill_known_last_s": 1.0,
    "silence_known_last_s": 5.0,
    "idle_cpu_percent_total": 45.0,
    "rss_mb_max": 80.0,
    "busy_false_deaths": 0,
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.peers < 2 or not 1 <= arguments.kills <= arguments.peers:
        print("detection: --peers is 2 or more, --kills between 1 and --peers", file=sys.stderr)
        return 2
    interrupt_on_sigterm()
    try:
        result = measure(arguments)
    except (TimeoutError, PeerFailed, ControlError, SerfFailed) as error:
        print(f"detection: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("detection: interrupted; every process was ended", file=sys.stderr)
        return 130
    print(json.dumps(result) if arguments.json else report(result))
    return 1 if result["failed"] else 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every figure, the bounds, and which of them do not hold."""
    names = [f"p{index:02}" for index in range(arguments.peers)]
    plan = make_plan(
        names, arguments.kills, arguments.seed, idle_s=arguments.idle_s, busy_s=arguments.busy_s
    )
    facts = machine()
    figures = _measure_gossipd(names, plan, arguments.profile)
    return {
        **figures,
        "serf": _measure_serf(names, plan, arguments.profile),
        "peers": arguments.peers,
        "profile": arguments.profile,
        "seed": arguments.seed,
        "machine": facts,
        "bounds": BOUNDS,
        "failed": failed(figures),
    }


def make_plan(names: list[str], kills: int, seed: int, *, idle_s: float, busy_s: float) -> Plan:
    """Who is struck: `kills` different peers, and one that falls silent."""
    rng = random.Random(seed)
    victims = tuple(rng.sample(names, kills))
    return Plan(victims, rng.choice(names), idle_s, busy_s)


def failed(figures: dict[str, Any]) -> list[str]:
    """The figures that are beyond their bounds."""
    return [name for name, bound in BOUNDS.items() if figures[name] > bound]


def report(result: dict[str, Any]) -> str:
    """The figures as a table, Serf's beside ours, with the bounds."""
    serf = result["serf"] or {}
    figures = [name for name, value in result.items() if type(value) in (int, float)]
    rows = [
        (
            name,
            number(result[name], 3),
            number(serf.get(name), 3),
            number(BOUNDS.get(name), 3),
            "FAILED" if name in result["failed"] else "",
        )
        for name in figures
        if name not in ("peers", "seed")
    ]
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    kills = ", ".join(f"{kill['victim']} {kill['last_s']:.3f}" for kill in result["kills"])
    return "\n".join(
        [
            f"{result['peers']} peers, profile {result['profile']}, seed {result['seed']}; {facts}",
            table(("FIGURE", "GOSSIPD", "SERF", "AT MOST", ""), rows),
            f"last survivor knew, kill by kill (s): {kills}",
            serf.get("version", "serf is not installed"),
        ]
    )


def _measure_gossipd(names: list[str], plan: Plan, profile: str) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="gossipd-detection-") as folder,
        # The first victim loses its memory before memory is measured.
        daemons(names, Path(folder), profile=profile) as group,
    ):
        return run_course(group, plan, _sayer("gossipd"))


def _measure_serf(names: list[str], plan: Plan, profile: str) -> dict[str, Any] | None:
    program = find_serf()
    if program is None:
        return None
    version = serf_version(program)
    with serf_agents(program, names, profile=profile) as group:
        return {**run_course(group, plan, _sayer("serf")), "version": version}


def _sayer(who: str) -> Callable[[str], None]:
    return lambda text: print(f"{who}: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", type=int, default=30, help="daemons (default 30)")
    add("--kills", type=int, default=5, help="kills, one after the other (default 5)")
    add("--profile", choices=("lan", "local", "wan"), default="lan", help="default lan")
    add("--seed", type=int, default=1, help="who is struck (default 1)")
    add("--idle-s", type=float, default=20.0, help="how long CPU is counted (default 20)")
    add("--busy-s", type=float, default=60.0, help="how long the cores are taken (default 60)")
    add("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
