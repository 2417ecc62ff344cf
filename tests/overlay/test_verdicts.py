import math

import pytest

from overlay.records import MAX_VOTES, Fate, State, Vote
from overlay.verdicts import MAX_WAITING, Verdicts

NOW, PATIENCE_S, REFUTABLE_S = 100.0, 10.0, 0.8


class Court:
    """Verdicts about member 9, which 1 to 6 observe, and whoever else is given observers."""

    def __init__(self, id_of):
        self._id_of = id_of
        self.observing = {id_of(9): frozenset(map(id_of, range(1, 7)))}
        self.suspects = {}
        self.verdicts = Verdicts(
            lambda peer: self.observing.get(peer, frozenset()),
            suspected_at=lambda peer: self.suspects.get(peer, math.inf),
            refutable_s=REFUTABLE_S,
            patience_s=PATIENCE_S,
        )

    def death(self, *observers, peer=9, incarnation=1, voted_in=None, hard=True):
        life = incarnation if voted_in is None else voted_in
        votes = tuple(Vote(self._id_of(number), life, hard, b"") for number in observers)
        return Fate(self._id_of(peer), incarnation, State.DEAD, votes)

    def designate(self, *observers, peer=9):
        """The table changes: these observe a member now."""
        self.observing[self._id_of(peer)] = frozenset(map(self._id_of, observers))

    def hear(self, *observers, now=NOW, **options):
        """Who voted in what is believed after this was told; None if it is not."""
        return self.read(self.verdicts.sift([self.death(*observers, **options)], now))

    def review(self, now=NOW):
        return self.read(self.verdicts.review(now))

    def read(self, fates):
        numbers = {self._id_of(number): number for number in range(20)}
        found = [sorted(numbers[vote.observer] for vote in fate.votes) for fate in fates]
        return found[0] if found else None


@pytest.fixture
def court(id_of):
    return Court(id_of)


def test_two_observers_are_enough_and_one_is_not(court):
    assert court.hear(1) is None
    assert court.hear(3, 5) == [1, 3, 5]


def test_soft_votes_make_a_suspect_and_count_when_it_had_time_to_refute(court, id_of):
    (doubt,) = court.verdicts.sift([court.death(1, 2, hard=False)], NOW)
    assert doubt == Fate(id_of(9), 1, State.SUSPECT)
    assert len(doubt.votes) == 2
    court.suspects[id_of(9)] = NOW
    assert court.review(NOW + 0.7) is None
    assert court.review(NOW + 0.9) == [1, 2]


def test_a_liars_hard_vote_beside_an_old_soft_one_makes_a_suspect_only(court, id_of):
    liar = court.death(1).votes
    old = court.death(2, hard=False).votes
    (doubt,) = court.verdicts.sift([Fate(id_of(9), 1, State.DEAD, liar + old)], NOW)
    assert doubt.state is State.SUSPECT


def test_nobodys_word_is_no_verdict(court):
    assert court.hear() is None


def test_everything_but_a_death_passes(court, id_of):
    others = [Fate(id_of(9), 1, state) for state in (State.SUSPECT, State.LEFT)]
    assert court.verdicts.sift(others, NOW) == others
    assert not court.verdicts


@pytest.mark.parametrize("votes", [(7, 8), (1, 7), (1, 9), (7, 8, 10, 11, 12)])
def test_who_is_no_observer_does_not_count(court, votes):
    assert court.hear(*votes) is None


def test_one_observer_counts_once_however_often_it_votes(court):
    assert court.hear(1, 1, 1) is None
    for _ in range(5):
        assert court.hear(1) is None


def test_votes_of_an_earlier_life_do_not_count(court):
    assert court.hear(1, 2, incarnation=5, voted_in=4) is None
    assert court.hear(1, 2, incarnation=5, voted_in=6) == [1, 2]


@pytest.mark.parametrize(("observers", "needed"), [((1, 2), 2), ((1,), 1), ((1, 2, 3), 2)])
def test_fewer_are_enough_only_where_there_are_no_more(court, observers, needed):
    court.designate(*observers)
    assert court.hear(*observers[: needed - 1]) is None
    assert court.hear(*observers[:needed]) == [*observers[:needed]]


def test_of_whom_nobody_observes_no_death_is_believed(court):
    assert court.hear(1, 2, 3, peer=8) is None
    court.designate(1, 2, peer=8)
    assert court.review() == [1, 2, 3]


def test_votes_that_come_one_by_one_are_added_up_and_passed_on_together(court):
    assert court.hear(1) is None
    assert court.hear(7) is None
    assert court.hear(2) == [1, 2, 7]
    assert not court.verdicts


def test_a_verdict_that_waits_is_believed_when_the_table_changes(court):
    court.designate(1, 11, 12, 13, 14, 15)
    assert court.hear(1, 2) is None
    assert court.review() is None
    assert court.verdicts
    court.designate(1, 2, 11, 12, 13, 14)
    assert court.review() == [1, 2]
    assert court.review() is None
    assert not court.verdicts


def test_what_is_believed_waits_no_longer(court):
    court.hear(7)
    assert court.verdicts
    court.hear(1, 2)
    assert not court.verdicts


def test_a_verdict_waits_no_longer_than_its_patience(court):
    court.hear(1)
    court.review(NOW + PATIENCE_S)
    assert court.verdicts
    court.review(NOW + PATIENCE_S + 0.1)
    assert not court.verdicts


def test_what_is_said_again_does_not_make_a_verdict_wait_longer(court):
    court.hear(1)
    court.hear(1, now=NOW + PATIENCE_S)
    court.review(NOW + PATIENCE_S + 0.1)
    assert not court.verdicts


def test_a_death_in_a_later_life_replaces_the_one_that_waits(court):
    court.hear(1, incarnation=1)
    assert court.hear(2, incarnation=2) is None
    assert court.hear(3, incarnation=2) == [2, 3]


def test_an_old_vote_that_is_played_again_replaces_no_newer_one(court):
    assert court.hear(1, incarnation=5) is None
    assert court.hear(1, incarnation=5, voted_in=2) is None
    assert court.hear(2, incarnation=5) == [1, 2]


def test_strangers_votes_leave_room_for_observers(court):
    for number in range(10, 10 + MAX_VOTES):
        assert court.hear(number) is None
    assert court.hear(1) is None
    found = court.hear(2)
    assert found is not None
    assert {1, 2} <= set(found)
    assert len(found) <= MAX_VOTES


def test_what_waits_is_bounded_and_the_oldest_goes(court, id_of):
    court.hear(1)
    for number in range(MAX_WAITING - 1):
        court.verdicts.sift([Fate(id_of(f"made up {number}"), 1, State.DEAD)], NOW)
    court.designate(1)
    assert court.review() == [1]  # it was still there
    court.designate(1, 2)
    court.hear(1)
    for number in range(MAX_WAITING):
        court.verdicts.sift([Fate(id_of(f"another {number}"), 1, State.DEAD)], NOW)
    court.designate(1)
    assert court.review() is None
