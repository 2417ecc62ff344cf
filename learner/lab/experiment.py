"""Declarative experiments: a job, what varies, and over which seeds; all runs on all cores.

An experiment file is TOML:

    name = "ring"
    seeds = [1, 2, 3]
    kinds = ["gossip", "local"]
    best_of = ["optimizer.lr"]
    [job]                        # as in a job file; or job_file = "job.toml"
    algorithm = "gtadam"
    [grid]                       # every combination is run
    "gossip.topology" = ["ring", "expander"]
    "optimizer.lr" = [0.01, 0.03]
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.errors import LearnerError
from learner.job import Job
from learner.job_file import job_from_table, read_table
from learner.lab.conditions import Conditions
from learner.lab.federated import Federation
from learner.lab.liars import Liars
from learner.lab.run import KINDS, Outcome, run
from learner.schema import Problem, SchemaError, as_table, parse, section, setting


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is run. The number of peers is job.partition.parts."""

    name: str = setting("experiment", "a label for people")
    seeds: tuple[int, ...] = setting(
        (), "job seeds; every point of the grid is run with each (default: the job's own)"
    )
    kinds: tuple[str, ...] = setting(
        ("gossip",), "gossip, and as baselines local, centralized, federated"
    )
    best_of: tuple[str, ...] = setting(
        (), "keys of the grid of which the table shows the best value only (by mean accuracy)"
    )
    job_file: str = setting("", "a job file, relative to this one; [job] overrides it")
    job: dict[str, Any] = setting({}, "the job")
    grid: dict[str, Any] = setting(
        {}, "keys of the job, such as optimizer.lr, or of liars, and their values"
    )
    conditions: Conditions = section(Conditions)
    federation: Federation = section(Federation)
    liars: Liars = section(Liars)


@dataclass(frozen=True, slots=True)
class Spec:
    """One run of an experiment: at a point of the grid, with a seed."""

    point: dict[str, Any]
    kind: str
    job: Job
    conditions: Conditions
    federation: Federation
    liars: Liars
    data_dir: str

    @property
    def label(self) -> str:
        """The point for people: 'ring, gtadam, 0.01'."""
        words = [str(value) for value in self.point.values()]
        return ", ".join([*words, self.kind] if self.kind != "gossip" or not words else words)


def load(path: Path) -> Experiment:
    """An experiment from its file. Raises SchemaError with every problem, OSError."""
    table = read_table(path)
    name, over = table.get("job_file"), table.get("job", {})
    if isinstance(name, str) and name and isinstance(over, dict):
        table = {**table, "job": _merged(read_table(path.parent / name), over)}
    return parse(Experiment, table, source=str(path), check=_check)


def specs(experiment: Experiment, *, data_dir: str = "", source: str = "experiment") -> list[Spec]:
    """Every run. Raises SchemaError for a point of the grid that makes no job."""
    points = [
        dict(zip(experiment.grid, values, strict=True))
        for values in itertools.product(*experiment.grid.values())
    ]
    found = []
    varied = [{"seed": seed} for seed in experiment.seeds] or [{}]
    for point, kind, seeded in itertools.product(points, experiment.kinds, varied):
        where = f"{source} at {point}" if point else source
        table = {"job": experiment.job, "liars": as_table(experiment.liars)}
        for key, value in {**point, **seeded}.items():
            table = _put(table, key if key.startswith("liars.") else f"job.{key}", value, where)
        job = job_from_table(table["job"], source=where)
        liars = parse(Liars, table["liars"], source=where)
        given = experiment.conditions, experiment.federation, liars
        found.append(Spec(point, kind, job, *given, data_dir))
    return found


def outcomes(
    todo: list[Spec],
    *,
    workers: int = 0,
    threads: int = 1,
    on_round: Callable[[int], None] = lambda round: None,
) -> Iterator[tuple[Spec, Outcome]]:
    """The runs' outcomes as they end; many at once on all cores (or `workers`), a single run in
    this process with `on_round`. Raises LearnerError for a job that cannot run."""
    count = workers or len(os.sched_getaffinity(0))
    run_one = functools.partial(run_spec, threads=threads)
    if count == 1 or len(todo) == 1:
        for spec in todo:
            yield spec, run_one(spec, on_round=on_round)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(count, len(todo)), context) as pool:
        yield from zip(todo, pool.map(run_one, todo), strict=True)


