"""Rounds on their way to the store: queued, written in order, kept while the disk is full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from daemon.store import Store, StoreFailed

log = logging.getLogger("gossipd.train")

# Overflow rule: beyond this many waiting rounds the newest one's metrics are lost, and said to be.
PENDING_ROUNDS = 1000
DISK_RETRY_S = 5.0


class RoundLog:
    """Writes rounds in the background; nobody waits for the disk."""

    def __init__(self, store: Store, report: Callable[[str, dict[str, Any]], None]) -> None:
        self._store = store
        self._report = report
        self._send, self._receive = trio.open_memory_channel[tuple[str, int, dict[str, Any]]](
            PENDING_ROUNDS
        )

    def add(self, run: str, number: int, data: dict[str, Any]) -> None:
        """Queue a round's metrics."""
        try:
            self._send.send_nowait((run, number, data))
        except trio.WouldBlock:
            log.warning("metrics of round %d are lost: the disk does not keep up", number)

    async def run(self) -> None:
        """Write until cancelled."""
        async for row in self._receive:
            await self._write(row)

    async def _write(self, row: tuple[str, int, dict[str, Any]]) -> None:
        reported = False
        while True:
            try:
                await self._store.in_thread(self._store.add_round, *row)
                return
            except StoreFailed as error:
                if not reported:
                    self._report(error.kind, {"reason": str(error)})
                reported = True
                await trio.sleep(DISK_RETRY_S)
