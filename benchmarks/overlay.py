"""What the overlay must hold in simulation: each bound, over several seeds.

    python -m benchmarks.overlay [--only NAME ...] [--seeds N] [--json]

Each case is told when it is done, with `--json` on standard error. All of it takes three hours on
two cores, most of them for `slow` and `cut`; `--only crash silence cost` a few minutes. Exit code 0
if every bound holds in every case that ran.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from overlay.simulator.report import Settings, simulate
from overlay.simulator.scenarios import Options

Reports = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure over the reports of all seeds, and the most it may be (`at_least`: the least)."""

    name: str
    figure: Callable[[Reports], float]
    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Case:
    """Some simulations and what must come of them."""

    settings: Settings
    seeds: int
    bounds: tuple[Bound, ...]


def worst(key: str) -> Callable[[Reports], float]:
    """The largest over the seeds; infinity where something never came about."""
    return lambda reports: max(_number(report[key]) for report in reports)


def median(key: str) -> Callable[[Reports], float]:
    """The median over the seeds."""
    return lambda reports: statistics.median(_number(report[key]) for report in reports)


def least(key: str) -> Callable[[Reports], float]:
    """The smallest over the seeds."""
    return lambda reports: min(float(report[key]) for report in reports)


NOBODY_FALSELY_DEAD = Bound("false deaths", worst("false_deaths"), 0)
ONE = Options(fraction=0.001)
CASES = {
    "crash": Case(
        Settings(1000, 1, "kill", ONE),
        10,
        (
            Bound("last survivor knows, median, s", median("known_last_s"), 1.5),
            Bound("spectral gap", least("spectral_gap"), 0.20, at_least=True),
            Bound("bytes a peer and second, quiet", worst("bytes_per_peer_s"), 2000),
            NOBODY_FALSELY_DEAD,
        ),
    ),
    "silence": Case(
        Settings(1000, 1, "kill", replace(ONE, how="blackhole")),
        10,
        (Bound("last survivor knows, s", worst("known_last_s"), 8), NOBODY_FALSELY_DEAD),
    ),
    "cost": Case(  # with the 2 KB/s of `crash`: no growth from 100 to 10,000 beyond the logarithm
        Settings(10_000, 1, "kill", Options(fraction=0.0001)),
        1,
        (Bound("bytes a peer and second, quiet", worst("bytes_per_peer_s"), 2000),),
    ),
    "cut": Case(
        Settings(1000, 1, "partition", Options(duration_s=600)),
        10,
        (Bound("one network after the cut, s", worst("healed_s"), 35), NOBODY_FALSELY_DEAD),
    ),
    "slow": Case(
        Settings(1000, 1, "slow", Options(fraction=0.03, duration_s=600), loss=0.05),
        5,
        (NOBODY_FALSELY_DEAD,),
    ),
    "half": Case(
        Settings(10_000, 1, "kill", Options(fraction=0.5)),
        1,
        (
            Bound("one component, s", worst("one_component_s"), 10),
            Bound("full degree, s", worst("full_degree_s"), 10),
            NOBODY_FALSELY_DEAD,
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.overlay", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME",
                        help=", ".join(CASES))  # fmt: skip
    parser.add_argument("--seeds", type=int, help="instead of each case's own number")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    results = {}
    for name in given.only:
        results[name] = _run(CASES[name], given.seeds or CASES[name].seeds)
        for figure in results[name]:
            word = "ok" if figure["holds"] else "MISSED"
            line = f"{name:<8} {figure['name']:<34} {figure['value']:>10.3f} {word}"
            print(line, file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.json:
        print(json.dumps(results))
    return 0 if all(figure["holds"] for figures in results.values() for figure in figures) else 1


def _run(case: Case, seeds: int) -> list[dict[str, Any]]:
    """All seeds, one a core at a time."""
    todo = [replace(case.settings, seed=seed) for seed in range(1, seeds + 1)]
    # As the simulator's own command line does, without looking for garbage.
    context, cores = multiprocessing.get_context("spawn"), len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(min(cores, seeds), context, initializer=gc.disable) as pool:
        reports = list(pool.map(simulate, todo))
    values = [(bound, bound.figure(reports)) for bound in case.bounds]
    return [
        {"name": b.name, "value": v, "limit": b.limit, "holds": b.holds(v), "seeds": seeds}
        for b, v in values
    ]


def _number(value: float | None) -> float:
    return float("inf") if value is None else float(value)


if __name__ == "__main__":
    sys.exit(main())
