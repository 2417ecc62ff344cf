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
        self.table = Membership(member(0))
        self.known = Knowledge(self.table, Neighbourhood("n" * 52, self.table), LAN)
        self.linked = set()
        self.detector = Detector(self.known, LAN, NOW)
        self.hearsay = Hearsay(
            self.known,
            self.detector,
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


# Words that nobody vouches for.


def read(ear, fate, *, after_s=0.0, source="a"):
    ear.hearsay.read([fate], source, NOW + after_s)


LATER_S = LAN.suspicion_longest_s + 0.1


def test_a_death_in_anothers_table_without_votes_counts_for_who_does_not_find_the_member(ear):
    death = Fate(ear.subject, 1, State.DEAD)
    for after_s in (0.0, LAN.suspicion_shortest_s + 0.1):
        read(ear, death, after_s=after_s)
        assert ear.detector.take_looks() == []
    for after_s in (LATER_S, 2 * LATER_S):
        read(ear, death, after_s=after_s)
        assert ear.state is State.ALIVE
        assert ear.detector.take_looks() == [ear.subject]
    ear.detector.not_found(ear.subject)
    read(ear, death, after_s=3 * LATER_S)
    assert ear.state is State.DEAD


def test_whom_one_looked_for_in_vain_counts_in_that_life_alone(ear, member):
    ear.detector.not_found(ear.subject)  # for another reason: nobody said that it is dead
    read(ear, Fate(ear.subject, 1, State.DEAD))
    ear.detector.not_found(ear.subject)
    ear.known.learn(member(9, incarnation=2), "", NOW)
    for after_s in (0.0, LATER_S):
        read(ear, Fate(ear.subject, 2, State.DEAD), after_s=after_s)
    assert ear.state is State.ALIVE


def test_one_vote_in_an_old_table_proves_nothing(ear):
    death = ear.death(observers=1)
    read(ear, death)
    assert ear.state is State.ALIVE
    read(ear, death, after_s=LATER_S)
    assert ear.detector.take_looks() == [ear.subject]


def test_who_links_up_answers_for_what_old_tables_say(ear):
    assert ear.detector.question_for(ear.subject) is None
    read(ear, Fate(ear.subject, 1, State.DEAD))
    assert ear.detector.question_for(ear.subject) == Fate(ear.subject, 1, State.SUSPECT)


@pytest.mark.parametrize("by_table", [False, True])
@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD])
def test_a_doubt_that_nobody_vouches_for_is_passed_on_and_believed_by_nobody(ear, by_table, state):
    word = Fate(ear.subject, 1, state)
    take_in = ear.hearsay.read if by_table else ear.hearsay.hear
    passes = by_table or state is State.SUSPECT  # a death without votes waits for them
    for source in ("a", "b"):  # once
        take_in([word], source, NOW)
        assert ear.state is State.ALIVE
        assert ear.hearers("a", "b", "c") == (["b", "c"] if passes and source == "a" else [])


def exhaust(ear, source, subject=None):
    """`source` has asked after a member until it may no more."""
    while ear.hearsay._doubts.may_bring(source, subject or ear.subject, 1, NOW):
        ear.hearsay._doubts._asked.clear()
    ear.hearsay._doubts._asked.clear()


def test_who_asks_too_often_is_not_passed_on_and_others_are(ear):
    exhaust(ear, "a")
    for source, told in (("a", []), ("b", ["a"])):
        ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT)], source, NOW)
        assert ear.hearers("a", "b") == told


@pytest.mark.parametrize("observers", [1, 2])
def test_a_doubt_with_an_observers_vote_is_believed_always(ear, observers):
    exhaust(ear, "a")
    doubt = ear.death(observers=observers, state=State.SUSPECT)
    ear.hearsay.hear([doubt], "a", NOW)
    assert ear.state is State.SUSPECT
    assert ear.table.fate(ear.subject).votes == doubt.votes


def test_the_vote_of_somebody_else_or_about_an_earlier_life_is_no_observers(ear, id_of):
    observers = ear.known.graph.observers(ear.subject)
    stranger = next(id_of(n) for n in range(1, 9) if id_of(n) not in observers)
    for observer, incarnation in ((stranger, 1), (min(observers), 0)):
        votes = (Vote(observer, incarnation, True, b""),)
        ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT, votes)], "a", NOW)
        assert ear.state is State.ALIVE


def test_this_peer_answers_for_itself_within_the_same_limits(ear, id_of):
    exhaust(ear, "a", id_of(0))
    ear.hearsay.hear([Fate(id_of(0), 1, State.SUSPECT)], "a", NOW)
    assert ear.table.me.incarnation == 1
    ear.hearsay.hear([Fate(id_of(0), 1, State.SUSPECT)], "b", NOW)
    assert ear.table.me.incarnation == 2


def test_what_is_no_news_costs_nothing(ear):
    ear.hearsay.hear([ear.death(state=State.SUSPECT)], "b", NOW)
    for _ in range(200):
        ear.hearsay.hear([Fate(ear.subject, 1, State.SUSPECT)], "a", NOW)
        ear.hearsay.hear([Fate(ear.subject, 0, State.SUSPECT)], "a", NOW)
        ear.hearsay.read([Fate(ear.subject, 1, State.SUSPECT)], "a", NOW)
    assert ear.hearsay._doubts.may_bring("a", ear.subject, 1, NOW)


def test_a_proven_old_word_makes_a_suspect_with_its_votes(ear):
    ear.hearsay.read([ear.death()], "a", NOW)
    assert ear.state is State.SUSPECT
    assert len(ear.table.fate(ear.subject).votes) == 2
