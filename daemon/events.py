"""Events: numbered, kept for a while, and handed to whoever listens.

Rules kept here:
- numbers only grow, by one, for the life of the process;
- the newest KEPT events of each kind are kept, so that a thousand rounds do not push out the one
  crash among them;
- a subscriber that does not keep up loses events, and is told how many by a `gap` in its stream;
  nobody is ever waited for.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio

KEPT = 500
# Overflow rule: beyond this many waiting events a subscriber's oldest news is dropped as a gap.
SUBSCRIBER_BUFFER = 256


@dataclass(frozen=True, slots=True)
class Event:
    """`seq` numbers the process's events from 1; `at` is Unix time in seconds."""

    seq: int
    at: float
    kind: str
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it is shown by the control API."""
        return {"seq": self.seq, "at": self.at, "kind": self.kind, "data": self.data}


class Subscription:
    """One listener's stream."""

    def __init__(self, matches: Callable[[str], bool]) -> None:
        self._matches = matches
        self._send, self._receive = trio.open_memory_channel[Event](SUBSCRIBER_BUFFER)
        self._lost = 0
        self._last: Event | None = None

    def offer(self, event: Event) -> None:
        """Queue an event if it is wanted and there is room."""
        if not self._matches(event.kind):
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._lost += 1

    def __aiter__(self) -> Subscription:
        """Events as they come; an event of kind `gap` says how many were lost before it."""
        return self

    async def __anext__(self) -> Event:
        if self._lost and self._last and self._receive.statistics().current_buffer_used == 0:
            lost, self._lost = self._lost, 0
            return Event(self._last.seq, self._last.at, "gap", {"lost": lost})
        self._last = await self._receive.receive()
        return self._last


class EventLog:
    """All events of this process, newest last."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: dict[str, deque[Event]] = {}
        self._subscriptions: set[Subscription] = set()
        self._seq = 0

    def add(self, kind: str, data: dict[str, Any] | None = None) -> Event:
        """Record an event and hand it to the subscribers."""
        self._seq += 1
        event = Event(self._seq, self._clock(), kind, _finite(data or {}))
        self._events.setdefault(kind, deque(maxlen=KEPT)).append(event)
        for subscription in self._subscriptions:
            subscription.offer(event)
        return event

    def since(self, seq: int, *, prefix: str = "", limit: int = 1000) -> list[Event]:
        """The kept events numbered above `seq`, the newest `limit` of them."""
        kinds = (events for kind, events in self._events.items() if kind.startswith(prefix))
        found = sorted((e for events in kinds for e in events if e.seq > seq), key=_number)
        return found[-limit:] if limit else []

    @contextmanager
    def subscribe(self, prefix: str = "") -> Iterator[Subscription]:
        """A stream of the events whose kind begins with `prefix`, until the block ends."""
        subscription = Subscription(lambda kind: kind.startswith(prefix))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)


def _number(event: Event) -> int:
    return event.seq


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity: they become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in data.items()
    }
