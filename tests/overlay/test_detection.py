import functools
import math

import pytest

from overlay.detection import Detector
from overlay.knowledge import Knowledge
from overlay.membership import Membership
from overlay.neighbourhood import Neighbourhood
from overlay.profile import PROFILES
from overlay.records import Fate, State
from overlay.wire import Evidence

LAN = PROFILES["lan"]
NETWORK = "n" * 52
NOW = 100.0


class Watch:
    """The detector of member 0 of twenty, the first of those it watches, and that one's other
    observers."""

    def __init__(self, member, count=20):
        table = Membership(member(0))
        self.known = Knowledge(table, Neighbourhood(NETWORK, table), LAN)
        self.detector = Detector(self.known, LAN, NOW)
        for number in range(1, count):
            self.known.learn(member(number), "", NOW)
        self.me = table.my_id
        self.forget_what_was_told()
        self.subject = min(self.known.graph.watched)
        self.others = sorted(self.known.graph.observers(self.subject) - {self.me})
        ids = {record.peer_id for record in table.live()}
        self.bystanders = sorted(ids - self.known.graph.watched - {self.me})

    def forget_what_was_told(self):
        self.known.outbox.flush([], NOW)
        self.known.reports.clear()

    def says(self, observer, subject=None, *, hard=False, incarnation=1):
        return Evidence(subject or self.subject, incarnation, observer, hard)

    def hear(self, *pieces, source="link", now=NOW):
        return self.detector.hear(pieces, source, now)

    def told(self, link="elsewhere"):
        """(evidence, fates) that wait for a link."""
        evidence, fates = [], []
        for _, news in self.known.outbox.flush([link], NOW):
            evidence += news.evidence
            fates += news.fates
        return evidence, fates

    def state(self, now):
        self.detector.run(now)
        return self.known.table.state(self.subject)


@pytest.fixture
def watch(member):
    return Watch(member)


# Testimony.


@pytest.mark.parametrize("hard", [True, False])
def test_what_this_peer_saw_of_one_it_watches_is_told_and_counted(watch, hard):
    watch.detector.testify(watch.subject, hard=hard, now=NOW)
    assert watch.told() == ([watch.says(watch.me, hard=hard)], [])
    assert watch.detector.has_cases
    assert watch.state(NOW) is State.ALIVE


def test_what_it_saw_of_anybody_else_is_nobodys_business(watch, id_of):
    watch.known.judge([Fate(watch.subject, 1, State.DEAD)], "", NOW)
    watch.forget_what_was_told()
    for peer in (watch.bystanders[0], id_of(77), watch.subject, watch.me):
        watch.detector.testify(peer, hard=True, now=NOW)
    assert watch.told() == ([], [])
    assert not watch.detector.has_cases


def test_testimony_is_passed_on_once_and_not_to_who_brought_it(watch):
    piece = watch.says(watch.others[0])
    watch.hear(piece, source="link")
    assert watch.told("link") == ([], [])
    assert watch.hear(piece, source="other") == []
    assert watch.told() == ([], [])


def test_testimony_about_others_is_passed_on_and_not_judged(watch):
    observers = sorted(watch.known.graph.observers(watch.bystanders[0]))
    pieces = [watch.says(observer, watch.bystanders[0], hard=True) for observer in observers]
    assert watch.hear(*pieces) == []
    assert watch.told() == (pieces, [])
    assert not watch.detector.has_cases


def test_testimony_about_strangers_and_the_gone_ends_here(watch, id_of):
    watch.known.judge([Fate(watch.bystanders[0], 1, State.LEFT)], "", NOW)
    watch.forget_what_was_told()
    assert (
        watch.hear(
            watch.says(watch.others[0], id_of(77)), watch.says(watch.others[0], watch.bystanders[0])
        )
        == []
    )
    assert watch.told() == ([], [])


