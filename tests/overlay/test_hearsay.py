import pytest

from overlay.detection import Detector
from overlay.hearsay import Hearsay
from overlay.knowledge import Knowledge
from overlay.membership import Membership
from overlay.neighbourhood import Neighbourhood
from overlay.profile import PROFILES
from overlay.records import Fate, State, Vote

LAN = PROFILES["lan"]
NOW = 100.0


class Ear:
    """Member 0 of twenty, which hears of member 9; `linked` are those who answer for themselves."""

    def __init__(self, member):
        self.member = member
        self.table = Membership(member(0))
        self.known = Knowledge(self.table, Neighbourhood("n" * 52, self.table), LAN)
        self.linked = set()
        self.hearsay = Hearsay(
            self.known,
            Detector(self.known, LAN, NOW),
            LAN,
            lambda fate, now: not fate.is_live and fate.peer_id in self.linked,
        )
        for number in range(1, 20):
            self.known.learn(member(number), "", NOW)
        self.known.outbox.flush([], NOW)
        self.subject = member(9).peer_id

    def death(self, *, observers=2, incarnation=1, state=State.DEAD):
        those = sorted(self.known.graph.observers(self.subject))[:observers]
        votes = tuple(Vote(observer, incarnation, True, b"") for observer in those)
        return Fate(self.subject, incarnation, state, votes)

    @property
    def state(self):
        return self.table.state(self.subject)

    def hearers(self, *links):
        """Who is told what waits."""
        return [link for link, _ in self.known.outbox.flush(links, NOW)]


@pytest.fixture
def ear(member):
    return Ear(member)


def test_a_proven_death_is_believed_and_told_to_all_but_its_teller(ear):
    assert ear.hearsay.hear([ear.death()], "a", NOW) == []
    assert ear.state is State.DEAD
    assert ear.hearers("a", "b") == ["b"]


def test_whoever_tells_the_same_too_need_not_hear_it(ear):
    for teller in ("a", "b"):
        ear.hearsay.hear([ear.death()], teller, NOW)
    assert ear.hearers("a", "b", "c") == ["c"]


def test_a_death_without_proof_waits_for_more_votes(ear):
    ear.hearsay.hear([ear.death(observers=1)], "a", NOW)
    ear.hearsay.review(NOW)
    assert ear.state is State.ALIVE
    ear.hearsay.hear([ear.death(observers=2)], "b", NOW)
    assert ear.state is State.DEAD


def test_a_death_that_waits_is_believed_when_the_table_has_changed(ear, member):
    """Its voters observe the member only since others left."""
    observers = ear.known.graph.observers(ear.subject)
    leavers = [Fate(peer, 1, State.LEFT) for peer in sorted(observers - {ear.table.my_id})]
    later = Ear(member)
    later.known.judge(leavers, "", NOW)
    voters = sorted(later.known.graph.observers(ear.subject) - observers - {ear.table.my_id})
    votes = tuple(Vote(voter, 1, True, b"") for voter in voters[:2])
    ear.hearsay.hear([Fate(ear.subject, 1, State.DEAD, votes)], "a", NOW)
    ear.known.judge(leavers[:1], "", NOW)
    ear.hearsay.review(NOW)
    assert ear.state is State.ALIVE
    ear.known.judge(leavers[1:], "", NOW)
    ear.hearsay.review(NOW)
    assert ear.state is State.DEAD


def test_who_is_linked_here_answers_for_itself(ear):
    ear.linked.add(ear.subject)
    ear.hearsay.hear([ear.death()], "a", NOW)
    ear.hearsay.read([ear.death()], "a", NOW)
    ear.hearsay.read([ear.death()], "a", NOW + 2 * LAN.suspicion_longest_s)
    assert ear.table.is_live(ear.subject)


def test_who_tells_of_an_earlier_life_hears_of_the_present_one(ear, member):
    risen = member(9, incarnation=3)
    ear.known.learn(risen, "", NOW)
    (answer,) = ear.hearsay.hear([ear.death()], "a", NOW)
    assert (answer.records, answer.fates) == ((risen,), ())
    assert ear.state is State.ALIVE


