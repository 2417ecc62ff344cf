"""Tables that stay different are compared part by part: what to ask, to answer and to take over.

News that somebody misses (a link broke, a cut healed) is not told again. The digests in heartbeats
give that away (`links`); then one end asks with the digests of all parts of its table, and the
other sends what it holds in those that differ.

Rules kept here:
- one request a trip: the answer usually mends what differs on the other links too;
- those who know next to nobody are sent everything, the dead included: they must be able to re-dial
  them, and the others hold their addresses already;
- what somebody who is gone cannot prove (a goodbye whose word was not kept) is told to nobody;
- those who are strangers here and gone there are just remembered: they are no news to anybody.

Pure: time is an argument. What the fates in a page are worth, others decide (`hearsay`).

Source: anti-entropy as in Demers et al., PODC 1987, section 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from overlay.digests import BUCKETS, part_of
from overlay.knowledge import Knowledge
from overlay.membership import Membership
from overlay.news import pages, revocation_pages
from overlay.profile import Profile
from overlay.wire import Revoked, SyncPage, SyncRequest


class AntiEntropy:
    """One peer's part in making all tables equal."""

    def __init__(self, known: Knowledge, profile: Profile) -> None:
        self._known = known
        self._trip_s = profile.trip_s
        self._asked_at = -math.inf

    def ask(self, now: float) -> SyncRequest | None:
        """What to ask whoever holds another table; None if somebody was asked just now."""
        if now - self._asked_at < self._trip_s:
            return None
        self._asked_at = now
        return SyncRequest(self._known.table.digests)

    def answer(self, request: SyncRequest) -> list[Revoked | SyncPage]:
        """What this table holds in the parts that differ; revocations come first."""
        table = self._known.table
        is_newcomer = request.digests.count(0) > BUCKETS // 2
        parts = range(BUCKETS) if is_newcomer else table.differing(request.digests)
        return [*_revocations(table, parts), *_rows(table, parts, with_gone=is_newcomer)]

    def learn(self, page: SyncPage, source: str, now: float) -> None:
        """Take over the records that another holds, in the light of the fates beside them."""
        fates = {fate.peer_id: fate for fate in page.fates}
        for record in page.records:
            fate = fates.get(record.peer_id)
            if fate is None or fate.is_live or fate.incarnation < record.incarnation:
                continue
            if self._known.table.get(record.peer_id) is None:
                self._known.recall(record, fate, now)
        for record in page.records:
            self._known.learn(record, source, now)


def _revocations(table: Membership, parts: Iterable[int]) -> list[Revoked]:
    wanted, revoked = set(parts), table.revocations.by_peer.items()
    return revocation_pages(out for peer, out in revoked if part_of(peer) in wanted)


def _rows(table: Membership, parts: Iterable[int], *, with_gone: bool) -> list[SyncPage]:
    rows = [(member, table.fate(member.record.peer_id)) for member in table.parts(parts)]
    told = [(member, fate) for member, fate in rows if fate is None or fate.can_be_told]
    records = [member.record for member, _ in told if member.is_live or with_gone]
    fates = [fate for _, fate in told if fate is not None]
    return [SyncPage(page.records, page.fates) for page in pages(records, fates)]