def test_a_liar_that_is_no_observer_is_not_passed_on_from_its_own_link(watch):
    liar = next(peer for peer in watch.bystanders if peer not in watch.others)
    assert watch.hear(watch.says(liar, hard=True), source=liar) == []
    assert watch.told() == ([], [])
    assert not watch.detector.has_cases
    # An observer's own word, and one that came a longer way, are.
    assert watch.hear(watch.says(watch.others[0]), source=watch.others[0]) == [watch.subject]
    watch.hear(watch.says(liar, hard=True), source=watch.others[0])
    assert watch.told()[0] == [watch.says(watch.others[0]), watch.says(liar, hard=True)]


def test_liars_that_are_no_observers_convince_nobody(watch):
    liars = [peer for peer in watch.bystanders if peer not in watch.others]
    watch.hear(*[watch.says(liar, hard=True) for liar in liars])
    assert len(liars) >= 5
    for seconds in range(10):
        assert watch.state(NOW + seconds) is State.ALIVE


def test_this_peer_is_asked_to_look_for_those_it_watches_and_for_itself(watch):
    asked = watch.hear(
        watch.says(watch.others[0]),
        watch.says(watch.others[0], watch.me),
        watch.says(watch.others[0], watch.bystanders[0]),
    )
    assert asked == [watch.subject, watch.me]


def test_a_word_about_an_earlier_life_asks_nothing(watch, member):
    watch.known.learn(member(0, incarnation=3), "", NOW)
    number = next(n for n in range(20) if member(n).peer_id == watch.subject)
    watch.known.learn(member(number, incarnation=3), "", NOW)
    stale = [watch.says(watch.others[0], who, incarnation=2) for who in (watch.subject, watch.me)]
    assert watch.hear(*stale) == []
    assert not watch.detector.has_cases


# Verdicts.


def test_hard_evidence_of_a_quorum_is_a_death_at_once(watch):
    watch.detector.testify(watch.subject, hard=True, now=NOW)
    watch.hear(watch.says(watch.others[0], hard=True))
    assert watch.state(NOW) is State.ALIVE
    watch.hear(watch.says(watch.others[1], hard=True))
    assert watch.state(NOW) is State.DEAD
    assert watch.told() == ([], [Fate(watch.subject, 1, State.DEAD)])
    assert not watch.detector.has_cases
    assert [report.kind for report in watch.known.reports] == ["member.dead"]


def test_a_doubt_of_two_is_a_suspicion_and_then_a_death(watch):
    watch.detector.testify(watch.subject, hard=False, now=NOW)
    assert watch.state(NOW) is State.ALIVE
    watch.hear(watch.says(watch.others[0]), now=NOW + 0.5)
    assert watch.state(NOW + 0.5) is State.SUSPECT
    assert watch.told()[1] == [Fate(watch.subject, 1, State.SUSPECT)]
    due = watch.detector.wake_at()
    begin = NOW + 0.5
    assert begin + LAN.suspicion_shortest_s < due < begin + LAN.suspicion_longest_s
    assert watch.state(due - 0.01) is State.SUSPECT
    assert watch.state(due) is State.DEAD


def test_silence_that_a_quorum_shares_is_a_death_within_the_shortest_time(watch):
    watch.detector.testify(watch.subject, hard=False, now=NOW)
    watch.hear(*[watch.says(other) for other in watch.others[:2]])
    assert watch.state(NOW) is State.SUSPECT
    assert watch.detector.wake_at() == pytest.approx(NOW + LAN.suspicion_shortest_s)


def test_a_single_observers_doubt_lapses(watch):
    watch.detector.testify(watch.subject, hard=True, now=NOW)
    assert watch.state(NOW + LAN.lapse_s) is State.ALIVE
    assert not watch.detector.has_cases
    assert watch.detector.wake_at() == math.inf