def test_a_word_about_oneself_is_answered_by_the_table_alone(ear, id_of):
    me = Fate(id_of(0), 1, State.SUSPECT)
    assert ear.hearsay.hear([me], "a", NOW) == []
    assert ear.table.me.incarnation == 2
    assert ear.hearsay.hear([me], "a", NOW) == []


def test_a_death_in_anothers_table_makes_a_suspect_first(ear):
    ear.hearsay.read([ear.death()], "a", NOW)
    assert ear.state is State.SUSPECT
    ear.hearsay.read([ear.death()], "a", NOW + LAN.suspicion_shortest_s + 0.1)
    assert ear.state is State.DEAD


def test_a_death_in_anothers_table_that_is_not_proven_here_counts_later(ear):
    death = ear.death(observers=1)
    for after_s in (0.0, LAN.suspicion_shortest_s + 0.1):
        ear.hearsay.read([death], "a", NOW + after_s)
        assert ear.state is State.SUSPECT
    ear.hearsay.read([death], "a", NOW + LAN.suspicion_longest_s + 0.1)
    assert ear.state is State.DEAD


# Doubts without proof.


def exhaust(ear, source, subject=None):
    """`source` has doubted a member until it may no more."""
    while ear.hearsay._doubts.may_bring(source, subject or ear.subject, NOW):
        pass


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD])
def test_who_doubts_too_often_is_not_heeded_however_often_it_says_so(ear, read, state):
    exhaust(ear, "a")
    take_in = ear.hearsay.read if read else ear.hearsay.hear
    for after_s in (0.0, 1.0, 2 * LAN.suspicion_longest_s):
        take_in([Fate(ear.subject, 1, state)], "a", NOW + after_s)
    assert ear.state is State.ALIVE
    assert ear.hearers("a", "b") == []


def test_others_are_heeded_all_the_same(ear):
    exhaust(ear, "a")
    ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT)], "b", NOW)
    assert ear.state is State.SUSPECT


@pytest.mark.parametrize("observers", [1, 2])
def test_a_doubt_with_an_observers_vote_is_heeded_always(ear, observers):
    exhaust(ear, "a")
    doubt = ear.death(observers=observers, state=State.SUSPECT)
    ear.hearsay.hear([doubt], "a", NOW)
    assert ear.state is State.SUSPECT
    assert ear.table.fate(ear.subject).votes == doubt.votes


def test_the_vote_of_somebody_else_or_about_an_earlier_life_is_no_observers(ear, id_of):
    exhaust(ear, "a")
    observers = ear.known.graph.observers(ear.subject)
    stranger = next(id_of(n) for n in range(1, 9) if id_of(n) not in observers)
    for observer, incarnation in ((stranger, 1), (min(observers), 0)):
        votes = (Vote(observer, incarnation, True, b""),)
        ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT, votes)], "a", NOW)
        assert ear.state is State.ALIVE


def test_a_doubt_of_oneself_counts_like_any_other(ear, id_of):
    exhaust(ear, "a", id_of(0))
    ear.hearsay.hear([Fate(id_of(0), 1, State.SUSPECT)], "a", NOW)
    assert ear.table.me.incarnation == 1
    ear.hearsay.hear([Fate(id_of(0), 1, State.SUSPECT)], "b", NOW)
    assert ear.table.me.incarnation == 2


def test_what_is_no_news_costs_nothing(ear):
    ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT)], "b", NOW)
    for _ in range(200):
        ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT)], "a", NOW)
        ear.hearsay.hear([Fate(ear.subject, 0, State.SUSPECT)], "a", NOW)
        ear.hearsay.read([Fate(ear.subject, 1, State.SUSPECT)], "a", NOW)
    assert ear.hearsay._doubts.may_bring("a", ear.subject, NOW)


def test_a_proven_old_word_makes_a_suspect_with_its_votes_and_another_without(ear):
    for death, votes in ((ear.death(), 2), (ear.death(observers=1), 0)):
        other = type(ear)(ear.member)
        other.hearsay.read([death], "a", NOW)
        assert other.state is State.SUSPECT
        assert len(other.table.fate(ear.subject).votes) == votes
