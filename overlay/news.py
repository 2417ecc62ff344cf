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
from collections.abc import Iterable, Sequence

from overlay.records import Fate, Record
from overlay.wire import MAX_CONTROL_BYTES, Evidence, News

# Fates and testimonies a message: together at most 25 KB at their field limits.
ITEMS_PER_PAGE = 128
# Records a message, and what they may measure: the rest of MAX_CONTROL_BYTES is for the above.
RECORDS_PER_PAGE = 128
RECORDS_BYTES = MAX_CONTROL_BYTES // 2


PATIENCE = 4


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

    def due_at(self) -> float:
        """When the next flush is due; infinity if there is nothing to say."""
        return self._flush_at if self._sources or self._evidence else math.inf

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

    def heard_too(self, fate: Fate, source: str) -> None:
        """`source` told a fate as well: it need not hear it from us."""
        peer = fate.peer_id
        held = self._fates.get(peer)
        if held is not None and peer not in self._records and (held is fate or held == fate):
            self._sources[peer] += (source,)

    def flush(self, links: Iterable[str], now: float) -> list[tuple[str, News]]:
        """Everything that waits, a message or more for each link."""
        evidence = [(self._unsettled(told), source) for told, source in self._evidence]
        messages = []
        for link in links:
            told = [e for batch, source in evidence if source != link for e in batch]
            messages += [(link, page) for page in self._pages_for(link, told)]
        size = len(self._sources) + sum(len(told) for told, _ in evidence)
        self._flush_at = now + self._interval_s * min(PATIENCE, 1 + size / ITEMS_PER_PAGE)
        self._records, self._fates, self._sources, self._evidence = {}, {}, {}, []
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
    cut = _record_pages(records)
    while cut or fates or evidence:
        page = cut.pop(0) if cut else ()
        if cut:  # the last page of records has room for other things
            result.append(News(page, (), ()))
            continue
        result.append(News(page, tuple(fates[:ITEMS_PER_PAGE]), tuple(evidence[:ITEMS_PER_PAGE])))
        fates, evidence = fates[ITEMS_PER_PAGE:], evidence[ITEMS_PER_PAGE:]
    return result


def _record_pages(records: Sequence[Record]) -> list[tuple[Record, ...]]:
    result: list[tuple[Record, ...]] = []
    page: list[Record] = []
    size = 0
    for record in records:
        cost = record_bytes(record)
        if page and (len(page) == RECORDS_PER_PAGE or size + cost > RECORDS_BYTES):
            result.append(tuple(page))
            page, size = [], 0
        page.append(record)
        size += cost
    return [*result, tuple(page)] if page else result


def record_bytes(record: Record) -> int:
    """What a record measures on the wire, a few bytes more at most."""
    addresses = sum(len(address.encode()) + 3 for address in record.addresses)
    return len(record.peer_id) + len(record.name.encode()) + addresses + 24