def test_a_refutation_ends_the_case(watch, member):
    watch.detector.testify(watch.subject, hard=False, now=NOW)
    watch.hear(watch.says(watch.others[0]))
    assert watch.state(NOW) is State.SUSPECT
    number = next(n for n in range(20) if member(n).peer_id == watch.subject)
    watch.known.learn(member(number, incarnation=2), "link", NOW + 0.1)
    assert not watch.detector.has_cases
    assert watch.state(NOW + 60.0) is State.ALIVE
    # What is still under way about the life before counts no more.
    watch.hear(watch.says(watch.others[1], hard=True), watch.says(watch.others[2], hard=True))
    assert watch.state(NOW + 60.0) is State.ALIVE


def test_others_word_of_a_suspect_starts_a_case_of_those_who_watch_it(watch):
    watch.known.judge([Fate(watch.bystanders[0], 1, State.SUSPECT)], "link", NOW)
    assert not watch.detector.has_cases
    watch.known.judge([Fate(watch.subject, 1, State.SUSPECT)], "link", NOW)
    assert watch.detector.wake_at() == NOW + LAN.suspicion_longest_s
    assert watch.state(NOW + LAN.suspicion_longest_s) is State.DEAD


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_others_verdict_ends_the_case(watch, state):
    watch.detector.testify(watch.subject, hard=True, now=NOW)
    watch.known.judge([Fate(watch.subject, 1, state)], "link", NOW)
    assert not watch.detector.has_cases
    watch.forget_what_was_told()
    watch.hear(*[watch.says(other, hard=True) for other in watch.others])
    assert watch.state(NOW) is state
    assert watch.told() == ([], [])


def test_two_peers_need_nobody_else(member):
    watch = Watch(member, count=2)
    watch.detector.testify(watch.subject, hard=True, now=NOW)
    assert watch.state(NOW) is State.DEAD


# Review.


def test_those_who_become_ours_to_watch_are_judged_by_what_was_said_before(watch):
    """The last observers of one die with it: others take their place."""
    watch.hear(*[watch.says(other, watch.bystanders[0]) for other in watch.others[:1]])
    assert not watch.detector.has_cases
    watch.known.judge([Fate(watch.bystanders[0], 1, State.SUSPECT)], "", NOW)
    survivors = {watch.me, watch.bystanders[0], *watch.bystanders[1:4]}
    gone = [r.peer_id for r in watch.known.table.live() if r.peer_id not in survivors]
    watch.known.judge([Fate(peer, 1, State.DEAD) for peer in gone], "", NOW)
    assert watch.bystanders[0] in watch.known.graph.watched
    watch.detector.review(NOW)
    assert watch.detector.has_cases
    watch.detector.run(NOW + LAN.suspicion_longest_s + 0.01)
    assert watch.known.table.state(watch.bystanders[0]) is State.DEAD


def test_a_rumour_about_one_who_becomes_ours_to_watch_opens_a_case(watch):
    subject = watch.bystanders[0]
    watch.hear(watch.says(min(watch.known.graph.observers(subject)), subject))
    survivors = {watch.me, *watch.bystanders[:4]}
    gone = [r.peer_id for r in watch.known.table.live() if r.peer_id not in survivors]
    watch.known.judge([Fate(peer, 1, State.DEAD) for peer in gone], "", NOW)
    assert not watch.detector.has_cases
    watch.detector.review(NOW)
    assert watch.detector.wake_at() == NOW + LAN.lapse_s
    watch.detector.run(NOW + LAN.lapse_s)
    assert not watch.detector.has_cases
    assert watch.known.table.state(subject) is State.ALIVE


def test_who_is_no_longer_ours_to_watch_is_left_to_others(watch, id_of, member):
    watch.detector.testify(watch.subject, hard=False, now=NOW)
    number = 20
    while watch.subject in watch.known.graph.watched:
        watch.known.learn(member(number), "", NOW)
        number += 1
    watch.detector.review(NOW)
    assert not watch.detector.has_cases


