"""The overlay's decisions: events in, effects out. No sockets, clocks or tasks.

Theory of operation. The machine holds what this peer knows (`knowledge`: member table, graphs,
outbox), the live links, its part in finding the dead (`detection`) and its judgement of what others
say of them (`hearsay`). Whatever it learns it passes on to every link but the one it came from,
once: news floods the overlay in as many hops as the graph's diameter. From the table follow the
links it wants; `_reconcile` compares them with those it has and asks the driver to dial or to
close.

A lost link is re-dialled at once; what comes of that is evidence. Tables that stay different are
compared part by part (`anti_entropy`). A peer without a network asks its seeds until one has a
network, or until those without agree who founds one (`founding`).

Rules kept here:
- `handle(event, now)` never blocks, never fails on what a peer sent, and returns every effect;
- `now` is monotonic seconds; randomness comes from the `random.Random` given;
- after `handle`, `wake_at()` says when the machine wants a `Wake` at the latest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any, assert_never

from overlay.anti_entropy import AntiEntropy
from overlay.detection import Detector
from overlay.dialling import Dialler
from overlay.effects import (
    CloseLink,
    DialFailed,
    Effect,
    Event,
    Found,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    MetHomeless,
    Received,
    Send,
    Wake,
)
from overlay.founding import Candidacy, Founding
from overlay.hearsay import Hearsay
from overlay.identity import is_id
from overlay.knowledge import Knowledge
from overlay.links import Links, LinkState
from overlay.membership import Membership
from overlay.neighbourhood import Neighbourhood
from overlay.notary import Notary
from overlay.profile import Profile
from overlay.records import Fate, Member, Record
from overlay.revocation import Revocation
from overlay.rings import Rings
from overlay.topology import Choice
from overlay.wire import Heartbeat, LinkMessage, News, Revoked, SyncPage, SyncRequest

# Links that the graph does not want, at a time: joiners that still learn who their neighbours are,
# for half a second each; a hundred that come at once are let in within a few.
MAX_GUESTS = 32


class OverlayMachine:
    """One peer's view of the overlay."""

    def __init__(
        self,
        me: Record,
        *,
        network_id: str,
        profile: Profile,
        rng: random.Random,
        now: float,
        notary: Notary | None = None,
        table: Membership | None = None,
        rings: Rings | None = None,
    ) -> None:
        """`notary` signs what this peer says (default: nobody does); `table` and `rings`: what a
        peer knows that starts in the midst of a simulation."""
        self.table = table or Membership(me, notary=notary)
        self.graph = Neighbourhood(network_id, self.table, rings=rings)
        self.network_id = network_id
        self._profile = profile
        self._known = Knowledge(self.table, self.graph, profile)
        self._detector = Detector(self._known, profile, now, self._dispute, notary)
        self._hearsay = Hearsay(self._known, self._detector, profile, self._dispute)
        self._tables = AntiEntropy(self._known, profile)
        self._dialler = Dialler(self.table, profile, rng, now)
        self._founding = Founding(me.peer_id, profile.founding_s)
        self._links = Links(profile, self._detector.health)
        self._heartbeat_at = now
        self._beaten_at = -math.inf
        self._reconciled: frozenset[str] | None = None  # the neighbours when links last fitted
        self._wake_at = now
        self._effects: list[Effect] = []

    @property
    def links(self) -> frozenset[str]:
        """The peers with a live link."""
        return frozenset(self._links)

    @property
    def health(self) -> int:
        """How late this peer runs: 0 is healthy (`health`)."""
        return self._detector.health.score

    def has_just_dialled(self, peer: str, now: float) -> bool:
        """Whether a dial of `peer` is under way that should win over one of theirs."""
        return self._dialler.has_just_dialled(peer, now)

    def admits(self, peer: str) -> bool:
        """Whether a link to `peer` is welcome: a neighbour's always, a few others' at a time."""
        wanted = self.graph.wanted
        if peer in wanted or peer in self._links:
            return True
        return self._links.guests(wanted) < MAX_GUESTS

    @property
    def follows(self) -> bool:
        """Whether this peer without a network takes over that of whoever dials it."""
        return not self.network_id and self._founding.follows

    def candidacy(self, now: float) -> Candidacy:
        """What this peer says to others while it has no network."""
        return self._founding.says(now)

    def wake_at(self) -> float:
        """When the machine wants to be woken at the latest."""
        return self._wake_at

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; the effects are to be performed in order."""
        if now > self._wake_at:
            self._excuse_stall(now - self._wake_at)
        if not isinstance(event, Received):
            self._reconciled = None
        match event:
            case Received():
                self._on_received(event.peer, event.message, now)
            case Wake():
                pass
            case LinkUp():
                self._on_link_up(event, now)
            case LinkDown():
                self._on_link_down(event, now)
            case DialFailed():
                self._on_dial_failed(event, now)
            case MetHomeless():
                self._on_homeless(event, now)
            case Join():
                for address in event.addresses:
                    self._dialler.ask(address, now)
            case Leave():
                self._known.leave(now)
                self._flush(now)  # the links are closed next
            case _:
                assert_never(event)
        return self._finish(now)

    def remember(self, members: Iterable[Member], now: float) -> None:
        """Take in the member table of an earlier life, without telling anybody."""
        self._known.remember(members, now)
        self._wake_at = now

    def revoke(self, revocation: Revocation, now: float, *, source: str = "") -> None:
        """Somebody is out for good, as `source` (nobody: this peer) says. What follows comes out
        of the next `handle`."""
        if not self._known.revoke(revocation, source, now):
            return
        out = revocation.peer_id
        if out == self.table.my_id:
            for peer in list(self._links):
                self._turn_away(peer, revocation, now)
        elif out in self._links:
            self._turn_away(out, revocation, now)

    def adopt_network(self, network_id: str) -> None:
        """Belong to a network from now on; only a peer that knows nobody else may."""
        self.network_id = network_id
        self.graph.rebuild(network_id, self.graph.choice)
        self._dialler.tell_seeds()

    def set_topology(self, choice: Choice, now: float) -> list[Effect]:
        """Use another mixing graph (the job's)."""
        if choice != self.graph.choice:
            self.graph.rebuild(self.network_id, choice)
        return self.handle(Wake(), now)

    def describe_me(self, now: float, **changes: Any) -> list[Effect]:
        """Change one's own record (name, addresses, part) and tell everybody."""
        self._known.describe_me(now, **changes)
        return self.handle(Wake(), now)

    # Events.

    def _on_received(self, peer: str, message: LinkMessage, now: float) -> None:
        link = self._links.get(peer)
        if link is None:
            return
        self._links.heard(link, now, beat=isinstance(message, Heartbeat))
        match message:
            case Heartbeat():
                if self._links.differs(link, message.digest, self.table.digest, now):
                    self._ask_for_table(peer, now)
            case News():
                self._on_news(peer, message, now)
            case SyncRequest():
                self._send(peer, *self._tables.answer(message))
            case SyncPage():
                self._tables.learn(message, peer, now)
                self._hearsay.read(message.fates, peer, now)
                self._look_for(self._detector.take_looks())
            case Revoked():
                for revocation in message.revocations:
                    self.revoke(revocation, now, source=peer)
            case _:
                assert_never(message)

    def _on_news(self, peer: str, news: News, now: float) -> None:
        for record in news.records:
            self._known.learn(record, peer, now)
        self._send(peer, *self._hearsay.hear(news.fates, peer, now))
        for subject in self._detector.hear(news.evidence, peer, now) if news.evidence else ():
            if subject != self.table.my_id:
                self._links.ask(subject, now)
            elif now - self._beaten_at >= self._profile.flush_s:
                self._heartbeat_at = now  # somebody doubts this peer: let everybody hear it

    def _on_link_up(self, event: LinkUp, now: float) -> None:
        peer = event.record.peer_id
        is_stranger = not self.table.is_live(peer)
        if is_id(event.target) and event.target != peer:
            self._on_dial_failed(DialFailed(event.target, "unreachable", "another answers"), now)
        wanted = self.graph.wanted
        if 2 * (len(self._links) - self._links.guests(wanted)) < len(wanted):
            self._detector.reconnected(now)
        self._links.up(peer, now)
        self._dialler.linked(peer, event.target)
        self._known.learn(event.record, peer, now)
        self._known.report("link.up", peer)
        revocation = self.table.revocations.by_peer.get(peer)
        if revocation is not None:
            self._turn_away(peer, revocation, now)
            return
        fate = self.table.fate(peer) or self._detector.question_for(peer)
        if fate is not None and fate.can_be_told:
            # It is here, so it shall hear what is said of it and rise above it.
            self._send(peer, News((), (fate,), ()))
        if is_stranger and event.digest != self.table.digest:
            self._ask_for_table(peer, now)  # others' tables are compared when things are quiet

    def _on_link_down(self, event: LinkDown, now: float) -> None:
        link = self._lose(event.peer, lost=not event.orderly, now=now)
        if link is None:
            return
        if self.table.is_live(event.peer):
            if now - link.up_since < self._profile.heartbeat_s:
                self._dialler.broken(event.peer, now)
            elif not event.orderly:
                self._dialler.lost(event.peer, now)

    def _on_dial_failed(self, event: DialFailed, now: float) -> None:
        mere_look = self._dialler.failed(event.target, now) and event.outcome == "unreachable"
        if not is_id(event.target):
            heard = event.outcome == "declined"
            (self._founding.reached if heard else self._founding.missed)(event.target)
            self._known.report("dial.failed", "", address=event.target, reason=event.reason)
        elif event.target not in self._links and event.outcome != "declined" and not mere_look:
            self._detector.not_found(event.target)
            self._detector.testify(event.target, hard=event.outcome == "refused", now=now)

    def _on_homeless(self, event: MetHomeless, now: float) -> None:
        self._founding.meet(event.candidacy, now)
        if event.seed:
            self._founding.reached(event.seed)
            self._dialler.homeless(event.seed, now)

    # Evidence about links.

    def _dispute(self, fate: Fate, now: float) -> bool:
        """Others say that a member is gone to which there is a link: it may still rise above that
        word, which it hears from here. The word counts as soon as the link ends."""
        if fate.is_live or fate.peer_id not in self._links:
            return False
        record = self.table.live_record(fate.peer_id)
        if record is None or fate.incarnation < record.incarnation:
            return False
        if self._links.dispute(fate, now):
            self._send(fate.peer_id, News((), (fate,), ()))
        return True

    def _on_silence(self, peer: str, now: float) -> None:
        if self._detector.health.is_it_me(len(self._links), now):
            return
        self._close(peer, "silent", lost=True, now=now)
        if self.table.is_live(peer):
            self._dialler.lost(peer, now)
            self._detector.testify(peer, hard=False, now=now)

    # Time.

    def _finish(self, now: float) -> list[Effect]:
        """What follows from any event."""
        self._detector.run(now)
        if now >= min(self._wake_at, self._heartbeat_at, self._links.look_at):
            self._run_timers(now)
        if now >= self._known.outbox.due_at():
            self._flush(now)
        if not self.network_id and self._founding.take(now):
            self._effects.append(Found())
        self._reconcile(now)
        self._wake_at = self._next_wake(now)
        self._effects += self._known.reports
        self._known.reports.clear()
        effects, self._effects = self._effects, []
        return effects

    def _run_timers(self, now: float) -> None:
        if now >= self._heartbeat_at:
            self._heartbeat_at, self._beaten_at = now + self._profile.heartbeat_s, now
            self._known.forget(now)
            self._hearsay.review(now)
            self._detector.beat(now)
            self._links.look_again()  # a calmer peer is less patient
            beat = Heartbeat(self.table.digest)
            for peer in self._links:
                self._send(peer, beat)
        for peer in self._links.silent(now):
            if now >= self._detector.health.hold_until:  # the one before may have set it
                self._on_silence(peer, now)

    def _flush(self, now: float) -> None:
        self._hearsay.review(now)
        for peer, news in self._known.outbox.flush(self._links, now):
            self._send(peer, news)
        self._detector.review(now)
        self._detector.run(now)

    def _next_wake(self, now: float) -> float:
        at = min(self._heartbeat_at, self._links.wake_at(now), self._known.outbox.due_at())
        if self._detector.has_cases:
            at = min(at, self._detector.wake_at())
        if not self.table.has_left:  # a leaver neither dials nor drains
            at = min(at, self._dialler.wake_at())
        if not self.network_id:
            at = min(at, self._founding.due_at())
        return at

    def _excuse_stall(self, late_s: float) -> None:
        """Time in which this machine was not run counts neither as silence nor as suspicion."""
        if not self._detector.health.is_lag(late_s):
            return
        self._detector.excuse(late_s)
        self._links.excuse(late_s)

    # Links.

    def _look_for(self, peers: Iterable[str]) -> None:
        for peer in (peer for peer in peers if peer not in self._links):
            self._dialler.look(peer)
            self._reconciled = None

    def _reconcile(self, now: float) -> None:
        """Dial what is wanted and missing; close what is unwanted for long enough."""
        if self.table.has_left:
            return
        wanted = self.graph.wanted
        if wanted is self._reconciled and now < self._wake_at:
            return  # a message came in that moved nobody
        for peer in self._links.drained(wanted, now):
            self._close(peer, "not a neighbour", lost=False, now=now)
        missing = [peer for peer in wanted if peer not in self._links]
        self._effects += self._dialler.due(missing, alone=not self._links, now=now)
        self._reconciled = wanted

    def _turn_away(self, peer: str, revocation: Revocation, now: float) -> None:
        self._send(peer, Revoked((revocation,)))  # it shall know why
        self._close(peer, "revoked", lost=False, now=now)

    def _close(self, peer: str, reason: str, *, lost: bool, now: float) -> None:
        self._effects.append(CloseLink(peer, reason))
        self._lose(peer, lost=lost, now=now)

    def _lose(self, peer: str, *, lost: bool, now: float) -> LinkState | None:
        """A link is over: what others said of its end in vain counts from now on."""
        link = self._links.drop(peer)
        if link is not None:
            self._known.report("link.down", peer, lost=lost)
            if link.disputed is not None:
                self._known.judge([link.disputed], "", now)
        return link

    def _ask_for_table(self, peer: str, now: float) -> None:
        if (request := self._tables.ask(now)) is not None:
            self._send(peer, request)

    def _send(self, peer: str, *messages: LinkMessage) -> None:
        self._effects += [Send(peer, message) for message in messages]
