"""A simulated process: a machine, its notary, its ends of links, and whether it runs.

Rule kept here: what a stopped process would do (SIGSTOP) waits for its end, in order; what a killed
one would do never happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from overlay.machine import OverlayMachine
from overlay.notary import Unsigned
from overlay.records import Vote
from overlay.simulator.sizes import SIGNATURE
from overlay.simulator.timeline import Action
from overlay.wire import LinkMessage


class Zeros(Unsigned):
    """Proves nothing, with as many bytes as a signature has."""

    def testimony(self, subject: str, incarnation: int, hard: bool) -> bytes:
        return SIGNATURE

    def goodbye(self, incarnation: int) -> tuple[Vote, ...]:
        return (Vote(self._peer_id, incarnation, True, SIGNATURE),)


@dataclass(slots=True, eq=False)
class Connection:
    """One link; each end holds it while it believes in it."""

    dialler: str
    since: float
    # When the last message of each direction arrives (to the dialler; from it): TCP keeps order.
    busy_until: list[float] = field(default_factory=lambda: [0.0, 0.0])
    # What a cut line holds back, in the order of its sending, and since when.
    held: list[Sending] = field(default_factory=list)
    held_since: float = 0.0


class Sending(NamedTuple):
    """A message on its way; `order` grows with each."""

    order: int
    sender: SimulatedPeer
    receiver: SimulatedPeer
    message: LinkMessage


@dataclass(slots=True, eq=False)
class SimulatedPeer:
    """A running (or stopped, or killed) process."""

    number: int
    id: str
    address: str
    machine: OverlayMachine
    connections: dict[str, Connection] = field(default_factory=dict)
    running: bool = True
    stopped: bool = False
    wakes_at: float = float("inf")
    _backlog: list[tuple[Action, tuple[Any, ...]]] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        """Whether the process runs now."""
        return self.running and not self.stopped

    def do(self, action: Action, *arguments: Any) -> None:
        """Act: now, after it is resumed, or never."""
        if self.stopped:
            self._backlog.append((action, arguments))
        elif self.running:
            action(*arguments)

    def resume(self) -> None:
        """Run on, with what waited."""
        self.stopped = False
        backlog, self._backlog = self._backlog, []
        for action, arguments in backlog:
            self.do(action, *arguments)