def test_a_review_without_anything_said_opens_nothing(watch):
    watch.detector.review(NOW)
    assert not watch.detector.has_cases


def test_half_a_network_that_dies_at_once_is_judged_by_the_other_half(watch):
    """The dead observers of the dead do not raise the quorum."""
    assert len(watch.others) >= 4
    doubtful = watch.others[1:]
    pieces = []
    for peer in doubtful:
        witness = min(watch.known.graph.observers(peer) - set(doubtful) - {watch.subject})
        pieces.append(watch.says(witness, peer, hard=True))
    watch.hear(*pieces)
    watch.detector.testify(watch.subject, hard=True, now=NOW)
    watch.hear(watch.says(watch.others[0], hard=True))
    watch.detector.review(NOW)
    assert watch.state(NOW) is State.DEAD


# Old tables.


def test_a_death_in_an_old_table_makes_a_suspect_first_and_counts_when_read_again(watch):
    death = Fate(watch.subject, 1, State.DEAD)
    doubt = Fate(watch.subject, 1, State.SUSPECT)
    weigh = functools.partial(watch.detector.weigh_old_word, proven=True)
    assert weigh(death, NOW) == doubt
    assert weigh(death, NOW + LAN.suspicion_shortest_s) == doubt
    assert weigh(death, NOW + LAN.suspicion_shortest_s + 0.1) == death


def test_a_refutation_in_between_makes_the_old_word_a_new_one(watch, member):
    weigh = functools.partial(watch.detector.weigh_old_word, proven=True)
    weigh(Fate(watch.subject, 1, State.DEAD), NOW)
    number = next(n for n in range(20) if member(n).peer_id == watch.subject)
    watch.known.learn(member(number, incarnation=2), "", NOW + 0.5)
    later = Fate(watch.subject, 2, State.DEAD)
    assert weigh(later, NOW + 10.0) == Fate(watch.subject, 2, State.SUSPECT)
    assert weigh(later, NOW + 20.0) == later


def test_other_old_words_are_taken_as_they_are(watch, id_of):
    weigh = functools.partial(watch.detector.weigh_old_word, proven=True)
    for fate in (
        Fate(watch.subject, 1, State.LEFT),
        Fate(watch.subject, 1, State.SUSPECT),
        Fate(id_of(77), 1, State.DEAD),
    ):
        assert weigh(fate, NOW) == fate
    watch.known.judge([Fate(watch.subject, 1, State.DEAD)], "", NOW)
    assert weigh(Fate(watch.subject, 1, State.DEAD), NOW) == Fate(watch.subject, 1, State.DEAD)


# Time.


def test_made_up_testimony_is_forgotten_after_two_generations(watch):
    piece = watch.says(watch.others[0], watch.bystanders[0])
    watch.hear(piece)
    watch.told()
    now = NOW
    while now < NOW + 2 * LAN.suspicion_longest_s + 2 * LAN.heartbeat_s:
        now += LAN.heartbeat_s
        watch.detector.beat(now)
        if now < NOW + LAN.suspicion_longest_s:
            watch.hear(piece, now=now)
            assert watch.told() == ([], [])
    watch.hear(piece, now=now)
    assert watch.told() == ([piece], [])


def test_doubts_about_this_peer_make_it_patient_for_a_while(watch):
    watch.known.judge([Fate(watch.me, 1, State.SUSPECT)], "link", NOW)
    watch.detector.beat(NOW + 1.0)
    assert watch.detector.health.score == 1
    for beat in range(2, 4):
        watch.detector.beat(NOW + beat)
    assert watch.detector.health.score == 0


def test_a_stall_of_our_own_is_no_time_to_refute_and_costs_health(watch):
    watch.known.judge([Fate(watch.subject, 1, State.SUSPECT)], "link", NOW)
    watch.detector.excuse(6.0)
    assert watch.detector.wake_at() == NOW + 6.0 + LAN.suspicion_longest_s
    assert watch.detector.health.score == 7
