"""The clock of a simulation: a heap of what happens when.

Rule kept here: what is due at one moment happens in the order in which it was asked for: one seed
is one history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[..., None]


class Timeline:
    """Simulated seconds, and what is still to come."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._happenings: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._count = 0

    def later(self, delay_s: float, action: Action, *arguments: Any) -> None:
        """Do something after a while."""
        self._count += 1
        heapq.heappush(self._happenings, (self.now + delay_s, self._count, action, arguments))

    def run_for(self, duration_s: float) -> None:
        """Let that much time pass."""
        end = self.now + duration_s
        happenings = self._happenings
        while happenings and happenings[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(happenings)
            action(*arguments)
        self.now = end
