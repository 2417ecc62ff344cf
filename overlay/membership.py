"""The member table: who is in the network, merged from what everybody says.

Rules kept here:
- `merge` takes any record, `judge` any fate; both say what changed, or that it was no news;
- a grave word about oneself is answered by a higher incarnation (refutation), unless one left;
- the digest covers live members and revocations: peers may forget a dead one at different times;
- a revoked member is out: nothing that it says, or is said of it, brings it back;
- a dead or left member is remembered for `FORGET_S`, to be re-dialled and not to be resurrected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from overlay.certificates import read_chain
from overlay.digests import Digests, part_of
from overlay.notary import Notary, Unsigned
from overlay.records import Fate, Member, Record, State
from overlay.revocation import Revocation, Revocations

# The time for which partitions heal (docs: 24 h); afterwards only seeds find the other half.
FORGET_S = 24 * 3600.0
# No life gets here by counting, and what is higher is believed of nobody: a lie must leave room to
# rise above it. A fate is below, so that there is a record above every fate.
MAX_HEARD_INCARNATION = 2**52


class Change(NamedTuple):
    """What a merge did: `record` and `state` are now in the table, `before` (None: a stranger)
    was the state."""

    record: Record
    state: State
    before: State | None

    @property
    def is_live(self) -> bool:
        """Whether the member is now alive or suspect."""
        return self.state in _LIVE

    @property
    def appeared(self) -> bool:
        """A live member that was none before."""
        return self.state in _LIVE and self.before not in _LIVE

    @property
    def vanished(self) -> bool:
        """A member that was live before and is none now."""
        return self.state not in _LIVE and self.before in _LIVE


_LIVE = (State.ALIVE, State.SUSPECT)


class Membership:
    """All records by peer id, this peer's own among them, and the fates of those not alive."""

    def __init__(self, me: Record, *, notary: Notary | None = None) -> None:
        self._notary: Notary = notary or Unsigned(me.peer_id)
        me = self._notary.record(me)
        self._records: dict[str, Record] = {me.peer_id: me}
        self._fates: dict[str, Fate] = {}
        self._since: dict[str, float] = {}  # when those who are gone went
        self._forgotten: dict[str, tuple[int, float]] = {}
        self._digests = Digests()
        self._shared = False
        self._revocations = Revocations()
        self.version = 0  # grows with every change
        self._toggle(me)
        self.my_id = me.peer_id

    def fork(self, my_id: str) -> Membership:
        """The same table as another of its members holds it (simulations start with it); the
        records are shared until one side changes them."""
        twin = Membership(self._records[my_id])
        twin._records, twin._fates = self._records, dict(self._fates)
        twin._since, twin._digests = dict(self._since), self._digests.fork()
        twin._revocations = Revocations(self._revocations.by_peer.values())
        twin._shared = self._shared = True
        return twin

    # What is asked.

    @property
    def me(self) -> Record:
        """This peer's own record."""
        return self._records[self.my_id]

    @property
    def revocations(self) -> Revocations:
        """Who is out for good; to be read only."""
        return self._revocations

    @property
    def has_left(self) -> bool:
        """Whether this peer said goodbye, or was revoked."""
        return self.my_id in self._fates

    @property
    def digest(self) -> int:
        """64 bits that are equal when two peers hold the same live members."""
        return self._digests.whole

    @property
    def digests(self) -> tuple[int, ...]:
        """The same for each of the BUCKETS parts of the table."""
        return self._digests.parts

    @property
    def known(self) -> Container[str]:
        """The ids of all members ever heard of and not forgotten."""
        return self._records

    @property
    def gone(self) -> Container[str]:
        """The ids of those who died or left."""
        return self._since

    @property
    def fates(self) -> Mapping[str, Fate]:
        """What befell those who are not alive."""
        return self._fates

    @property
    def live_count(self) -> int:
        """How many members are alive or suspect, this peer included."""
        return len(self._records) - len(self._since)

    def get(self, peer: str) -> Record | None:
        """What a peer says of itself, or None for a stranger."""
        return self._records.get(peer)

    def fate(self, peer: str) -> Fate | None:
        """What befell a peer; None for one that is alive, or a stranger."""
        return self._fates.get(peer)

    def state(self, peer: str) -> State | None:
        """How a peer is believed to be; None for a stranger."""
        fate = self._fates.get(peer)
        if fate is not None:
            return fate.state
        return State.ALIVE if peer in self._records else None

    def is_live(self, peer: str) -> bool:
        """Whether a peer is a live member."""
        return peer in self._records and peer not in self._since

    def live_record(self, peer: str) -> Record | None:
        """The record of a live member, None for everybody else."""
        return None if peer in self._since else self._records.get(peer)

    def records(self) -> list[Record]:
        """Every record, in the order of the peer ids."""
        return [self._records[peer] for peer in sorted(self._records)]

    def members(self) -> list[Member]:
        """Every row, in the order of the peer ids."""
        return [Member(record, self._state_of(record.peer_id)) for record in self.records()]

    def live(self) -> list[Record]:
        """The alive and suspect members, this peer included, in the order of the peer ids."""
        return [record for record in self.records() if record.peer_id not in self._since]

    def live_ids(self) -> Iterator[str]:
        """The same as ids, in no particular (but a fixed) order."""
        return (peer for peer in self._records if peer not in self._since)

    def dead(self) -> list[str]:
        """The ids of the dead (not the left) members, oldest verdict first."""
        return [peer for peer in self._since if self._fates[peer].state is State.DEAD]

    def holder(self, address: str) -> str | None:
        """The live member that says it listens at an address."""
        return next((p for p in self.live_ids() if address in self._records[p].addresses), None)

    def differing(self, theirs: Sequence[int]) -> list[int]:
        """The parts of the table in which another peer's digests differ from mine."""
        return [part for part, digest in enumerate(self.digests) if digest != theirs[part]]

    def parts(self, numbers: Iterable[int]) -> list[Member]:
        """The rows of some parts of the table, in the order of the peer ids."""
        wanted = set(numbers)
        mine = sorted(peer for peer in self._records if part_of(peer) in wanted)
        return [Member(self._records[peer], self._state_of(peer)) for peer in mine]

    # What is told.

    def would_learn(self, record: Record) -> bool:
        """Whether a record may be news to this table (its owner's word about this peer is)."""
        held = self._records.get(record.peer_id)
        if record.peer_id in self._revocations:
            return self._is_unjust(record)
        if record.peer_id == self.my_id:
            return held != record
        return held is None or record.incarnation > held.incarnation

    def merge(self, record: Record, now: float) -> Change | None:
        """Take in a record; None when it is no news."""
        peer = record.peer_id
        held = self._records.get(peer)
        if held is record:
            return None
        back: Change | None = None
        if peer in self._revocations:
            if not self._is_unjust(record):
                return None
            back = self._take_back(peer)
        if peer == self.my_id:
            return self._rise_above(record.incarnation) if self._is_doubted(record) else back
        if held is not None and record.incarnation <= held.incarnation:
            return back
        if record.incarnation > MAX_HEARD_INCARNATION:
            return back
        if held is None and self._is_forgotten(record):
            return None
        before = back.before if back else None if held is None else self._state_of(peer)
        if held is not None and peer not in self._since:
            self._toggle(held)
        self._own_records()[peer] = record
        fate = self._fates.get(peer)
        if fate is not None and fate.incarnation < record.incarnation:
            del self._fates[peer]
            self._since.pop(peer, None)
        if peer not in self._since:
            self._toggle(record)
        return Change(record, self._state_of(peer), before)

    def judge(self, fate: Fate, now: float) -> Change | None:
        """Take in what befell somebody; None when it is no news, or about a stranger."""
        peer = fate.peer_id
        record = self._records.get(peer)
        if record is None or not record.incarnation <= fate.incarnation < MAX_HEARD_INCARNATION:
            return None
        if fate.state is State.REVOKED or peer in self._revocations:
            return None  # for `revoke` alone to say
        if peer == self.my_id:
            return None if self.has_left else self._rise_above(fate.incarnation)
        held = self._fates.get(peer)
        if not fate.graver_than(held):
            return None
        self._fates[peer] = fate
        self.version += 1
        before = State.ALIVE if held is None else held.state
        if not fate.is_live:
            if self._since.pop(peer, None) is None:
                self._toggle(record)
            self._since[peer] = now  # at the end: `forget` reads them in order
        elif peer in self._since:  # doubted in a life that came after its death: it returned
            del self._since[peer]
            self._toggle(record)
        return Change(record, fate.state, before)

    def judge_many(self, fates: Iterable[Fate], now: float) -> list[Change]:
        """`judge` for a page of fates. What there are thousands of when half a network dies, the
        plain death of somebody who was alive until now, takes the short way."""
        records, held, since, changes = self._records, self._fates, self._since, []
        for fate in fates:
            peer, incarnation, state, _ = fate
            record = records.get(peer)
            if (
                record is not None
                and record.incarnation == incarnation
                and state is State.DEAD
                and peer not in held
                and peer != self.my_id
                and peer not in self._revocations
            ):
                held[peer], since[peer] = fate, now
                self.version += 1
                self._toggle(record)
                changes.append(Change(record, State.DEAD, State.ALIVE))
            elif (change := self.judge(fate, now)) is not None:
                changes.append(change)
        return changes

    def revoke(self, revocation: Revocation, now: float) -> list[Change]:
        """Somebody is out for good; with an issuer, what it said of others is void: those come
        back. Nothing when it is no news, or nobody known here is concerned."""
        peer = revocation.peer_id
        record, held = self._records.get(peer), self._revocations.by_peer.get(peer)
        if not self._revocations.add(revocation):
            return []
        if record is not None and self._is_unjust(record):
            self._revocations.discard(peer)
            return []
        self.version += 1
        back = [self._take_back(void.peer_id) for void in self._revocations.said_by(peer)]
        changes = [change for change in back if change is not None]
        self._digests.toggle_revoked(peer, revocation.weight)
        if held is not None:
            self._digests.toggle_revoked(peer, held.weight)
        elif record is not None:
            changes.append(self._expel(record, now))
        return changes

    def _expel(self, record: Record, now: float) -> Change:
        peer = record.peer_id
        before = self._state_of(peer)
        if self._since.pop(peer, None) is None:
            self._toggle(record)
        self._fates[peer] = Fate(peer, record.incarnation, State.REVOKED)
        self._since[peer] = now
        return Change(record, State.REVOKED, before)

    def update_me(self, **changes: Any) -> Change:
        """Change one's own record, under the next incarnation."""
        return self._renew(self.me.incarnation + 1, **changes)

    def leave(self, now: float) -> Fate:
        """This peer goes; what it says of itself in parting."""
        incarnation = self.me.incarnation
        fate = Fate(self.my_id, incarnation, State.LEFT, self._notary.goodbye(incarnation))
        self._fates[self.my_id] = fate
        self._since[self.my_id] = now
        self._toggle(self.me)
        return fate

    def forget(self, now: float) -> list[str]:
        """Drop dead and left members after FORGET_S; the ids that were dropped."""
        old = []
        for peer, since in self._since.items():  # in the order of their going
            if now - since <= FORGET_S:
                break
            if peer != self.my_id:
                old.append(peer)
        for peer in old:
            last = max(self._records[peer].incarnation, self._fates[peer].incarnation)
            self._forgotten[peer] = (last, now + FORGET_S)
            del self._own_records()[peer], self._fates[peer], self._since[peer]
        if self._forgotten:
            self._forgotten = {p: entry for p, entry in self._forgotten.items() if entry[1] > now}
        return old

    def _state_of(self, peer: str) -> State:
        fate = self._fates.get(peer)
        return State.ALIVE if fate is None else fate.state

    def _is_forgotten(self, record: Record) -> bool:
        """Whether this is what was forgotten here: others forget later and still speak of it."""
        incarnation, _ = self._forgotten.get(record.peer_id, (-1, 0.0))
        return record.incarnation <= incarnation

    def _is_doubted(self, record: Record) -> bool:
        """Whether others hold a record of me that I did not write in this life, or a later one."""
        mine = self.me
        return record != mine and record.incarnation >= mine.incarnation and not self.has_left

    def _rise_above(self, incarnation: int) -> Change | None:
        """Somebody doubts me, or remembers an older life of mine: rise above both."""
        return self._renew(incarnation + 1) if incarnation < MAX_HEARD_INCARNATION else None

    def _renew(self, incarnation: int, **changes: Any) -> Change:
        self._toggle(self.me)
        changed = dataclasses.replace(self.me, incarnation=incarnation, **changes)
        me = self._notary.record(changed)
        self._own_records()[self.my_id] = me
        self._toggle(me)
        return Change(me, State.ALIVE, State.ALIVE)

    def _own_records(self) -> dict[str, Record]:
        """The records, to be changed."""
        self.version += 1
        if self._shared:
            self._records, self._shared = dict(self._records), False
        return self._records

    def _toggle(self, record: Record) -> None:
        """Put a live member into the digests, or take it out."""
        self._digests.toggle(record.peer_id, record.incarnation)

    def _is_unjust(self, record: Record) -> bool:
        """Whether what was said to put somebody out did not count: seen with their certificate."""
        return bool(record.chain) and not self._revocations.counts(read_chain(record.chain))

    def _take_back(self, peer: str) -> Change | None:
        """Nobody who may says any more that a member is out: it is as alive as it was."""
        self._digests.toggle_revoked(peer, self._revocations.by_peer[peer].weight)
        self._revocations.discard(peer)
        self.version += 1
        self._forgotten.pop(peer, None)
        if self._since.pop(peer, None) is None:
            return None
        del self._fates[peer]
        record = self._records[peer]
        self._toggle(record)
        return Change(record, State.ALIVE, State.REVOKED)
