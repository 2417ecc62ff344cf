import math

import pytest

from overlay.cases import Cases
from overlay.profile import PROFILES
from overlay.records import Fate, State, Vote
from overlay.rumours import Rumours
from overlay.wire import Evidence

LAN = PROFILES["lan"]
NOW = 100.0


class Court:
    """Cases about members 8 and 9, which 1 to 6 observe, with the rumours that they rest on."""

    def __init__(self, id_of):
        self._id_of = id_of
        self.observing = {id_of(subject): frozenset(map(id_of, range(1, 7))) for subject in (8, 9)}
        self.rumours = Rumours()
        self.cases = Cases(self, LAN, self.rumours)

    def observers(self, peer):
        return self.observing.get(peer, frozenset())

    def hear(self, observer, subject=9, *, hard=False, incarnation=1):
        """A testimony came in, and was kept."""
        piece = Evidence(self._id_of(subject), incarnation, self._id_of(observer), hard)
        self.rumours.add([piece])
        self.rumours.keep(piece)

    def accuse(self, *observers, subject=9, hard=False, now=NOW):
        for observer in observers:
            self.hear(observer, subject, hard=hard)
            self.cases.open(self._id_of(subject), 1, now)

    def proven(self):
        """The members against whom there is proof by now."""
        return [subject for subject, _ in self.cases.take_proven()]

    def ripe(self, now):
        """What comes of the cases now, in the order in which a detector asks."""
        proven = self.proven()
        shared = [fate.peer_id for fate in self.cases.take_shared(now)]
        due = [subject for subject, _ in self.cases.take_due(now)]
        self.cases.drop_lapsed(now)
        return proven, shared, due


@pytest.fixture
def court(id_of):
    return Court(id_of)


@pytest.fixture
def nine(id_of):
    return id_of(9)


def test_without_a_case_nothing_is_due(court):
    assert not court.cases
    assert court.cases.wake_at() == math.inf
    assert court.ripe(1e9) == ([], [], [])


def test_a_quorum_of_hard_evidence_is_proof_at_once(court, nine):
    court.accuse(1, 2, hard=True)
    assert court.proven() == []
    court.accuse(3, hard=True)
    assert court.ripe(NOW) == ([nine], [], [])
    assert not court.cases


def test_a_verdict_comes_with_the_votes_that_it_was_made_of(court, nine, id_of):
    votes = tuple(Vote(id_of(n), 1, True, b"") for n in (1, 2, 3))
    court.accuse(7, 1, 2, 3, hard=True)
    assert court.cases.take_proven() == [(nine, votes)]
    soft = tuple(Vote(id_of(n), 1, False, b"") for n in (4, 5))
    court.accuse(4, 5, subject=8)
    court.cases.take_shared(NOW)
    assert court.cases.take_due(NOW + LAN.suspicion_longest_s) == [(id_of(8), soft)]


def test_a_doubt_that_nobody_shares_lapses(court):
    court.accuse(1)
    assert court.cases.wake_at() == NOW + LAN.lapse_s
    assert court.ripe(NOW + 0.99 * LAN.lapse_s) == ([], [], [])
    assert court.cases
    assert court.ripe(NOW + LAN.lapse_s) == ([], [], [])
    assert not court.cases


def test_a_doubt_that_two_share_is_a_suspicion_once(court, nine):
    court.accuse(1)
    court.accuse(2, now=NOW + 0.5)
    assert court.cases.wake_at() <= NOW + 0.5
    assert court.cases.take_shared(NOW + 0.5) == [Fate(nine, 1, State.SUSPECT)]
    assert court.cases.take_shared(NOW + 0.6) == []


def test_a_suspicion_comes_with_the_votes_that_it_was_made_of(court, id_of):
    court.accuse(7, 1, 2)
    (doubt,) = court.cases.take_shared(NOW)
    assert doubt.votes == tuple(Vote(id_of(n), 1, False, b"") for n in (1, 2))


def test_a_suspicion_becomes_due_when_its_time_to_refute_is_over(court, nine):
    court.accuse(1, 2, 3)
    court.cases.take_shared(NOW + 0.25)
    due = NOW + 0.25 + LAN.suspicion_shortest_s
    assert court.cases.wake_at() == pytest.approx(due)
    assert court.ripe(due - 0.01) == ([], [], [])
    assert court.ripe(due + 0.001) == ([], [], [nine])
    assert not court.cases


def test_only_hard_evidence_waits_for_its_quorum_before_it_is_a_suspicion(court, nine):
    court.accuse(1, 2, hard=True)
    assert court.cases.take_shared(NOW + 0.99 * LAN.hard_wait_s) == []
    assert court.cases.wake_at() == NOW + LAN.hard_wait_s
    assert court.ripe(NOW + LAN.hard_wait_s) == ([], [nine], [])
    assert court.cases  # it did not lapse in the same moment


def test_one_liar_is_heard_once(court):
    for incarnation in (1, 2, 3):
        court.hear(1, hard=True, incarnation=incarnation)
        court.accuse(1, hard=True)
        court.accuse(1)
    assert court.ripe(NOW + 0.5) == ([], [], [])


