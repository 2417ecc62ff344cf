"""What others say befell members: believed, left to wait, or set right.

Rules kept here:
- a death is believed when enough of the member's observers voted for it; until then it waits, and
  is weighed again as the table changes (`verdicts`);
- what another's table holds is an old word, which the member may have refuted since: it has time to
  do so again (`Detector.weigh_old_word`);
- a member that is linked here answers for itself: its fate is disputed as long as it may;
- a doubt that no observer vouches for makes nobody suspect: it is passed on, within limits, for its
  subject to answer (`doubts`);
- whoever tells of an earlier life has missed that the member rose above it, and is told.

Pure: time is an argument. Whether whoever is said to have voted did, is known before (`credence`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from overlay.detection import Detector
from overlay.doubts import Doubts
from overlay.knowledge import Knowledge
from overlay.news import pages
from overlay.profile import Profile
from overlay.records import Fate, State
from overlay.verdicts import Verdicts
from overlay.wire import News


class Hearsay:
    """One peer's judgement of the fates that it is told."""

    def __init__(
        self,
        known: Knowledge,
        detector: Detector,
        profile: Profile,
        dispute: Callable[[Fate, float], bool],
    ) -> None:
        """`dispute(fate, now)`: whether a member is linked here, and shall answer for itself."""
        self._known = known
        self._detector = detector
        self._dispute = dispute
        self._doubts = Doubts()
        self._verdicts = Verdicts(
            known.graph.observers,
            suspected_at=detector.suspected_at,
            refutable_s=profile.suspicion_shortest_s,
            patience_s=2 * profile.suspicion_longest_s,
        )

    def hear(self, fates: Iterable[Fate], source: str, now: float) -> list[News]:
        """Take in news; what its teller is to hear in turn."""
        held, outbox = self._known.table.fates.get, self._known.outbox
        unheard = []
        for fate in fates:
            if held(fate.peer_id) == fate:
                outbox.heard_too(fate, source)
            else:
                unheard.append(fate)
        if not unheard:
            return []
        self._take_in(self._verdicts.sift(unheard, now), source, now)
        return self._corrections(unheard)

    def read(self, fates: Iterable[Fate], source: str, now: float) -> None:
        """Take in the fates that another's table holds."""
        weigh, is_proven = self._detector.weigh_old_word, self._verdicts.is_proven
        weighed = [weigh(fate, now, proven=is_proven(fate)) for fate in fates]
        self._take_in(weighed, source, now)

    def review(self, now: float) -> None:
        """The table changed, or time passed: weigh anew what waits."""
        if self._verdicts:
            self._believe(self._verdicts.review(now), "", now)

    def _take_in(self, fates: Iterable[Fate], source: str, now: float) -> None:
        believed = []
        for fate in fates:
            if fate.state is State.SUSPECT and self._is_mere_question(fate):
                self._pass_on(fate, source, now)
            else:
                believed.append(fate)
        self._believe(believed, source, now)

    def _is_mere_question(self, fate: Fate) -> bool:
        """Whether a doubt is news, and nobody whose word counts vouches for it."""
        table = self._known.table
        record = table.live_record(fate.peer_id)
        return (
            record is not None
            and fate.incarnation >= record.incarnation
            and table.state(fate.peer_id) is State.ALIVE
            and not self._verdicts.has_witness(fate)
        )

    def _pass_on(self, doubt: Fate, source: str, now: float) -> None:
        """To whom it is about; this peer answers for itself."""
        subject, incarnation = doubt.peer_id, doubt.incarnation
        if not self._doubts.may_bring(source, subject, incarnation, now):
            return
        if subject == self._known.table.my_id:
            self._known.judge([doubt], source, now)
        else:
            self._known.outbox.add_fates([doubt], source)

    def _believe(self, fates: Iterable[Fate], source: str, now: float) -> None:
        undisputed = [fate for fate in fates if not self._dispute(fate, now)]
        if undisputed:
            self._known.judge(undisputed, source, now)

    def _corrections(self, fates: Iterable[Fate]) -> list[News]:
        table = self._known.table
        newer = [
            record
            for fate in fates
            if (record := table.get(fate.peer_id)) is not None
            and record.incarnation > fate.incarnation
            and record.peer_id != table.my_id
        ]
        return pages(newer)