def run_spec(
    spec: Spec, *, threads: int = 1, on_round: Callable[[int], None] = lambda round: None
) -> Outcome:
    """One run."""
    try:
        return run(
            spec.job,
            kind=spec.kind,
            conditions=spec.conditions,
            federation=spec.federation,
            liars=spec.liars,
            data_dir=spec.data_dir,
            threads=threads,
            on_round=on_round,
        )
    except LearnerError as error:
        raise LearnerError(error.kind, f"{spec.label}: {error.message}") from error


@dataclass(frozen=True, slots=True)
class Line:
    """A point of the grid in the table; figures are means over the seeds, accuracies fractions.

    `spread` is the sample standard deviation of the accuracy over the seeds (None with one),
    `worst` the least accurate peer of any seed. A run that diverged counts as accuracy 0.
    """

    point: dict[str, Any]
    kind: str
    accuracy: float
    spread: float | None
    worst: float
    test_loss: float
    distance: float | None
    models_sent: int
    seconds: float
    diverged: int


def table(results: Iterable[tuple[Spec, Outcome]], *, best_of: tuple[str, ...] = ()) -> list[Line]:
    """One line a point and kind, in the order of the runs; of the keys `best_of` only the value
    with the best accuracy."""
    groups: dict[str, list[tuple[Spec, Outcome]]] = {}
    for spec, outcome in results:
        key = json.dumps([spec.point, spec.kind], sort_keys=True)
        groups.setdefault(key, []).append((spec, outcome))
    best: dict[str, Line] = {}
    for group in groups.values():
        line = _line(group)
        shown = {key: value for key, value in line.point.items() if key not in best_of}
        name = json.dumps([shown, line.kind], sort_keys=True)
        if name not in best or line.accuracy > best[name].accuracy:
            best[name] = line
    return list(best.values())


def _line(group: list[tuple[Spec, Outcome]]) -> Line:
    spec = group[0][0]
    accuracies = [0.0 if o.error else o.accuracy for _, o in group]
    ended = [o for _, o in group if not o.error and o.rounds]
    distances = [o.rounds[-1].distance for o in ended if o.rounds[-1].distance is not None]
    return Line(
        spec.point,
        spec.kind,
        statistics.fmean(accuracies),
        None
        if len(accuracies) < 2 or math.isnan(sum(accuracies))
        else statistics.stdev(accuracies),
        min((min(o.rounds[-1].accuracy, default=math.nan) for o in ended), default=0.0),
        statistics.fmean(o.test_loss for o in ended) if ended else math.nan,
        statistics.fmean(distances) if distances else None,
        max(o.models_sent for _, o in group),
        statistics.fmean(o.seconds for _, o in group),
        sum(bool(o.error) for _, o in group),
    )


def _check(experiment: Experiment, source: str) -> list[Problem]:
    problems = [
        Problem(source, "kinds", f"{kind!r} is no kind", f"known: {', '.join(KINDS)}")
        for kind in experiment.kinds
        if kind not in KINDS
    ]
    problems += [
        Problem(source, f"grid.{key}", "must be a list of values")
        for key, values in experiment.grid.items()
        if not isinstance(values, list) or not values
    ]
    problems += [
        Problem(source, "best_of", f"{key!r} is not in the grid")
        for key in experiment.best_of
        if key not in experiment.grid
    ]
    if "seed" in experiment.grid:
        problems.append(Problem(source, "grid.seed", "does not count", "write seeds = [1, 2, 3]"))
    return problems


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **over, **both}


def _put(table: dict[str, Any], key: str, value: Any, source: str) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    inner = table.get(head, {})
    if rest and head == "algorithm" and isinstance(inner, str):
        inner = {"name": inner}  # algorithm = "NAME" is short for a table
    if rest and not isinstance(inner, dict):
        raise SchemaError([Problem(source, head, f"is no table that could hold {rest!r}")])
    return {**table, head: _put(inner, rest, value, source) if rest else value}
