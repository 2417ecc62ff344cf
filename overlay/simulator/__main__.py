"""`python -m overlay.simulator`: try the overlay's decisions on thousands of peers.

    python -m overlay.simulator --peers 1000 --scenario kill --fraction 0.5 --seed 1 --json

One seed gives one report, byte for byte. Links are TCP: a lost packet is late, not gone.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

from overlay.profile import PROFILES
from overlay.simulator.lines import parse_latency
from overlay.simulator.report import Settings, simulate, table
from overlay.simulator.scenarios import SCENARIOS, Options

T = TypeVar("T", int, float)


def _number(kind: type[T], fits: Callable[[T], bool], right: str) -> Callable[[str], T]:
    """A type of argument: a number that fits, or an error that says what is right."""

    def read(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number; {right}") from None
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} does not do; {right}")
        return value

    return read


_at_least_two = _number(int, lambda value: value >= 2, "at least 2")
_share = _number(float, lambda value: 0 <= value <= 0.9, "a share from 0 to 0.9")
_seconds = _number(float, lambda value: 0 < value < 1e6, "seconds, above 0")
_rate = _number(float, lambda value: 0 <= value < 1e4, "a rate a second, 0 or more")


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation that the command line asks for; the exit code."""
    given = _parser().parse_args(arguments)
    named = {field.name: getattr(given, field.name) for field in fields(Options)}
    options = Options(**{name: value for name, value in named.items() if value is not None})
    settings = Settings(
        given.peers, given.seed, given.scenario, options, given.profile, given.latency, given.loss
    )
    # Millions of small objects and no cycles among them: looking for some takes most of the time.
    gc.disable()
    report = simulate(settings)
    print(json.dumps(report, sort_keys=True) if given.json else table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m overlay.simulator",
        description="Simulate the overlay: the daemon's own decisions on simulated lines.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scenarios:\n"
        + "\n".join(f"  {name:<10} {scenario.__doc__}" for name, scenario in SCENARIOS.items()),
    )
    add = parser.add_argument
    add("--peers", type=_at_least_two, default=1000, help="how many (default 1000)")
    add("--seed", type=int, default=1, help="one seed is one history (default 1)")
    add("--scenario", choices=SCENARIOS, default="kill", help="what happens (default kill)")
    add("--profile", choices=PROFILES, default="lan", help="time constants (default lan)")
    add("--latency", type=_latency, default="lan", metavar="L",
        help="one way: lan, wan, constant:S, uniform:LOW,HIGH, lognormal:MEDIAN,SIGMA")  # fmt: skip
    add("--loss", type=_share, default=0.0, metavar="P", help="share of packets lost, 0 to 0.9")
    add("--fraction", type=_share, help="kill, slow, flap: share of peers hit, at least one")
    add("--how", choices=("crash", "blackhole", "stop"), help="kill: in which way (default crash)")
    add("--duration", dest="duration_s", type=_seconds, metavar="S",
        help="churn, partition, slow, flap: how long (default 60)")  # fmt: skip
    add("--joins", type=_rate, metavar="N", help="churn: a second (default 1)")
    add("--leaves", type=_rate, metavar="N", help="churn: a second, half crash (default 1)")
    add("--groups", type=_at_least_two, metavar="N", help="partition: into how many (default 2)")
    add("--down", dest="down_s", type=_seconds, metavar="S", help="slow, flap: mean (default 3)")
    add("--up", dest="up_s", type=_seconds, metavar="S", help="slow, flap: mean (default 10)")
    add("--limit", dest="limit_s", type=_seconds, metavar="S",
        help="wait so long for healing (default 120)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _latency(text: str) -> str:
    try:
        parse_latency(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


if __name__ == "__main__":
    sys.exit(main())
