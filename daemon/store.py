"""What a peer remembers: one SQLite database (WAL) in the data directory.

Rules kept here:
- a write that returned has survived `kill -9` (each is one transaction);
- calls block on the disk: the event loop makes them through `in_thread`;
- a full disk is StoreFull, and the database stays as it was.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import trio

from overlay.certificates import Role

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS members (peer_id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, job TEXT NOT NULL, round INTEGER NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS rounds_by_round ON rounds (job, round);
CREATE TABLE IF NOT EXISTS invitations (
    hash TEXT PRIMARY KEY, role TEXT NOT NULL, uses INTEGER NOT NULL, expires_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS redeemed (
    hash TEXT NOT NULL, peer_id TEXT NOT NULL, PRIMARY KEY (hash, peer_id)
);
CREATE TABLE IF NOT EXISTS revocations (peer_id TEXT PRIMARY KEY, data BLOB NOT NULL);
"""
# A week of rounds at one a second, about 150 MB; older rows go.
MAX_ROUNDS = 500_000
PRUNE_EVERY = 1000


class StoreFailed(Exception):
    """A write did not happen (locked by another process, read-only, …); nothing was changed.

    `kind` is the event to report."""

    kind = "store.failed"


class StoreFull(StoreFailed):
    """The disk has no room for the write."""

    kind = "disk.full"


@dataclass(frozen=True, slots=True)
class Invitation:
    """A ticket made here: the hash of its secret, how often it may be used in all, and when it
    expires (Unix seconds)."""

    hash: str
    role: Role
    uses: int
    expires_at: int


class Store:
    """The database; writes may come from several threads."""

    def __init__(self, path: Path) -> None:
        self._limiter = trio.CapacityLimiter(1)
        self._lock = threading.Lock()
        self._writes = 0
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA busy_timeout = 2000")
        self._db.executescript(SCHEMA)

    async def in_thread(self, call: Callable[..., T], *args: Any) -> T:
        """Run one of the methods below off the event loop, one at a time."""
        return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def get(self, key: str, default: str = "") -> str:
        """A remembered word."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else str(row[0])

    def put(self, words: dict[str, str]) -> None:
        """Remember words, all or none."""
        self._write(("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(words.items())))

    def members(self) -> list[dict[str, Any]]:
        """The member records of the last life."""
        rows = self._db.execute("SELECT record FROM members ORDER BY peer_id").fetchall()
        return [json.loads(row[0]) for row in rows]

    def put_members(self, records: Iterable[tuple[str, dict[str, Any]]], gone: list[str]) -> None:
        """Remember changed member records and forget those in `gone`."""
        rows = [(peer, json.dumps(record)) for peer, record in records]
        self._write(
            ("INSERT OR REPLACE INTO members VALUES (?, ?)", rows),
            ("DELETE FROM members WHERE peer_id = ?", [(peer,) for peer in gone]),
        )

    def forget_network(self) -> None:
        """Forget the members, tickets and revocations of the network that this peer was in."""
        tables = ("members", "invitations", "redeemed", "revocations")
        self._write(*[(f"DELETE FROM {table}", [()]) for table in tables])

    def add_invitation(self, invitation: Invitation) -> None:
        """Remember a ticket."""
        row = (invitation.hash, invitation.role, invitation.uses, invitation.expires_at)
        self._write(("INSERT INTO invitations VALUES (?, ?, ?, ?)", [row]))

    def invitation(self, hashed: str) -> Invitation | None:
        """The ticket whose secret has this hash."""
        query = "SELECT hash, role, uses, expires_at FROM invitations WHERE hash = ?"
        row = self._db.execute(query, (hashed,)).fetchone()
        return None if row is None else Invitation(*row)

    def redeem(self, hashed: str, peer_id: str) -> bool:
        """Use a ticket; False when others have used it up. A peer's second time is free."""
        left = "uses > (SELECT count(*) FROM redeemed WHERE redeemed.hash = invitations.hash)"
        self._write(
            (
                "INSERT OR IGNORE INTO redeemed"
                f" SELECT hash, ? FROM invitations WHERE hash = ? AND {left}",
                [(peer_id, hashed)],
            )
        )
        query = "SELECT 1 FROM redeemed WHERE hash = ? AND peer_id = ?"
        return self._db.execute(query, (hashed, peer_id)).fetchone() is not None

    def forget_invitations(self, before: int) -> None:
        """Forget the tickets that expired before this Unix time."""
        old = "SELECT hash FROM invitations WHERE expires_at < ?"
        self._write(
            (f"DELETE FROM redeemed WHERE hash IN ({old})", [(before,)]),
            ("DELETE FROM invitations WHERE expires_at < ?", [(before,)]),
        )

    def revocations(self) -> list[bytes]:
        """What was remembered by `put_revocations`, in that order."""
        return [row[0] for row in self._db.execute("SELECT data FROM revocations ORDER BY rowid")]

    def is_revoked(self, peer_id: str) -> bool:
        """Whether a revocation of this peer is remembered."""
        query = "SELECT 1 FROM revocations WHERE peer_id = ?"
        return self._db.execute(query, (peer_id,)).fetchone() is not None

    def put_revocations(self, rows: list[tuple[str, bytes]], void: Iterable[str] = ()) -> None:
        """Remember revocations, by the peer that is out; forget those of the peers in `void`."""
        self._write(
            ("DELETE FROM revocations WHERE peer_id = ?", [(peer,) for peer in void]),
            ("INSERT OR REPLACE INTO revocations VALUES (?, ?)", rows),
        )

    def add_round(self, job: str, number: int, data: dict[str, Any]) -> None:
        """Remember one round's metrics."""
        row = (time.time(), job, number, json.dumps(data))
        self._write(("INSERT INTO rounds (at, job, round, data) VALUES (?, ?, ?, ?)", [row]))
        self._writes += 1
        if self._writes % PRUNE_EVERY == 0:
            newest = "SELECT max(id) FROM rounds"
            self._write((f"DELETE FROM rounds WHERE id <= ({newest}) - ?", [(MAX_ROUNDS,)]))

    def rounds(self, job: str, *, since: int, limit: int) -> list[dict[str, Any]]:
        """Metrics of rounds numbered `since` and above, oldest first, the newest `limit`."""
        rows = self._db.execute(
            "SELECT at, round, data FROM rounds WHERE job = ? AND round >= ?"
            " ORDER BY id DESC LIMIT ?",
            (job, since, limit),
        ).fetchall()
        return [{"at": at, "round": number, **json.loads(data)} for at, number, data in rows[::-1]]

    def _write(self, *statements: tuple[str, list[tuple[Any, ...]]]) -> None:
        """Run statements, each for its rows, in one transaction."""
        with self._lock:
            try:
                self._db.execute("BEGIN")
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if "full" in str(error) or "disk I/O" in str(error):
                    raise StoreFull(f"no space left for the database: {error}") from None
                raise StoreFailed(f"the database cannot be written: {error}") from None
