"""The member table on disk, so that a restarted daemon finds its network by itself.

Rules kept here:
- only what changed is written: an idle daemon does not touch the disk;
- a full disk costs nothing but the newest changes, which are written when there is room again;
- a row that cannot be read is left out, never fatal.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

from daemon.store import Store, StoreFailed
from overlay.codec import WireError
from overlay.membership import Membership
from overlay.notary import Forged, Notary
from overlay.records import Member, Record, State
from overlay.revocation import Revocation
from overlay.wire import CONTROL, Revoked

log = logging.getLogger("gossipd")


class MemberKeeper:
    """Keeps one member table in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved: dict[str, Member] = {}
        self._revoked: dict[str, Revocation] = {}
        self._words: dict[str, str] = {}
        self._version = (-1, "")  # the table's, and the network, when all was written last

    def revoked(self) -> list[Revocation]:
        """Who is out, as far as the last life knew."""
        found = []
        for data in self._store.revocations():
            try:
                found += CONTROL.decode(data).revocations
            except (WireError, AttributeError) as error:
                log.warning("a remembered revocation cannot be read: %s", error)
        self._revoked = {revocation.peer_id: revocation for revocation in found}
        return found

    async def remember_revocations(
        self, revocations: Iterable[Revocation], void: Iterable[str] = ()
    ) -> None:
        """Write some down (before they are told), and let go of those of the peers in `void`: all
        of it or nothing. Raises StoreFailed."""
        told, void = list(revocations), list(void)
        rows = [(r.peer_id, CONTROL.encode(Revoked((r,)))) for r in told]
        await self._store.in_thread(self._store.put_revocations, rows, void)
        for peer in void:
            self._revoked.pop(peer, None)
        self._revoked.update({r.peer_id: r for r in told})

    def remembered(self, notary: Notary | None) -> list[Member]:
        """The other members of the last life, as far as `notary` believes their records still."""
        members = []
        for row in self._store.members():
            try:
                members.append(_member(row))
            except (KeyError, TypeError, ValueError) as error:
                log.warning("a remembered member cannot be read: %s", error)
        self._saved = {member.record.peer_id: member for member in members}
        return [m for m in members if notary is None or _is_believed(m.record, notary)]

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
            out = dict(table.revocations.by_peer)
            new = [r for peer, r in out.items() if self._revoked.get(peer) != r]
            void = [peer for peer in self._revoked if peer not in out]
            if new or void:
                await self.remember_revocations(new, void)
            if changed or gone:
                await self._store.in_thread(self._store.put_members, changed, gone)
                self._saved = now
            self._version = (version, network_id)
        except StoreFailed as error:
            log.warning("the member table is not saved: %s", error)


def _is_believed(record: Record, notary: Notary) -> bool:
    try:
        return notary.knows(record)
    except Forged as error:
        log.warning("a remembered member is left out: %s", error)
        return False


def _row(member: Member) -> dict[str, Any]:
    """A member as plain JSON values."""
    return {
        **dataclasses.asdict(member.record),
        "addresses": list(member.record.addresses),
        "chain": [base64.b64encode(one).decode() for one in member.record.chain],
        "signature": base64.b64encode(member.record.signature).decode(),
        "state": str(member.state),
    }


def _member(row: dict[str, Any]) -> Member:
    """The reverse. Raises KeyError, TypeError or ValueError."""
    fields = dict(row)
    state = State(fields.pop("state"))
    addresses = tuple(fields.pop("addresses"))
    chain = tuple(base64.b64decode(one) for one in fields.pop("chain", ()))
    signature = base64.b64decode(fields.pop("signature", ""))
    record = Record(**fields, addresses=addresses, chain=chain, signature=signature)
    return Member(record, state)
