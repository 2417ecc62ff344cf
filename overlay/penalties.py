"""Who broke a limit, and for how long nobody here wants to hear of it.

Rules kept here:
- the first breach costs a second, each further one twice as long as the one before, up to five
  minutes; breaches during a penalty cost nothing more;
- ten quiet minutes after a penalty's end, it is forgotten;
- the table is bounded; whoever's penalty ends first makes room.

A key is a peer id, or an address of those who have not said who they are. The address of a
neighbour is none: a whole organisation may share it.

Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PenaltySettings:
    """`first_s`: about what it takes to cut a flood's link and dial anew, so that a flood gets
    half of the time at the most. `longest_s`: an operator who has mended a peer waits no longer;
    a flood that goes on gets half a second in five minutes. `forgotten_s`: twice the longest, so
    that sitting out a penalty is not the end of it. `entries`: 100 bytes each."""

    first_s: float = 1.0
    longest_s: float = 300.0
    forgotten_s: float = 600.0
    entries: int = 4096


@dataclass(frozen=True, slots=True)
class _Penalty:
    until: float
    length_s: float


class Penalties:
    """The penalties in force, and those that still count."""

    def __init__(self, settings: PenaltySettings) -> None:
        self._settings = settings
        self._penalties: dict[str, _Penalty] = {}

    def punish(self, key: str, now: float) -> float:
        """A limit was broken; for how many seconds from now nothing is taken from `key`."""
        before = self._penalties.get(key)
        if before is not None and now < before.until:
            return before.until - now
        length_s = self._settings.first_s
        if before is not None and not self._is_forgotten(before, now):
            length_s = min(2 * before.length_s, self._settings.longest_s)
        self._penalties.pop(key, None)
        self._make_room(now)
        self._penalties[key] = _Penalty(now + length_s, length_s)
        return length_s

    def remaining_s(self, key: str, now: float) -> float:
        """For how many seconds `key` is still refused; 0 if it is welcome."""
        penalty = self._penalties.get(key)
        return max(0.0, penalty.until - now) if penalty is not None else 0.0

    def __len__(self) -> int:
        return len(self._penalties)

    def _is_forgotten(self, penalty: _Penalty, now: float) -> bool:
        return now - penalty.until >= self._settings.forgotten_s

    def _make_room(self, now: float) -> None:
        if len(self._penalties) < self._settings.entries:
            return
        kept = {k: p for k, p in self._penalties.items() if not self._is_forgotten(p, now)}
        if len(kept) >= self._settings.entries:
            del kept[min(kept, key=lambda key: kept[key].until)]
        self._penalties = kept
