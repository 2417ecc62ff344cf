"""The member table on disk, so that a restarted daemon finds its network by itself.

Rules kept here:
- only what changed is written: an idle daemon does not touch the disk;
- a full disk costs nothing but the newest changes, which are written when there is room again;
- a row that cannot be read is left out, never fatal.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from daemon.store import Store, StoreFailed
from overlay.membership import Membership
from overlay.records import Member, Record, State

log = logging.getLogger("gossipd")


class MemberKeeper:
    """Keeps one member table in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved: dict[str, Member] = {}
        self._words: dict[str, str] = {}
        self._version = (-1, "")  # the table's, and the network, when all was written last

    def remembered(self) -> list[Member]:
        """The other members of the last life."""
        members = []
        for row in self._store.members():
            try:
                addresses, state = tuple(row.pop("addresses")), State(row.pop("state"))
                members.append(Member(Record(addresses=addresses, **row), state))
            except (KeyError, TypeError, ValueError) as error:
                log.warning("a remembered member cannot be read: %s", error)
        self._saved = {member.record.peer_id: member for member in members}
        return members

    async def save(self, table: Membership, network_id: str) -> None:
        """Write what changed since the last call."""
        if (table.version, network_id) == self._version:
            return
        version = table.version
        now = {m.record.peer_id: m for m in table.members() if m.record.peer_id != table.my_id}
        changed = [
            (peer, _row(member)) for peer, member in now.items() if self._saved.get(peer) != member
        ]
        gone = [peer for peer in self._saved if peer not in now]
        words = {"incarnation": str(table.me.incarnation), "network": network_id}
        try:
            if words != self._words:
                await self._store.in_thread(self._store.put, words)
                self._words = words
            if changed or gone:
                await self._store.in_thread(self._store.put_members, changed, gone)
                self._saved = now
            self._version = (version, network_id)
        except StoreFailed as error:
            log.warning("the member table is not saved: %s", error)


def _row(member: Member) -> dict[str, Any]:
    """A member as plain JSON values."""
    return {
        **dataclasses.asdict(member.record),
        "addresses": list(member.record.addresses),
        "state": str(member.state),
    }
