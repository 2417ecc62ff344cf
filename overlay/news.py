"""What this peer has to tell its neighbours, gathered for a moment so that a burst costs few
messages.

Rules kept here:
- the first piece of news after a quiet moment goes out at once, the next ones together, at most
  every `interval_s` (a crash is known as fast as the network allows, and a thousand crashes do not
  cost a thousand messages a link); after a full page the next one waits longer, up to `PATIENCE`
  times: by then most of what many links tell came from more than one of them;
- a link is not told what came from it;
- newer word about a member replaces older word that still waits: a refutation its doubt, a verdict
  its evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from overlay.records import Fate, Record
from overlay.revocation import Revocation
from overlay.wire import MAX_CONTROL_BYTES, Evidence, News, Revoked

T = TypeVar("T")

# Fates, testimonies and records a message, and what fates and testimonies may measure; records may
# measure twice that. Together they are MAX_CONTROL_BYTES: each is reckoned a few bytes too large,
# which leaves room for the frame. A signed record has about 700 bytes, a testimony 180.
ITEMS_PER_PAGE = 128
RECORDS_PER_PAGE = 128
KIND_BYTES = MAX_CONTROL_BYTES // 4

PATIENCE = 4
# Of a vote, and of a testimony, which names its subject too.
VOTE_BYTES, EVIDENCE_BYTES = 136, 190


class Outbox:
    """News that waits for the next flush."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._flush_at = -math.inf
        self._records: dict[str, Record] = {}
        self._fates: dict[str, Fate] = {}
        # Who told us what waits above, by subject.
        self._sources: dict[str, tuple[str, ...]] = {}
        # With the link that it came from.
        self._evidence: list[tuple[list[Evidence], str]] = []
        self._revocations: list[tuple[Revocation, str]] = []

    def due_at(self) -> float:
        """When the next flush is due; infinity if there is nothing to say."""
        waits = self._sources or self._evidence or self._revocations
        return self._flush_at if waits else math.inf

    def add_record(self, record: Record, source: str) -> None:
        """A member says something new of itself."""
        peer = record.peer_id
        self._records[peer] = record
        fate = self._fates.get(peer)
        if fate is not None and fate.incarnation < record.incarnation:
            del self._fates[peer]
        # A fate that waits as well is not known to whoever told only the record.
        self._sources[peer] = () if peer in self._fates else (source,)

    def add_fates(self, fates: Sequence[Fate], source: str) -> None:
        """These things befell members."""
        sources, records, told = self._sources, self._records, (source,)
        for fate in fates:
            peer = fate.peer_id
            self._fates[peer] = fate
            # A record that waits as well is not known to whoever told only the fate.
            sources[peer] = () if peer in records else told

    def add_evidence(self, evidence: list[Evidence], source: str) -> None:
        """Observers testified."""
        self._evidence.append((evidence, source))

    def add_revocation(self, revocation: Revocation, source: str) -> None:
        """Somebody was revoked."""
        self._revocations.append((revocation, source))

    def heard_too(self, fate: Fate, source: str) -> None:
        """`source` told a fate as well: it need not hear it from us."""
        peer = fate.peer_id
        held = self._fates.get(peer)
        if held is not None and peer not in self._records and (held is fate or held == fate):
            self._sources[peer] += (source,)

    def flush(self, links: Iterable[str], now: float) -> list[tuple[str, News | Revoked]]:
        """Everything that waits, a message or more for each link."""
        evidence = [(self._unsettled(told), source) for told, source in self._evidence]
        messages: list[tuple[str, News | Revoked]] = []
        for link in links:
            out = [r for r, source in self._revocations if source != link]
            messages += [(link, page) for page in revocation_pages(out)]
            told = [e for batch, source in evidence if source != link for e in batch]
            messages += [(link, page) for page in self._pages_for(link, told)]
        size = len(self._sources) + sum(len(told) for told, _ in evidence)
        self._flush_at = now + self._interval_s * min(PATIENCE, 1 + size / ITEMS_PER_PAGE)
        self._records, self._fates, self._sources, self._evidence = {}, {}, {}, []
        self._revocations = []
        return messages

    def _unsettled(self, evidence: list[Evidence]) -> list[Evidence]:
        """What the fates that wait here do not settle."""
        fates = self._fates
        return [e for e in evidence if e.subject not in fates or fates[e.subject].is_live]

    def _pages_for(self, link: str, evidence: list[Evidence]) -> list[News]:
        sources = self._sources
        return pages(
            [record for peer, record in self._records.items() if link not in sources[peer]],
            [fate for peer, fate in self._fates.items() if link not in sources[peer]],
            evidence,
        )


def pages(
    records: Sequence[Record], fates: Sequence[Fate] = (), evidence: Sequence[Evidence] = ()
) -> list[News]:
    """News cut into messages that fit a control link; records come before fates about them."""
    result = []
    cut = _cut(records, record_bytes, RECORDS_PER_PAGE, 2 * KIND_BYTES)
    told = _cut(fates, fate_bytes, ITEMS_PER_PAGE)
    seen = _cut(evidence, lambda _: EVIDENCE_BYTES, ITEMS_PER_PAGE)
    while cut or told or seen:
        page = cut.pop(0) if cut else ()
        if cut:  # the last page of records has room for other things
            result.append(News(page, (), ()))
            continue
        result.append(News(page, told.pop(0) if told else (), seen.pop(0) if seen else ()))
    return result


def _cut(
    items: Sequence[T], size_of: Callable[[T], int], most: int, most_bytes: int = KIND_BYTES
) -> list[tuple[T, ...]]:
    """The items in pages of at most `most`, and of so many bytes."""
    result: list[tuple[T, ...]] = []
    page: list[T] = []
    size = 0
    for item in items:
        cost = size_of(item)
        if page and (len(page) == most or size + cost > most_bytes):
            result.append(tuple(page))
            page, size = [], 0
        page.append(item)
        size += cost
    return [*result, tuple(page)] if page else result


def record_bytes(record: Record) -> int:
    """What a record measures on the wire, a few bytes more at most."""
    addresses = sum(len(address.encode()) + 3 for address in record.addresses)
    proof = sum(len(one) + 3 for one in record.chain) + len(record.signature) + 3
    return len(record.peer_id) + len(record.name.encode()) + addresses + proof + 24


def fate_bytes(fate: Fate) -> int:
    """The same of a fate."""
    return len(fate.peer_id) + 24 + VOTE_BYTES * len(fate.votes)


def revocation_pages(revocations: Iterable[Revocation]) -> list[Revoked]:
    """Revocations cut into messages that fit a control link."""
    found = _cut(list(revocations), _revocation_bytes, ITEMS_PER_PAGE, 2 * KIND_BYTES)
    return [Revoked(page) for page in found]


def _revocation_bytes(revocation: Revocation) -> int:
    proof = sum(len(one) + 3 for one in (*revocation.chain, *revocation.subject))
    proof += len(revocation.signature)
    return len(revocation.peer_id) + len(revocation.reason.encode()) + proof + 24
