"""The overlay's decisions: events in, effects out. No sockets, clocks or tasks.

Theory of operation. The machine holds the member table, the neighbour graph computed from it, the
live links, and the open suspicions. Whatever it learns (a record, a piece of evidence) it passes on
to every link but the one it came from, once: news floods the overlay in as many hops as the graph's
diameter. From the table follow the links it wants; `_reconcile` compares them with those it has and
asks the driver to dial or to close.

A lost link is re-dialled at once. If nobody listens there any more, that is hard evidence and is
flooded; a quorum of designated observers makes a verdict (`suspicion`). Silence closes the link and
is soft evidence. The member itself, if it lives, hears of the doubt through its other links and
refutes it with a higher incarnation.

Rules kept here:
- `handle(event, now)` never blocks, never fails on what a peer sent, and returns every effect;
- `now` is monotonic seconds; randomness comes from the `random.Random` given;
- after `handle`, `wake_at()` says when the machine wants a `Wake` at the latest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, assert_never

from overlay import heartbeat
from overlay.cases import Cases
from overlay.dialling import Dialler
from overlay.effects import (
    CloseLink,
    DialFailed,
    Effect,
    Event,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    Received,
    Report,
    Send,
    Wake,
)
from overlay.identity import is_id
from overlay.membership import Change, Membership
from overlay.neighbourhood import Neighbourhood
from overlay.profile import Profile
from overlay.records import Record, State
from overlay.wire import (
    CONTROL,
    MAX_CONTROL_BYTES,
    RECORDS_PER_PAGE,
    Evidence,
    Heartbeat,
    LinkMessage,
    SyncPage,
    SyncRequest,
    Update,
)

# A table is asked for when a neighbour's digest differed in this many heartbeats in a row: one
# difference is news still under way.
MISMATCHES_BEFORE_SYNC = 2
# Longer without being run than this share of a heartbeat is a stall of our own.
STALL_SHARE = 0.5


@dataclass(slots=True)
class _Link:
    pulse: heartbeat.Pulse
    up_since: float
    unwanted_since: float | None = None
    mismatches: int = 0


class OverlayMachine:
    """One peer's view of the overlay."""

    def __init__(
        self, me: Record, *, network_id: str, profile: Profile, rng: random.Random, now: float
    ) -> None:
        self.table = Membership(me)
        self.graph = Neighbourhood(network_id, [me])
        self.network_id = network_id
        self._profile = profile
        self._dialler = Dialler(self.table, profile, rng, now)
        self._links: dict[str, _Link] = {}
        self._cases = Cases(self.graph, profile)
        self._leaving = False
        self._handled_at = now
        self._heartbeat_at = now
        self._effects: list[Effect] = []
        self._fresh: list[tuple[str, Record]] = []

    @property
    def links(self) -> frozenset[str]:
        """The peers with a live link."""
        return frozenset(self._links)

    def dialling(self, peer: str) -> bool:
        """Whether a dial of `peer` is under way."""
        return self._dialler.in_flight(peer)

    def wake_at(self) -> float:
        """When the machine wants to be woken at the latest."""
        times = [self._heartbeat_at, self._cases.wake_at()]
        times += [self._silent_at(link) for link in self._links.values()]
        if not self._leaving:  # a leaver neither dials nor drains
            times += [self._dialler.wake_at()]
            times += [self._drained_at(link) for link in self._links.values()]
        return min(times)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; the effects are to be performed in order."""
        self._excuse_stall(now)
        match event:
            case LinkUp():
                self._on_link_up(event, now)
            case LinkDown():
                self._on_link_down(event, now)
            case Received():
                self._on_received(event.peer, event.message, now)
            case DialFailed():
                self._on_dial_failed(event, now)
            case Join():
                for address in event.addresses:
                    self._dialler.ask(address, now)
            case Leave():
                self._on_leave(now)
            case Wake():
                pass
            case _:
                assert_never(event)
        self._run_timers(now)
        self._spread()
        self._reconcile(now)
        self._handled_at = now
        effects, self._effects = self._effects, []
        return effects

    def remember(self, records: Iterable[Record], now: float) -> None:
        """Take in the member table of an earlier life, without telling anybody.

        A doubt of then has no case now that would settle it: whoever was suspect starts as alive.
        """
        for record in records:
            if record.state is State.SUSPECT:
                record = replace(record, state=State.ALIVE)
            change = self.table.merge(record, now)
            if change is not None:
                self.graph.place(change.record)

    def adopt_network(self, network_id: str) -> None:
        """Belong to a network from now on; only a peer that knows nobody else may."""
        self.network_id = network_id
        self.graph.rebuild(network_id, self.table.records())

    def set_topology(self, name: str, degree: int, now: float) -> list[Effect]:
        """Use another neighbour graph (the job's)."""
        if (name, degree) != (self.graph.name, self.graph.degree):
            self.graph.rebuild(self.network_id, self.table.records(), name=name, degree=degree)
        return self.handle(Wake(), now)

    def describe_me(self, now: float, **changes: Any) -> list[Effect]:
        """Change one's own record (name, addresses, part) and tell everybody."""
        self._apply(self.table.update_me(now, **changes), source="", now=now)
        return self.handle(Wake(), now)

    # Events.

    def _on_link_up(self, event: LinkUp, now: float) -> None:
        peer = event.record.peer_id
        if is_id(event.target) and event.target != peer:
            self._on_dial_failed(DialFailed(event.target, "unreachable", "another answers"), now)
        self._links[peer] = _Link(heartbeat.first_pulse(now, self._profile.heartbeat_s), now)
        self._dialler.linked(peer, event.target)
        self._learn(event.record, source=peer, now=now)
        self._report("link.up", peer)
        known = self.table.get(peer)
        if known is not None and known.state is not State.ALIVE:
            # It is here, so it shall hear what is said of it and rise above it.
            self._send(peer, Update((known,)))
        if event.digest != self.table.digest:
            self._send(peer, SyncRequest())

    def _on_link_down(self, event: LinkDown, now: float) -> None:
        link = self._links.pop(event.peer, None)
        if link is None:
            return
        self._report("link.down", event.peer, lost=not event.orderly)
        record = self.table.get(event.peer)
        if record is not None and record.is_live:
            if now - link.up_since < self._profile.heartbeat_s:
                self._dialler.broken(event.peer, now)
            elif not event.orderly:
                self._dialler.lost(event.peer, now)

    def _on_received(self, peer: str, message: LinkMessage, now: float) -> None:
        link = self._links.get(peer)
        if link is None:
            return
        link.pulse = (
            heartbeat.heard(link.pulse, now)
            if isinstance(message, Heartbeat)
            else heartbeat.Pulse(now, link.pulse.mean_gap_s, link.pulse.deviation_s)
        )
        match message:
            case Heartbeat():
                self._compare_digest(peer, link, message.digest)
            case Update() | SyncPage():
                for record in message.records:
                    self._learn(record, source=peer, now=now)
            case Evidence():
                self._weigh(message, source=peer, now=now)
            case SyncRequest():
                self._send_table(peer)
            case _:
                assert_never(message)

    def _on_dial_failed(self, event: DialFailed, now: float) -> None:
        self._dialler.failed(event.target, now)
        record = self.table.get(event.target)
        if record is None:
            self._report("dial.failed", "", address=event.target, reason=event.reason)
        elif record.is_live and event.target not in self._links and event.outcome != "declined":
            self._testify(record, hard=event.outcome == "refused", now=now)

    def _on_leave(self, now: float) -> None:
        self._leaving = True
        self._apply(self.table.update_me(now, state=State.LEFT), source="", now=now)

    # Records.

    def _learn(self, record: Record, *, source: str, now: float) -> None:
        change = self.table.merge(record, now)
        if change is not None:
            self._apply(change, source=source, now=now)

    def _apply(self, change: Change, *, source: str, now: float) -> None:
        record = change.record
        peer = record.peer_id
        # A refutation of one's own is news to everybody, also to whom it answers.
        self._fresh.append(("" if peer == self.table.my_id else source, record))
        self._settle(change, now)

    def _settle(self, change: Change, now: float) -> None:
        """What a change of the table means for the graphs, the suspicions and people."""
        record = change.record
        peer = record.peer_id
        self.graph.place(record)
        if peer != self.table.my_id:
            self._cases.follow(record, now)
        self._report_change(change)

    def _report_change(self, change: Change) -> None:
        record, before = change.record, change.before
        peer = record.peer_id
        if peer == self.table.my_id:
            if before is not None and before.state == record.state:
                return
            self._report(f"member.{record.state}", peer)
        elif change.appeared:
            self._report("member.joined" if before is None else "member.returned", peer)
        elif before is not None and before.state is not record.state:
            refuted = record.state is State.ALIVE
            self._report("member.refuted" if refuted else f"member.{record.state}", peer)

    def _compare_digest(self, peer: str, link: _Link, digest: int) -> None:
        if digest == self.table.digest:
            link.mismatches = 0
            return
        link.mismatches += 1
        if link.mismatches >= MISMATCHES_BEFORE_SYNC:
            link.mismatches = 0
            self._send(peer, SyncRequest())

    def _send_table(self, peer: str) -> None:
        for page in pages(self.table.records()):
            self._send(peer, SyncPage(page))

    def _spread(self) -> None:
        """Pass on what was news, to every link but the one it came from."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        for peer in sorted(self._links):
            newest = {record.peer_id: record for source, record in fresh if source != peer}
            for page in pages(newest.values()):
                self._send(peer, Update(page))

    # Evidence and verdicts.

    def _testify(self, record: Record, *, hard: bool, now: float) -> None:
        """Say what this peer saw of a member, if it is one of its observers."""
        mine = self.table.my_id
        if mine in self.graph.observers(record.peer_id):
            evidence = Evidence(record.peer_id, record.incarnation, mine, hard)
            self._weigh(evidence, source="", now=now)

    def _weigh(self, evidence: Evidence, *, source: str, now: float) -> None:
        subject = evidence.subject
        if subject == self.table.my_id:
            if evidence.incarnation >= self.table.me.incarnation and not self._leaving:
                self._apply(self.table.update_me(now), source="", now=now)
            return
        record = self.table.get(subject)
        if record is None or not record.is_live:
            return
        if not self._cases.add(evidence, record, now):
            return
        for peer in sorted(self._links.keys() - {source}):
            self._send(peer, evidence)
        # Whoever gets the evidence draws the conclusion itself: the state need not travel too.
        doubted = self.table.merge(replace(record, state=State.SUSPECT), now)
        if doubted is not None:
            self._settle(doubted, now)
        if self._cases.is_proven(subject):
            self._declare_dead(subject, now)

    def _declare_dead(self, peer: str, now: float) -> None:
        record = self.table.get(peer)
        if record is not None and record.is_live:
            self._learn(replace(record, state=State.DEAD), source="", now=now)
            if peer in self._links:
                self._close(peer, "declared dead", lost=True)

    # Time.

    def _run_timers(self, now: float) -> None:
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._profile.heartbeat_s
            self.table.forget(now)
            for peer in sorted(self._links):
                self._send(peer, Heartbeat(self.table.digest))
        for peer in [p for p, link in self._links.items() if now >= self._silent_at(link)]:
            self._on_silence(peer, now)
        for peer in self._cases.take_due(now):
            self._declare_dead(peer, now)

    def _silent_at(self, link: _Link) -> float:
        return heartbeat.deadline(
            link.pulse,
            shortest_s=self._profile.silence_shortest_s,
            longest_s=self._profile.silence_longest_s,
        )

    def _on_silence(self, peer: str, now: float) -> None:
        self._close(peer, "silent", lost=True)
        record = self.table.get(peer)
        if record is not None and record.is_live:
            self._dialler.lost(peer, now)
            self._testify(record, hard=False, now=now)

    def _excuse_stall(self, now: float) -> None:
        """Time in which this machine was not run counts neither as silence nor as suspicion."""
        due = max(self._handled_at, min(self.wake_at(), now))
        stalled = now - due
        if stalled < STALL_SHARE * self._profile.heartbeat_s:
            return
        for link in self._links.values():
            link.pulse = heartbeat.excuse(link.pulse, stalled)
        self._cases.excuse(stalled)

    # Links.

    def _reconcile(self, now: float) -> None:
        """Dial what is wanted and missing; close what is unwanted for long enough."""
        if self._leaving:
            return
        wanted = self.graph.neighbours(self.table.my_id)
        self._drain(wanted, now)
        missing = wanted - self._links.keys()
        self._effects += self._dialler.due(missing, alone=not self._links, now=now)

    def _drain(self, wanted: frozenset[str], now: float) -> None:
        for peer, link in list(self._links.items()):
            if peer in wanted or link.mismatches:
                link.unwanted_since = None
            elif link.unwanted_since is None:
                link.unwanted_since = now
            elif now >= self._drained_at(link):
                self._close(peer, "not a neighbour", lost=False)

    def _drained_at(self, link: _Link) -> float:
        if link.unwanted_since is None:
            return math.inf
        return link.unwanted_since + self._profile.drain_s

    def _close(self, peer: str, reason: str, *, lost: bool) -> None:
        del self._links[peer]
        self._effects.append(CloseLink(peer, reason))
        self._report("link.down", peer, lost=lost)

    def _send(self, peer: str, message: LinkMessage) -> None:
        self._effects.append(Send(peer, message))

    def _report(self, kind: str, peer: str, **data: Any) -> None:
        record = self.table.get(peer)
        about = {"peer": peer, "name": record.name} if record is not None else {}
        self._effects.append(Report(kind, {**about, **data}))


def pages(records: Iterable[Record]) -> list[tuple[Record, ...]]:
    """Records cut into pages that fit a control message."""
    result: list[tuple[Record, ...]] = []
    page: list[Record] = []
    size = 0
    for record in records:
        cost = len(CONTROL.encode(Update((record,))))
        if page and (len(page) == RECORDS_PER_PAGE or size + cost > MAX_CONTROL_BYTES // 2):
            result.append(tuple(page))
            page, size = [], 0
        page.append(record)
        size += cost
    return [*result, tuple(page)] if page else result
