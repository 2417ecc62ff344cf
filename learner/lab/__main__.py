"""`gossipd lab`: experiments and data splits on one machine."""

from __future__ import annotations

import argparse
import json
import math
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learner import data, partition
from learner.errors import LearnerError
from learner.job_file import job_from_file
from learner.lab.experiment import Experiment, Line, Spec, load, outcomes, specs, table
from learner.lab.plots import plot
from learner.lab.results import Results
from learner.lab.run import Outcome
from learner.schema import SchemaError

EXIT_REFUSED, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 for what cannot run, 2 for bad input."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.act(given))
    except (SchemaError, OSError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except LearnerError as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gossipd lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run an experiment file (docs/laboratory.md)")
    run.add_argument("file", type=Path)
    run.add_argument("--out", type=Path, help="folder for results.sqlite, Parquet and the plot")
    run.add_argument(
        "--workers", type=_workers, default=0, help="runs at a time; default: all cores"
    )
    run.add_argument("--threads", type=_threads, default=1, help="torch's, of each run; default: 1")
    run.add_argument("--data-dir", default="", help="where torchvision's data sets lie")
    run.add_argument("--json", action="store_true", help="print one JSON object")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(act=_run)
    split = commands.add_parser("split", help="show who would hold which samples of a job's data")
    split.add_argument("file", type=Path, help="a job file")
    split.add_argument("--png", type=Path, help="draw it as well")
    split.add_argument("--data-dir", default="", help="where torchvision's data sets lie")
    split.add_argument("--json", action="store_true", help="print one JSON object")
    split.set_defaults(act=_split)
    return parser


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs; 0 is all cores")
    return int(text)


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; 1 to 1024")
    return int(text)


def _run(given: argparse.Namespace) -> int:
    experiment = load(given.file)
    todo = specs(experiment, data_dir=given.data_dir, source=str(given.file))
    results = Results(given.out) if given.out else None
    done: list[tuple[Spec, Outcome]] = []
    with _Bar(todo, quiet=given.quiet or given.json) as bar:
        ends = outcomes(todo, workers=given.workers, threads=given.threads, on_round=bar.round_done)
        for spec, outcome in ends:
            done.append((spec, outcome))
            if results:
                results.add(experiment.name, spec, outcome)
            outcome.models = None  # the figures are enough, and the models may be large
            bar.run_done()
    lines = table(done, best_of=experiment.best_of)
    print(json.dumps(_report(experiment, todo, lines)) if given.json else shown(lines))
    if results:
        results.write_parquet()
        best = [(line.point, line.kind) for line in lines]
        drawn = [(spec, outcome) for spec, outcome in done if (spec.point, spec.kind) in best]
        plot(given.out / "plot.png", experiment.name, drawn)
    return 0


def _report(experiment: Experiment, todo: list[Spec], lines: list[Line]) -> dict[str, Any]:
    rows = [
        {key: None if value != value else value for key, value in asdict(line).items()}
        for line in lines
    ]
    seeds = sorted({spec.job.seed for spec in todo})
    return {"experiment": experiment.name, "seeds": seeds, "table": rows}


def shown(lines: list[Line]) -> str:
    """The table for people: what varies, then accuracies in percent."""
    keys = list(dict.fromkeys(key for line in lines for key in line.point))
    head = [*(key.rpartition(".")[2] for key in keys), "kind", "accuracy", "±", "worst peer",
            "test loss", "distance", "models sent", "time"]  # fmt: skip
    rows = [
        [
            *(str(line.point.get(key, "")) for key in keys),
            line.kind,
            "diverged" if line.diverged and not line.accuracy else _percent(line.accuracy),
            _percent(line.spread),
            _percent(line.worst),
            _number(line.test_loss),
            _number(line.distance),
            str(line.models_sent),
            f"{line.seconds:.1f} s",
        ]
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    )


def _split(given: argparse.Namespace) -> int:
    job = job_from_file(given.file)
    dataset = data.load(job.data, "", given.data_dir, job.seed)
    report = partition.report(dataset, job.partition, job.seed)
    print(json.dumps(report.as_dict()) if given.json else report)
    if given.png:
        report.plot(given.png)
    return 0


class _Bar:
    """Progress on standard error: of the rounds of a single run, else of the runs."""

    def __init__(self, todo: Sequence[Spec], *, quiet: bool) -> None:
        self._single = len(todo) == 1
        total, unit = (todo[0].job.training.rounds, "round") if self._single else (len(todo), "run")
        self._bar = None if quiet else _tqdm(total, unit)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def round_done(self, number: int) -> None:
        """One more round; of many runs, the runs are counted."""
        if self._bar is not None and self._single:
            self._bar.update()

    def run_done(self) -> None:
        """One more run."""
        if self._bar is not None and not self._single:
            self._bar.update()


def _tqdm(total: int, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=unit, disable=None)  # on a terminal only


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
