"""The member table: who is in the network, merged from what everybody says.

Rules kept here:
- `merge` takes any record and says what it changed, or that it was no news;
- a grave word about oneself is answered by a higher incarnation (refutation), unless one left;
- the digest covers live members only: peers may forget a dead one at different times;
- a dead or left member is remembered for `FORGET_S`, to be re-dialled and not to be resurrected.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from overlay.records import Record, State, supersedes

# The time for which partitions heal (docs: 24 h); afterwards only seeds find the other half.
FORGET_S = 24 * 3600.0
# No life gets here by counting: a higher word about oneself is a lie that would leave no room to
# rise above it.
MAX_HEARD_INCARNATION = 2**52


@dataclass(frozen=True, slots=True)
class Change:
    """What a merge did: `record` is now in the table, `before` (None: a stranger) was."""

    record: Record
    before: Record | None

    @property
    def appeared(self) -> bool:
        """A live member that was none before."""
        return self.record.is_live and (self.before is None or not self.before.is_live)

    @property
    def vanished(self) -> bool:
        """A member that was live before and is none now."""
        return not self.record.is_live and self.before is not None and self.before.is_live


class Membership:
    """All records by peer id, this peer's own among them."""

    def __init__(self, me: Record) -> None:
        self._records: dict[str, Record] = {me.peer_id: me}
        self._since: dict[str, float] = {}
        self._forgotten: dict[str, tuple[int, float]] = {}
        self._digest = _fingerprint(me)
        self.my_id = me.peer_id

    @property
    def me(self) -> Record:
        """This peer's own record."""
        return self._records[self.my_id]

    @property
    def digest(self) -> int:
        """64 bits that are equal when two peers hold the same live members."""
        return self._digest

    def get(self, peer: str) -> Record | None:
        """The record of a peer, or None for a stranger."""
        return self._records.get(peer)

    def records(self) -> list[Record]:
        """Every record, in the order of the peer ids."""
        return [self._records[peer] for peer in sorted(self._records)]

    def live(self) -> list[Record]:
        """The alive and suspect members, this peer included."""
        return [record for record in self.records() if record.is_live]

    def dead(self) -> list[Record]:
        """The dead (not the left) members, oldest verdict last."""
        dead = [r for r in self.records() if r.state is State.DEAD]
        return sorted(dead, key=lambda record: -self._since.get(record.peer_id, 0.0))

    def merge(self, record: Record, now: float) -> Change | None:
        """Take in a record; None when it is no news."""
        if record.peer_id == self.my_id:
            return self._hear_about_me(record, now)
        before = self._records.get(record.peer_id)
        if before is not None and not supersedes(record, before):
            return None
        if before is None and not record.is_live and self._is_forgotten(record):
            return None
        return self._store(record, before, now)

    def update_me(self, now: float, **changes: Any) -> Change:
        """Change one's own record, under the next incarnation."""
        before = self.me
        incarnation = before.incarnation + 1
        after = dataclasses.replace(before, incarnation=incarnation, **changes)
        return self._store(after, before, now)

    def forget(self, now: float) -> list[str]:
        """Drop dead and left members after FORGET_S; the ids that were dropped."""
        old = [
            peer
            for peer, record in self._records.items()
            if not record.is_live and peer != self.my_id and now - self._since[peer] > FORGET_S
        ]
        for peer in old:
            self._forgotten[peer] = (self._records[peer].incarnation, now + FORGET_S)
            del self._records[peer], self._since[peer]
        self._forgotten = {p: entry for p, entry in self._forgotten.items() if entry[1] > now}
        return old

    def _is_forgotten(self, record: Record) -> bool:
        """Whether this is what was forgotten here: others forget later and still speak of it."""
        incarnation, _ = self._forgotten.get(record.peer_id, (-1, 0.0))
        return record.incarnation <= incarnation

    def _hear_about_me(self, record: Record, now: float) -> Change | None:
        mine = self.me
        if mine.state is State.LEFT or not supersedes(record, mine):
            return None
        if record.incarnation > MAX_HEARD_INCARNATION:
            return None
        # Either somebody doubts me or an older life of mine is remembered: rise above both.
        after = dataclasses.replace(mine, incarnation=record.incarnation + 1)
        return self._store(after, mine, now)

    def _store(self, record: Record, before: Record | None, now: float) -> Change:
        if before is not None:
            self._digest ^= _fingerprint(before)
        self._digest ^= _fingerprint(record)
        self._records[record.peer_id] = record
        self._since[record.peer_id] = now
        return Change(record, before)


def _fingerprint(record: Record) -> int:
    if not record.is_live:
        return 0
    word = f"{record.peer_id}/{record.incarnation}".encode()
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest())
