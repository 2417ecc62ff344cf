"""How far this peer should trust its own clockwork: Lifeguard's local health, with event-loop lag.

An observer that is starved of CPU, or cut off, hears its neighbours late and would accuse them. It
notices its own state first: it was run later than it had asked for, most of its neighbours fell
silent at once, or others doubted it without cause. Each such sign makes it more patient; each calm
heartbeat less.

Source: Dadgar, Phillips & Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", DSN-W 2018, section IV-A (the multiplier; S = 8 there and in memberlist). That paper
counts missed probe answers; the lag of the event loop is the same news without a detour.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

WORST = 8
# Run this share of a heartbeat too late: a sign of overload, and time that nobody was silent in.
LAG_SHARE = 0.5


@dataclass(slots=True)
class LocalHealth:
    """`score` 0 is healthy, WORST is barely running."""

    heartbeat_s: float
    memory_s: float  # silences within this time count as one event, which is waited out as long
    score: int = 0
    hold_until: float = -math.inf  # nobody is held to be silent before
    _troubled: bool = False
    _silences: list[float] = field(default_factory=list)
    _has_held: bool = False

    @property
    def patience(self) -> int:
        """What timeouts about others are multiplied by: 1 to WORST + 1."""
        return 1 + self.score

    def is_lag(self, late_s: float) -> bool:
        """Whether being run so late is a stall of our own rather than jitter."""
        return late_s >= LAG_SHARE * self.heartbeat_s

    def lagged(self, late_s: float) -> None:
        """This peer was run `late_s` late: a point for each heartbeat it stood still, at least."""
        self._worsen(1 + int(late_s / self.heartbeat_s))

    def doubted(self) -> None:
        """Others suspected this peer, and it lives."""
        self._worsen(1)

    def is_it_me(self, links: int, now: float) -> bool:
        """One of `links` neighbours fell silent: whether that is rather this peer's own trouble,
        because most of them did (two at least). Then nobody is blamed for a while, once: if it goes
        on, they are gone indeed."""
        self._silences = [at for at in self._silences if now - at < self.memory_s]
        silent, known = len(self._silences) + 1, links + len(self._silences)
        if silent == 1:
            self._has_held = False
        if silent >= 2 and 2 * silent > known and not self._has_held:
            self._has_held, self.hold_until = True, now + self.memory_s
            self._troubled = True
            return True
        self._silences.append(now)
        return False

    def beat(self) -> None:
        """A heartbeat interval passed: a calm one heals a point."""
        if not self._troubled:
            self.score = max(0, self.score - 1)
        self._troubled = False

    def _worsen(self, points: int) -> None:
        self.score = min(WORST, self.score + points)
        self._troubled = True
