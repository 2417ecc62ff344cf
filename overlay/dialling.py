"""When to dial whom: missing neighbours, seeds of a lonely peer, and the dead now and then.

Rules kept here:
- one dial a target at a time; failures back off exponentially with jitter;
- of a pair the lower id dials at once and the higher after a courtesy, which spares double links
  and still joins a pair of which only one side can dial out; a lost link is re-dialled at once,
  one that broke as soon as it was up after a wait;
- the first dial after a lost link gives up soon and is repeated at once, for a process that is
  being killed may still take a connection;
- seeds are dialled while there is no link at all, and once whenever somebody asks;
- one dead member is tried every `heal_s`: without this, partitions do not heal;
- members for whom this peer is to look are dialled one after the other: a liar who calls everybody
  dead costs a few dials a second.

Pure: time is an argument, randomness is injected.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from overlay.effects import Dial
from overlay.membership import Membership
from overlay.profile import Profile

# Those that are not there take a dial's time each.
LOOKS_AT_ONCE = 8


@dataclass(slots=True)
class _Attempt:
    at: float
    wait_s: float
    asked: bool = False  # a seed that somebody asked for and that was not tried yet
    again: bool = False  # a seed that may still be without the network that this peer has now
    quick: bool = False  # right after a lost link: give up soon and look again


class Dialler:
    """Open attempts and their times."""

    def __init__(self, table: Membership, profile: Profile, rng: random.Random, now: float) -> None:
        self._table = table
        self._profile = profile
        self._rng = rng
        self._attempts: dict[str, _Attempt] = {}
        self._seeds: dict[str, _Attempt] = {}
        self._in_flight: dict[str, float] = {}  # since when
        self._looks: dict[str, None] = {}  # in the order in which they were asked for
        self._looking: set[str] = set()
        self._look_at = now
        self._heal_at = now + self._jitter(profile.heal_s)

    def has_just_dialled(self, target: str, now: float) -> bool:
        """Whether a dial of `target` is under way that may still come to something soon: half of
        its time is not over. A dial into a black hole does not keep theirs out for longer."""
        since = self._in_flight.get(target)
        return since is not None and now - since < self._profile.dial_timeout_s / 2

    def wake_at(self) -> float:
        """When something will be due, at the latest."""
        at = self._heal_at
        if self._looks and len(self._looking) < LOOKS_AT_ONCE:
            at = min(at, self._look_at)
        for attempts in (self._attempts, self._seeds):
            for target, attempt in attempts.items():
                if attempt.at < at and target not in self._in_flight:
                    at = attempt.at
        return at

    def ask(self, address: str, now: float) -> None:
        """Somebody wants to join through `address`."""
        self._seeds[address] = _Attempt(now, self._profile.redial_first_s, asked=True)

    def tell_seeds(self) -> None:
        """This peer has a network now: its seeds may not, and nobody else may know them."""
        for attempt in self._seeds.values():
            attempt.again, attempt.at = True, -math.inf

    def lost(self, peer: str, now: float) -> None:
        """A link broke: no courtesy and no back-off, for the answer to this dial is evidence."""
        self._attempts[peer] = _Attempt(now, self._profile.redial_first_s, quick=True)

    def broken(self, peer: str, now: float) -> None:
        """A link ended as soon as it was up: a peer that does so each time shall not be dialled in
        a circle as fast as the network allows."""
        wait_s = self._profile.redial_first_s
        self._attempts[peer] = _Attempt(now + self._jitter(wait_s), wait_s)

    def look(self, peer: str) -> None:
        """Find out whether a member is there, once."""
        self._looks.setdefault(peer)

    def linked(self, peer: str, target: str) -> None:
        """A link to `peer` is up, by the dial of `target` or by one of the other side."""
        self._attempts.pop(peer, None)
        self._looks.pop(peer, None)
        self._land(target)

    def failed(self, target: str, now: float) -> bool:
        """A dial came to nothing: try again later, if it is still wanted then. Whether it was but
        the quick look after a lost link, which proves nothing unless it was refused."""
        self._land(target)
        attempt = self._attempts.get(target) or self._seeds.get(target)
        if attempt is None:
            return False
        if attempt.quick:
            attempt.quick, attempt.at = False, now + self._profile.flush_s
            return True
        attempt.at = now + self._jitter(attempt.wait_s)
        attempt.wait_s = min(2 * attempt.wait_s, self._profile.redial_last_s)
        return False

    def homeless(self, seed: str, now: float) -> None:
        """A seed answered and has no network yet: ask again soon, it may have one then."""
        self._land(seed)
        if (attempt := self._seeds.get(seed)) is not None:
            attempt.wait_s = self._profile.redial_first_s
            attempt.at = now + self._jitter(attempt.wait_s)

    def due(self, missing: Iterable[str], *, alone: bool, now: float) -> list[Dial]:
        """The dials to begin now; `missing` are the wanted neighbours without a link."""
        missing = {peer for peer in missing if self._addresses(peer)}
        idle = not (missing or self._attempts or self._seeds or self._looks)
        if idle and now < self._heal_at:
            return []
        for peer in self._attempts.keys() - missing - self._in_flight.keys():
            del self._attempts[peer]
        return [
            *self._due_neighbours(sorted(missing), now),
            *self._due_seeds(now, alone=alone),
            *self._due_look(now),
            *self._due_dead(now),
        ]

    def _due_neighbours(self, missing: list[str], now: float) -> list[Dial]:
        for peer in missing:
            if peer not in self._attempts:
                first = self._table.my_id < peer
                wait = 0.0 if first else self._jitter(self._profile.courtesy_s)
                self._attempts[peer] = _Attempt(now + wait, self._profile.redial_first_s)
        ready = [peer for peer in missing if now >= self._attempts[peer].at]
        return [dial for peer in ready if (dial := self._dial_member(peer, now)) is not None]

    def _due_seeds(self, now: float, *, alone: bool) -> list[Dial]:
        dials = []
        for address, attempt in self._seeds.items():
            if attempt.again and self._table.holder(address) is not None:
                attempt.again = False
            wanted = alone or attempt.asked or attempt.again
            if wanted and now >= attempt.at and address not in self._in_flight:
                attempt.asked = attempt.again = False
                self._in_flight[address] = now
                dials.append(Dial(address, (address,), self._profile.dial_timeout_s))
            elif not wanted:
                attempt.at = max(attempt.at, now + self._profile.heal_s)
        return dials

    def _due_look(self, now: float) -> list[Dial]:
        while self._looks and now >= self._look_at and len(self._looking) < LOOKS_AT_ONCE:
            peer = next(iter(self._looks))
            del self._looks[peer]
            if (dial := self._dial_member(peer, now)) is not None:
                self._looking.add(peer)
                self._look_at = now + self._profile.redial_first_s
                return [dial]
        return []

    def _land(self, target: str) -> None:
        self._in_flight.pop(target, None)
        self._looking.discard(target)

    def _due_dead(self, now: float) -> list[Dial]:
        if now < self._heal_at:
            return []
        self._heal_at = now + self._jitter(self._profile.heal_s)
        dead = self._table.dead()
        if not dead:
            return []
        peer = self._rng.choice(dead)
        # An address that a live member took over (the same machine under a new id) leads to that
        # one: a dial would only replace the link to it.
        if all(self._table.holder(address) for address in self._addresses(peer)):
            return []
        dial = self._dial_member(peer, now)
        return [dial] if dial is not None else []

    def _dial_member(self, peer: str, now: float) -> Dial | None:
        addresses = self._addresses(peer)
        if not addresses or peer in self._in_flight:
            return None
        self._in_flight[peer] = now
        attempt = self._attempts.get(peer)
        quick = attempt is not None and attempt.quick
        timeout_s = self._profile.quick_dial_s if quick else self._profile.dial_timeout_s
        return Dial(peer, addresses, timeout_s)

    def _addresses(self, peer: str) -> tuple[str, ...]:
        record = self._table.get(peer)
        return record.addresses if record is not None else ()

    def _jitter(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.5)
