"""Evidence under way through this peer: each piece is passed on once, and soon forgotten.

Observers testify to each other through the whole overlay, for they are neighbours of the member
and not of each other. Most peers on the way judge nothing; they remember just enough not to pass a
testimony on twice.

Rules kept here:
- a piece is known for one to two generations (`rotate`), longer than a flood takes, so that made-up
  testimony about healthy members leaves no trace;
- what is said about the members that this peer observes is kept by subject, to be counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.wire import Evidence


class Rumours:
    """What was testified of late."""

    def __init__(self) -> None:
        self._young: set[Evidence] = set()
        self._old: set[Evidence] = set()
        self._doubted: set[str] = set()
        self._doubted_before: set[str] = set()
        self._about: dict[str, dict[str, Evidence]] = {}
        self._about_before: dict[str, dict[str, Evidence]] = {}

    def __bool__(self) -> bool:
        return bool(self._doubted or self._doubted_before)

    def fresh(self, testimonies: Iterable[Evidence]) -> list[Evidence]:
        """Those that were not heard before."""
        young, old = self._young, self._old
        return [e for e in testimonies if e not in young and e not in old]

    def add(self, fresh: Iterable[Evidence]) -> None:
        """These were heard now."""
        self._young.update(fresh)
        self._doubted.update([evidence.subject for evidence in fresh])

    def keep(self, evidence: Evidence) -> None:
        """A testimony to be counted; the strongest of each observer is."""
        held = self._about.setdefault(evidence.subject, {})
        other = held.get(evidence.observer)
        if other is None or (evidence.incarnation, evidence.hard) > (other.incarnation, other.hard):
            held[evidence.observer] = evidence

    def about(self, subject: str) -> list[Evidence]:
        """Every testimony kept about a member."""
        kept = (self._about_before.get(subject, {}), self._about.get(subject, {}))
        return [evidence for by_observer in kept for evidence in by_observer.values()]

    def is_doubted(self, peer: str) -> bool:
        """Whether anybody testified against a member of late."""
        return peer in self._doubted or peer in self._doubted_before

    def settle(self, subjects: list[str]) -> None:
        """These members are dead, or have refuted: no doubt is left."""
        self._doubted.difference_update(subjects)
        self._doubted_before.difference_update(subjects)
        for about in (self._about, self._about_before):
            for subject in about.keys() & subjects:
                del about[subject]

    def rotate(self) -> None:
        """A generation ends: forget what is older than two."""
        self._old, self._young = self._young, set()
        self._doubted_before, self._doubted = self._doubted, set()
        self._about_before, self._about = self._about, {}
