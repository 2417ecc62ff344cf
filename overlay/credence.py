"""What of a message to believe: everything in it is checked before anybody acts on it or passes it
on.

Rules kept here:
- a word that is no news is not checked, for it changes nothing: a flood brings everything several
  times, and a signature takes a tenth of a millisecond;
- what is forged costs the sender its link (`Forged`), for honest peers check before they pass on;
- what cannot be checked (an unknown observer's vote, an expired certificate) is left out;
- so is a doubt about a life that the member did not begin: it rises above every doubt, and what is
  said of a life far ahead would drive it out of all bounds. A record goes before what is said of it
  on every link, so an honest word is never ahead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from overlay.certificates import BadCertificate, read_chain
from overlay.identity import short
from overlay.membership import Membership
from overlay.notary import Forged, Notary
from overlay.records import Fate, Record, State, Vote
from overlay.revocation import Revocation
from overlay.wire import Evidence, LinkMessage, News, Revoked, SyncPage


def believed(message: LinkMessage, notary: Notary, table: Membership) -> LinkMessage:
    """The message without what cannot be believed. Raises Forged."""
    match message:
        case News():
            records = _records(message.records, notary, table)
            known = _Known(table, records)
            return dataclasses.replace(
                message,
                records=records,
                fates=_fates(message.fates, notary, known),
                evidence=_evidence(message.evidence, notary, known),
            )
        case SyncPage():
            records = _records(message.records, notary, table)
            fates = _fates(message.fates, notary, _Known(table, records))
            return dataclasses.replace(message, records=records, fates=fates)
        case Revoked():
            return Revoked(_revocations(message.revocations, notary, table))
        case _:
            return message


class _Known:
    """Records of the table, and of the message that is being read."""

    def __init__(self, table: Membership, records: Iterable[Record]) -> None:
        self.table = table
        self._new = {record.peer_id: record for record in records}

    def get(self, peer: str) -> Record | None:
        return self._new.get(peer) or self.table.get(peer)


def _records(records: tuple[Record, ...], notary: Notary, table: Membership) -> tuple[Record, ...]:
    try:
        return tuple(
            record
            for record in records
            if table.would_learn(record) and notary.knows(record) and not _is_out(record, table)
        )
    except BadCertificate as error:
        raise Forged(f"a record by nobody: {error}") from None


def _is_out(record: Record, table: Membership) -> bool:
    """Whether it is a stranger whose issuer was revoked (`revocation`)."""
    if not record.chain or not table.revocations or table.get(record.peer_id) is not None:
        return False
    return table.revocations.against(read_chain(record.chain), known=False) is not None


def _fates(fates: tuple[Fate, ...], notary: Notary, known: _Known) -> tuple[Fate, ...]:
    checked = (_fate(fate, notary, known) for fate in fates)
    return tuple(fate for fate in checked if fate is not None)


def _fate(fate: Fate, notary: Notary, known: _Known) -> Fate | None:
    if known.table.fates.get(fate.peer_id) == fate:
        return fate
    record = known.get(fate.peer_id)
    if fate.state is State.REVOKED:
        raise Forged("a revocation that nobody signed")
    if fate.state is State.LEFT:
        if record is None:
            return None
        if not notary.has_left(record, fate):
            raise Forged(f"a goodbye that {short(fate.peer_id)} did not say")
        return fate
    if record is None or fate.incarnation > record.incarnation:
        return None
    votes = tuple(v for v in fate.votes if _counts(fate.peer_id, v, notary, known))
    return Fate(fate.peer_id, fate.incarnation, fate.state, votes)


def _evidence(
    evidence: tuple[Evidence, ...], notary: Notary, known: _Known
) -> tuple[Evidence, ...]:
    return tuple(e for e in evidence if _counts(e.subject, e.vote, notary, known))


def _counts(subject: str, vote: Vote, notary: Notary, known: _Known) -> bool:
    record, observer = known.get(subject), known.get(vote.observer)
    if observer is None:
        return False
    if not notary.vouches(subject, vote, observer):
        raise Forged(f"a testimony that {short(vote.observer)} did not give")
    return record is not None and vote.incarnation <= record.incarnation


def _revocations(
    revocations: tuple[Revocation, ...], notary: Notary, table: Membership
) -> tuple[Revocation, ...]:
    fresh: dict[str, Revocation] = {}
    for revocation in revocations:
        try:
            held = fresh.get(revocation.peer_id)
            if held is not None and held.weight >= revocation.weight:
                continue
            if not table.revocations.is_news(revocation, besides=fresh):
                continue
        except BadCertificate as error:
            raise Forged(f"a revocation by nobody: {error}") from None
        if not notary.may_revoke(revocation):
            raise Forged(f"a revocation of {short(revocation.peer_id)} by nobody who may")
        fresh[revocation.peer_id] = revocation
    return tuple(fresh.values())
