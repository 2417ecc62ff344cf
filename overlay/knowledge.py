"""What this peer knows: the member table, the graphs that follow from it, and what is to be told.

Rules kept here:
- whatever is news changes the table, moves the graphs, waits in the outbox for the neighbours and
  is reported to people, in this one place;
- a word about oneself is answered, never believed.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from overlay.effects import Report
from overlay.membership import Change, Membership
from overlay.neighbourhood import Neighbourhood
from overlay.news import Outbox
from overlay.profile import Profile
from overlay.records import Fate, Member, Record, State
from overlay.revocation import Revocation

Listener = Callable[[list[Change], float], None]


class Knowledge:
    """Table, graphs and outbox, moved together."""

    def __init__(self, table: Membership, graph: Neighbourhood, profile: Profile) -> None:
        self.table = table
        self.graph = graph
        self.outbox = Outbox(profile.flush_s)
        self.reports: list[Report] = []
        self._tell: Listener = lambda changes, now: None
        self._doubted = False

    def listen(self, tell: Listener) -> None:
        """`tell(changes, now)` is called with each change of the table, several at a time."""
        self._tell = tell

    def remember(self, members: Iterable[Member], now: float) -> None:
        """Take in the member table of an earlier life, without telling anybody.

        A doubt of then has no case now that would settle it: whoever was suspect starts as alive.
        Who was revoked is not taken in: that is for the revocations to say.
        """
        for member in members:
            if member.state is State.REVOKED:
                continue
            record, state = member.record, member.state
            gone = Fate(record.peer_id, record.incarnation, state) if not member.is_live else None
            self.recall(record, gone, now)

    def recall(self, record: Record, gone: Fate | None, now: float) -> None:
        """The same of one member, whose fate (if it is gone) is known with its votes."""
        changes = [self.table.merge(record, now)]
        if gone is not None:
            changes.append(self.table.judge(gone, now))
        self.graph.follow([change for change in changes if change is not None])

    def learn(self, record: Record, source: str, now: float) -> None:
        """A member says something of itself; `source` is the link that told ('': nobody)."""
        change = self.table.merge(record, now)
        if change is not None:
            self._take(change, source, now)

    def judge(self, fates: Iterable[Fate], source: str, now: float) -> None:
        """These things befell members."""
        changes = self.table.judge_many(fates, now)
        me = self.table.my_id
        mine = [change for change in changes if change.record.peer_id == me]
        others = [c for c in changes if c.record.peer_id != me] if mine else changes
        if mine:  # each was outlived; the last word is above them all
            self._doubted = True
            self._take(mine[-1], "", now)
        self.outbox.add_fates([self.table.fates[c.record.peer_id] for c in others], source)
        self._follow(others, now)

    def take_doubted(self) -> bool:
        """Whether others said grave things of this peer since the last question."""
        doubted, self._doubted = self._doubted, False
        return doubted

    def describe_me(self, now: float, **changes: Any) -> None:
        """Change one's own record, and tell everybody."""
        self._take(self.table.update_me(**changes), "", now)

    def revoke(self, revocation: Revocation, source: str, now: float) -> bool:
        """Somebody is out for good; whether that is news."""
        if not self.table.revocations.is_news(revocation):
            return False  # told on, it would come back for ever
        changes = self.table.revoke(revocation, now)
        if revocation.peer_id not in self.table.revocations:
            return False  # it does not count
        self.outbox.add_revocation(revocation, source)
        self._follow(changes, now)
        me = self.table.my_id
        if revocation.peer_id == me:
            self.report("network.revoked", me, reason=revocation.reason)
        elif any(change.record.peer_id == me for change in changes):
            self.report("network.reinstated", me)
        return True

    def leave(self, now: float) -> None:
        """Say goodbye for oneself."""
        self.outbox.add_fates([self.table.leave(now)], "")
        self.report("member.left", self.table.my_id)

    def forget(self, now: float) -> None:
        """Let go of those who went a day ago."""
        for peer in self.table.forget(now):
            self.graph.forget(peer)

    def report(self, kind: str, peer: str, **data: Any) -> None:
        """Something people and scripts want to know about a member."""
        record = self.table.get(peer)
        about = {"peer": peer, "name": record.name} if record is not None else {}
        self.reports.append(Report(kind, {**about, **data}))

    def _take(self, change: Change, source: str, now: float) -> None:
        # A refutation of one's own is news to everybody, also to whom it answers.
        mine = change.record.peer_id == self.table.my_id
        self.outbox.add_record(change.record, "" if mine else source)
        self._follow([change], now)

    def _follow(self, changes: list[Change], now: float) -> None:
        self.graph.follow(changes)
        self._tell(changes, now)
        for change in changes:
            record, state, before = change
            if state is before or record.peer_id == self.table.my_id:
                continue
            if before is None:
                kind = "member.joined"
            elif state is State.ALIVE and change.appeared:
                kind = "member.returned"
            else:
                kind = _KINDS[state]
            self.reports.append(Report(kind, {"peer": record.peer_id, "name": record.name}))


_KINDS = {
    State.ALIVE: "member.refuted",
    State.SUSPECT: "member.suspect",
    State.DEAD: "member.dead",
    State.LEFT: "member.left",
    State.REVOKED: "member.revoked",
}
