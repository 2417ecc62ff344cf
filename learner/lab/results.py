"""Results on disk: one SQLite file that experiments add to, and the same tables as Parquet."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from learner.errors import LearnerError
from learner.lab.experiment import Spec
from learner.lab.run import Outcome

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, experiment TEXT, kind TEXT, point TEXT, seed INTEGER, job TEXT,
    conditions TEXT, federation TEXT, liars TEXT, ended REAL, seconds REAL, models_sent INTEGER,
    error TEXT, threads INTEGER
);
CREATE TABLE IF NOT EXISTS rounds (run INTEGER, round INTEGER, peers INTEGER, distance REAL);
CREATE TABLE IF NOT EXISTS peers (
    run INTEGER, round INTEGER, peer INTEGER, accuracy REAL, test_loss REAL, loss REAL
);
"""
TABLES = ("runs", "rounds", "peers")


class Results:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with closing(self._open()) as database:
            database.executescript(SCHEMA)
            columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
            if "threads" not in columns:  # a file of an earlier version
                database.execute("ALTER TABLE runs ADD COLUMN threads INTEGER")

    def add(self, experiment: str, spec: Spec, outcome: Outcome) -> None:
        """Add one run, whole or not at all."""
        with closing(self._open()) as database, database:
            cursor = database.execute(
                "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    experiment, spec.kind, json.dumps(spec.point), spec.job.seed,
                    spec.job.to_json(), json.dumps(asdict(spec.conditions)),
                    json.dumps(asdict(spec.federation)), json.dumps(asdict(spec.liars)),
                    time.time(), outcome.seconds, outcome.models_sent, outcome.error,
                    outcome.threads,
                ),
            )  # fmt: skip
            run = cursor.lastrowid
            for figures in outcome.rounds:
                row = (run, figures.round, len(figures.peers), figures.distance)
                database.execute("INSERT INTO rounds VALUES (?, ?, ?, ?)", row)
                nothing = [None] * len(figures.peers)
                rows = zip(
                    figures.peers,
                    figures.accuracy or nothing,
                    figures.test_loss or nothing,
                    figures.loss,
                    strict=True,
                )
                database.executemany(
                    "INSERT INTO peers VALUES (?, ?, ?, ?, ?, ?)",
                    [(run, figures.round, *row) for row in rows],
                )

    def write_parquet(self) -> list[Path]:
        """Every table as NAME.parquet beside the database. Raises LearnerError (disk) without
        pyarrow."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise LearnerError(
                "disk", "Parquet needs pyarrow: pip install 'gossipd[lab]'; the results are in"
                f" {self.folder / 'results.sqlite'}",
            ) from None  # fmt: skip
        paths = []
        for name in TABLES:
            with closing(self._open()) as database:
                cursor = database.execute(f"SELECT * FROM {name}")
                columns = [column[0] for column in cursor.description]
                rows = cursor.fetchall()
            values = list(zip(*rows, strict=True)) or [()] * len(columns)
            table = pyarrow.table(dict(zip(columns, map(list, values), strict=True)))
            path = self.folder / f"{name}.parquet"
            pyarrow.parquet.write_table(table, path)
            paths.append(path)
        return paths

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "results.sqlite")
