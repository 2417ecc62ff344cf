"""How quick our robust aggregators are beside byzfl's, in one run.

    python -m benchmarks.aggregators [--json]

Every aggregator and pre-aggregator on 20 vectors of 431,080 values with f = 4, ours and byzfl's in
turn, each with cold caches; medians. SMEA goes through all subsets at byzfl, so it is measured on
10 vectors with f = 2.

byzfl's Clipping and ARC overwrite their input, and ours do so here (`overwrite=True`): both work on
copies, whose making is not counted. Two more rows, outside the worst ratio, are of ours that fill a
new [n, d] instead. Exit code 0 if none of ours is slower, 2 if there is no byzfl
(`pip install byzfl`).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from learner.robust.byzfl import RULES

VECTORS, VALUES, F = 20, 431_080, 4
FEWER, FEWER_F = 10, 2  # for SMEA: 45 subsets of 13 MB
REPETITIONS, SLOW_S = 7, 4.0  # what takes longer is measured once
QUICK_REPETITIONS, QUICK_S = 41, 0.03
BOUND = 1.0
ELSEWHERE = torch.zeros(1 << 25)  # 128 MiB, more than a cache
OVERWRITING = ("Clipping", "ARC")
# Every other rule is given f = F.
PARAMETERS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("Average", "Median", "GeometricMedian", "CenteredClipping")},
    "Bucketing": {"s": 2},
    "Clipping": {"c": 2.0},
    "SMEA": {"f": FEWER_F},
}
MISSING = "byzfl is not installed, so there is nothing to compare with: pip install byzfl"


def main(arguments: list[str] | None = None) -> int:
    """Run them; the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.aggregators", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        theirs = byzfl_rules()
    except ModuleNotFoundError as error:
        print(MISSING if error.name == "byzfl" else f"byzfl needs {error.name}", file=sys.stderr)
        return 2
    table = [measure(name, theirs[name], overwrite=name in OVERWRITING) for name in RULES]
    beside = [measure(name, theirs[name], overwrite=False) for name in OVERWRITING]
    worst = max(table, key=lambda row: row["ratio"])
    if given.json:
        found = {"worst_ratio_to_byzfl": worst["ratio"], "worst_rule": worst["rule"]}
        print(json.dumps({**found, "table": table, "into_new_tensors": beside}))
    else:
        show(table)
        print("into new tensors, beside byzfl's that overwrite:")
        for row in beside:
            print(line(row))
    return 0 if worst["ratio"] <= BOUND else 1


def show(table: list[dict[str, Any]]) -> None:
    """The table for people."""
    print(f"{'rule':<18}{'n':>4}{'f':>4}{'ours ms':>10}{'byzfl ms':>11}{'ratio':>8}")
    for row in table:
        print(line(row))
    worst = max(table, key=lambda row: row["ratio"])
    print(f"d = {VALUES:,}; slowest beside byzfl: {worst['rule']} (ratio at most {BOUND:g})")


def line(row: dict[str, Any]) -> str:
    times = f"{row['ours_ms']:>10.1f}{row['byzfl_ms']:>11.1f}{row['ratio']:>8.3f}"
    return f"{row['rule']:<18}{row['n']:>4}{row['f']:>4}{times}"


def measure(name: str, their_rule: type, *, overwrite: bool) -> dict[str, Any]:
    """One row of the table; if `overwrite`, of ours that may overwrite its input."""
    count = FEWER if name == "SMEA" else VECTORS
    vectors = torch.randn(count, VALUES, generator=torch.Generator().manual_seed(1))
    parameters = PARAMETERS.get(name, {"f": F})

    def ours() -> float:
        rule = RULES[name](**parameters)
        if overwrite:
            return timed(partial(rule, overwrite=True), vectors.clone())
        return timed(rule, vectors)

    def byzfl() -> float:
        # A new object each time: CenteredClipping starts at its last result otherwise.
        given = vectors.clone() if name in OVERWRITING else vectors
        return timed(their_rule(**parameters), given)

    our_s, their_s = alternately(ours, byzfl)
    return {
        "rule": name,
        "n": count,
        "d": VALUES,
        "f": parameters.get("f", 0),
        "ours_ms": round(1000 * our_s, 2),
        "byzfl_ms": round(1000 * their_s, 2),
        "ratio": round(our_s / their_s, 4),
    }


def alternately(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """The median of the seconds that each tells, run in turn after one run to warm up."""
    one()
    took = other()
    repetitions = QUICK_REPETITIONS if took < QUICK_S else REPETITIONS if took < SLOW_S else 1
    pairs = [(one(), other()) for _ in range(repetitions)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


def timed(rule: Callable[[Tensor], Tensor], vectors: Tensor) -> float:
    """Seconds of one call that finds nothing of the vectors in the processor's caches."""
    ELSEWHERE.add_(1)
    began = time.perf_counter()
    rule(vectors)
    return time.perf_counter() - began


def byzfl_rules() -> dict[str, type]:
    """byzfl's classes by name, and its RobustAggregator.

    Only the modules with the rules are loaded: the package itself wants seaborn and torchvision.
    It is forgotten again, so that whoever imports byzfl gets all of it.
    """
    with bare_packages("byzfl", "byzfl.aggregators", "byzfl.fed_framework"):
        rules = importlib.import_module("byzfl.aggregators.aggregators")
        pre_rules = importlib.import_module("byzfl.aggregators.preaggregators")
        packages = sys.modules["byzfl.aggregators"]
        packages.aggregators = rules  # type: ignore[attr-defined]
        packages.preaggregators = pre_rules  # type: ignore[attr-defined]
        chain = importlib.import_module("byzfl.fed_framework.robust_aggregator")
    found = {name: getattr(rules, name, None) or getattr(pre_rules, name) for name in RULES}
    return {**found, "RobustAggregator": chain.RobustAggregator}


@contextmanager
def bare_packages(*names: str) -> Iterator[None]:
    spec = importlib.util.find_spec("byzfl")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(MISSING, name="byzfl")
    root = Path(next(iter(spec.submodule_search_locations)))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _of_byzfl(name)}
    try:
        for name in names:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        yield
    finally:
        for name in [name for name in sys.modules if _of_byzfl(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _of_byzfl(name: str) -> bool:
    return name.split(".")[0] == "byzfl"


if __name__ == "__main__":
    sys.exit(main())
