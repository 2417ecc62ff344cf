"""Failure detection: from what this peer saw of its neighbours to what befell a member.

Theory of operation. The observers of a member are its neighbours on the membership rings. One that
loses its link and finds nobody listening on the re-dial, or that hears nothing for too long,
testifies. Testimony floods the overlay, for observers are neighbours of the member and seldom of
each other; only observers judge it. Each of them that still has a link is thereby asked to look:
the member hears the testimony too and answers with a heartbeat, and whoever does not hear from it
within a probe's time testifies as well (SWIM's indirect probe, with every other observer as the
proxy). What the observers conclude, a suspicion or a death, is a fate, and everybody takes it over.

Rules kept here:
- hard evidence by a quorum of observers is a verdict; a doubt that two share makes a suspect, with
  time to refute; what one observer alone finds lapses (`suspicion`);
- a verdict carries the signed votes that it was made of, and is checked by whoever hears it
  (`verdicts`);
- evidence straight from a peer that does not observe the subject is not passed on;
- an observer that runs late doubts itself first (`health`).

Source: SWIM (Das et al., DSN 2002), Lifeguard (Dadgar et al., DSN-W 2018); observers by position
in the graph as in Rapid (Suresh et al., USENIX ATC 2018, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from overlay.cases import Cases
from overlay.health import LocalHealth
from overlay.knowledge import Knowledge
from overlay.membership import Change
from overlay.notary import Notary, Unsigned
from overlay.profile import Profile
from overlay.records import MAX_VOTES, Fate, State, Vote
from overlay.rumours import Rumours
from overlay.wire import Evidence


class Detector:
    """One peer's part in finding the dead."""

    def __init__(
        self,
        known: Knowledge,
        profile: Profile,
        now: float,
        dispute: Callable[[Fate, float], bool] = lambda fate, now: False,
        notary: Notary | None = None,
    ) -> None:
        """`dispute(fate, now)`: whether a member is linked here, and shall answer for itself."""
        self._notary: Notary = notary or Unsigned(known.table.my_id)
        self._known = known
        self._dispute = dispute
        self._profile = profile
        self._rumours = Rumours()
        self._cases = Cases(known.graph, profile, self._rumours)
        self._rotate_at = now + profile.suspicion_longest_s
        self.health = LocalHealth(profile.heartbeat_s, profile.silence_longest_s)
        # Deaths that only old tables spoke of, and when they were first read there; those of them
        # for whom this peer is to look itself, and the lives that it did not find.
        self._old_words: dict[str, tuple[Fate, float]] = {}
        self._looks: set[str] = set()
        self._unfound: dict[str, int] = {}
        self._suspects: dict[str, float] = {}  # since when, or since they were last told again
        known.listen(self.follow)

    def suspected_at(self, peer: str) -> float:
        """Since when a member is suspect here, or since it was last said again; infinity if it is
        not."""
        return self._suspects.get(peer, math.inf)

    def testify(self, peer: str, *, hard: bool, now: float) -> None:
        """Say what this peer saw of a member, if it is one of its observers."""
        record = self._known.table.live_record(peer)
        if record is not None and peer in self._known.graph.watched:
            mine, incarnation = self._known.table.my_id, record.incarnation
            signature = self._notary.testimony(peer, incarnation, hard)
            self.hear([Evidence(peer, incarnation, mine, hard, signature)], "", now)

    def hear(self, testimonies: Iterable[Evidence], source: str, now: float) -> list[str]:
        """Take in testimonies; the members that this peer is thereby asked to look for, itself
        among them."""
        live_record = self._known.table.live_record
        fresh = [
            evidence
            for evidence in self._rumours.fresh(testimonies)
            if (record := live_record(evidence.subject)) is not None
            and evidence.incarnation >= record.incarnation
            and (evidence.observer != source or self._may_say(evidence))
        ]
        if not fresh:
            return []
        self._rumours.add(fresh)
        self._known.outbox.add_evidence(fresh, source)
        mine = self._known.graph.watched | {self._known.table.my_id}
        return [e.subject for e in fresh if e.subject in mine and self._is_asked(e, now)]

    def _is_asked(self, evidence: Evidence, now: float) -> bool:
        """A testimony about this peer, or one that it observes, in the life it lives now."""
        record = self._known.table.live_record(evidence.subject)
        if record is None or evidence.incarnation < record.incarnation:
            return False
        if evidence.subject != self._known.table.my_id:
            self._rumours.keep(evidence)
            self._cases.open(evidence.subject, record.incarnation, now)
        return True

    def _may_say(self, evidence: Evidence) -> bool:
        """Whether the author of a testimony, whose own link it came on, is an observer."""
        return evidence.observer in self._known.graph.observers(evidence.subject)

    def weigh_old_word(self, fate: Fate, now: float, *, proven: bool) -> Fate:
        """A fate as another's table holds it, to be believed: the death of somebody who is alive
        here may be the view from beyond a cut, so at first it makes a suspect, who hears of it and
        can refute; read again after the time for that, it counts (memberlist takes a remote table's
        dead for suspects in the same way). One whose votes are not `proven` here (its observers may
        have been others, beyond the cut) may be one liar's word: after the longest time this peer
        looks for the member itself, and believes the word if it does not find it."""
        peer = fate.peer_id
        if fate.state is not State.DEAD or not self._known.table.is_live(peer):
            return fate
        held, since = self._old_words.get(peer, (None, now))
        profile = self._profile
        wait_s = profile.suspicion_shortest_s if proven else profile.suspicion_longest_s
        if held == fate and now - since > wait_s:
            if proven or self._unfound.get(peer) == fate.incarnation:
                return fate
            self._looks.add(peer)
        if held != fate:
            self._old_words[peer] = (fate, now)
        return Fate(peer, fate.incarnation, State.SUSPECT, fate.votes if proven else ())

    def take_looks(self) -> list[str]:
        """For whom this peer is to look now, by a dial."""
        looks = sorted(self._looks)
        self._looks.clear()
        return looks

    def not_found(self, peer: str) -> None:
        """Nobody answered at a member's addresses."""
        if (word := self._old_words.get(peer)) is not None:
            self._unfound[peer] = word[0].incarnation

    def question_for(self, peer: str) -> Fate | None:
        """What old tables say of a member that is alive here, for it to answer."""
        word = self._old_words.get(peer)
        return None if word is None else Fate(peer, word[0].incarnation, State.SUSPECT)

    def follow(self, changes: list[Change], now: float) -> None:
        """The table changed."""
        settled = [c.record.peer_id for c in changes if c.state is not State.SUSPECT]
        for peer in self._suspects.keys() & settled if self._suspects else ():
            del self._suspects[peer]
        if self._rumours:
            self._rumours.settle(settled)
        if self._cases:
            self._cases.close(settled)
        for peer in settled if self._old_words else ():
            self._old_words.pop(peer, None)
            self._unfound.pop(peer, None)
        for record, state, _ in changes:
            if state is not State.SUSPECT:
                continue
            self._suspects.setdefault(record.peer_id, now)
            if record.peer_id in self._known.graph.watched:
                self._cases.suspect(record.peer_id, record.incarnation, now)

    def review(self, now: float) -> None:
        """News came in: weigh the open cases anew, and take up those of members that are this
        peer's to observe only now."""
        graph, table = self._known.graph, self._known.table
        if not (self._cases or self._rumours):
            return
        for peer in sorted(graph.watched):
            record = table.live_record(peer)
            if record is not None and self._rumours.is_doubted(peer):
                self._cases.open(peer, record.incarnation, now)
            if record is not None and table.state(peer) is State.SUSPECT:
                self._cases.suspect(peer, record.incarnation, now)
        self._cases.review(graph.watched)

    def beat(self, now: float) -> None:
        """A heartbeat interval has passed."""
        self._repeat_doubts(now)
        self.health.beat()
        if self._known.take_doubted():
            self.health.doubted()
        if now >= self._rotate_at:
            self._rotate_at = now + self._profile.suspicion_longest_s
            self._rumours.rotate()

    def _repeat_doubts(self, now: float) -> None:
        """Whoever stays suspect did not hear of it, or its observers changed: say it again, so that
        it can refute, or be found to be dead."""
        patience_s = 2 * self._profile.suspicion_longest_s
        self._tell_again([p for p, at in self._suspects.items() if now - at > patience_s], now)

    def _tell_again(self, suspects: list[str], now: float) -> None:
        for peer in suspects:
            self._suspects[peer] = now
            fate = self._known.table.fate(peer)
            if fate is not None:
                self._known.outbox.add_fates([fate], "")

    def run(self, now: float) -> None:
        """Do what is due."""
        if not self._cases:
            return
        for peer, votes in self._cases.take_proven():
            self._declare_dead(peer, votes, now)
        for doubt in self._cases.take_shared(now):
            self._known.judge([doubt], "", now)
        for peer, votes in self._cases.take_due(now):
            self._declare_dead(peer, votes, now)
        self._cases.drop_lapsed(now)

    @property
    def has_cases(self) -> bool:
        """Whether there is anything to judge."""
        return bool(self._cases)

    def wake_at(self) -> float:
        """When something is due next; infinity without a case."""
        return self._cases.wake_at()

    def excuse(self, stalled_s: float) -> None:
        """This peer stood still for so long."""
        self.health.lagged(stalled_s)
        self._cases.excuse(stalled_s)

    def reconnected(self, now: float) -> None:
        """This peer had lost most of its neighbours, and has one again: whom it suspected alone
        shall hear of it, and has time anew to refute."""
        self._cases.restart(now)
        self._tell_again(list(self._suspects), now)

    def _declare_dead(self, peer: str, votes: tuple[Vote, ...], now: float) -> None:
        record, fate = self._known.table.live_record(peer), self._known.table.fate(peer)
        if record is not None:
            last = max(record.incarnation, fate.incarnation if fate is not None else 0)
            verdict = Fate(peer, last, State.DEAD, votes[:MAX_VOTES])
            if not self._dispute(verdict, now):
                self._known.judge([verdict], "", now)