@pytest.mark.parametrize("stranger", [0, 7, 8])
def test_who_is_no_observer_is_not_counted(court, stranger):
    court.accuse(1, 2, hard=True)
    court.accuse(stranger, hard=True)
    assert court.proven() == []


def test_evidence_about_an_earlier_life_is_not_counted(court, nine):
    for observer in (1, 2, 3):
        court.hear(observer, hard=True, incarnation=1)
    court.cases.open(nine, 2, NOW)
    assert court.ripe(NOW) == ([], [], [])
    for observer in (1, 2, 3):
        court.hear(observer, hard=True, incarnation=2)
    court.cases.open(nine, 2, NOW)
    assert court.ripe(NOW) == ([nine], [], [])


def test_a_new_life_is_a_new_case_and_an_older_word_reopens_none(court, nine):
    court.cases.suspect(nine, 1, NOW)
    court.cases.open(nine, 2, NOW + 3.0)
    assert court.cases.wake_at() == NOW + 3.0 + LAN.lapse_s  # nobody called this life suspect
    court.cases.open(nine, 1, NOW + 3.5)
    assert court.cases.wake_at() == NOW + 3.0 + LAN.lapse_s


def test_others_word_of_a_suspect_starts_the_longest_time_to_refute(court, nine):
    court.cases.suspect(nine, 1, NOW)
    assert court.cases.wake_at() == NOW + LAN.suspicion_longest_s
    court.cases.suspect(nine, 1, NOW + 2.0)  # said again
    assert court.cases.wake_at() == NOW + LAN.suspicion_longest_s
    assert court.ripe(NOW + LAN.lapse_s) == ([], [], [])
    assert court.ripe(NOW + LAN.suspicion_longest_s) == ([], [], [nine])


def test_agreement_shortens_the_time_to_refute(court, nine):
    court.cases.suspect(nine, 1, NOW)
    ends = []
    for observer in (1, 2, 3, 4):
        court.accuse(observer, now=NOW + 0.1)
        ends.append(court.cases.wake_at() - NOW)
    assert ends[0] == pytest.approx(LAN.suspicion_longest_s)
    assert LAN.suspicion_shortest_s < ends[1] < LAN.suspicion_longest_s
    assert ends[2:] == pytest.approx([LAN.suspicion_shortest_s] * 2)


@pytest.mark.parametrize(
    ("doubted", "needed"), [((), 3), ((6,), 3), ((5, 6), 3), ((4, 5, 6), 2), ((3, 4, 5, 6), 2)]
)
def test_observers_in_doubt_themselves_do_not_raise_the_quorum(court, nine, doubted, needed):
    for observer in doubted:
        court.hear(1, observer)
    for count, observer in enumerate((1, 2, 3), start=1):
        court.accuse(observer, hard=True)
        proven = court.proven()
        assert proven == ([nine] if count == needed else [])
        if proven:
            break


def test_a_later_doubt_about_the_observers_is_weighed_at_the_review(court, nine):
    court.accuse(1, 2, hard=True)
    for observer in (3, 4, 5, 6):
        court.hear(1, observer)
    assert court.proven() == []
    court.cases.review([nine])
    assert court.proven() == [nine]


def test_the_only_observer_needs_nobody_to_share_its_doubt(court, nine, id_of):
    court.observing[nine] = frozenset([id_of(1)])
    court.accuse(1)
    assert court.cases.take_shared(NOW) == [Fate(nine, 1, State.SUSPECT)]
    assert court.cases.wake_at() == NOW + LAN.suspicion_shortest_s


def test_who_is_not_watched_any_more_has_no_case_here(court, id_of):
    court.accuse(1, 2, subject=8)
    court.accuse(1, 2, subject=9)
    court.cases.review([id_of(8), id_of(5)])
    assert court.cases.take_shared(NOW) == [Fate(id_of(8), 1, State.SUSPECT)]


def test_closed_cases_are_gone_and_others_are_not(court, nine, id_of):
    court.accuse(1, 2, subject=8)
    court.accuse(1, 2, subject=9)
    court.cases.close([nine, id_of(77)])
    assert court.cases.take_shared(NOW) == [Fate(id_of(8), 1, State.SUSPECT)]
    court.cases.close([id_of(8)])
    assert not court.cases


def test_the_next_that_is_due_of_all_cases_wakes(court, nine, id_of):
    court.cases.suspect(nine, 1, NOW)
    court.accuse(1, subject=8, now=NOW + 0.5)
    assert court.cases.wake_at() == NOW + 0.5 + LAN.lapse_s
    court.cases.close([id_of(8)])
    assert court.cases.wake_at() == NOW + LAN.suspicion_longest_s


def test_time_in_which_this_peer_stood_still_is_nobodys_time_to_refute(court, nine):
    court.cases.suspect(nine, 1, NOW)
    court.cases.excuse(7.0)
    assert court.cases.wake_at() == NOW + 7.0 + LAN.suspicion_longest_s
    assert court.cases.take_due(NOW + LAN.suspicion_longest_s) == []
