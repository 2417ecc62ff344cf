import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.membership import FORGET_S, Membership
from overlay.records import State


@pytest.fixture
def table(member):
    return Membership(member(0))


def words(*subjects):
    """Strategy: (number, incarnation, state) of a few members."""
    return st.lists(
        st.tuples(st.sampled_from(subjects), st.integers(0, 3), st.sampled_from(State)),
        max_size=12,
    )


def told(member, said):
    table = Membership(member(0))
    for now, (number, incarnation, state) in enumerate(said):
        table.merge(member(number, incarnation=incarnation, state=state), float(now))
    return table


@given(said=words(1, 2, 3), data=st.data())
def test_any_order_of_the_same_records_gives_the_same_table_and_digest(member, said, data):
    one = told(member, said)
    other = told(member, data.draw(st.permutations(said)))
    assert one.records() == other.records()
    assert one.digest == other.digest


@given(said=words(1, 2, 3))
def test_hearing_everything_twice_changes_nothing(member, said):
    assert told(member, said).records() == told(member, said + said).records()


@given(one=words(1, 2), two=words(2, 3), three=words(1, 3))
def test_it_does_not_matter_who_was_merged_with_whom_first(member, one, two, three):
    left = told(member, one)
    for record in told(member, two + three).records():
        left.merge(record, 0.0)
    right = told(member, one + two)
    for record in told(member, three).records():
        right.merge(record, 0.0)
    assert left.records() == right.records()


@given(said=words(1, 2, 3))
def test_the_digest_kept_along_the_way_is_that_of_the_result(member, said):
    table = told(member, said)
    fresh = Membership(member(0))
    for record in table.live():
        fresh.merge(record, 0.0)
    assert fresh.digest == table.digest


@given(said=words(0))
def test_whatever_is_said_of_me_i_stay_alive_above_it(member, said):
    table = told(member, said)
    assert table.me.state is State.ALIVE
    assert all((table.me.incarnation, 0) >= (n, {State.ALIVE: 0}.get(s, 0.5)) for _, n, s in said)


def test_the_digest_covers_live_members_only(table, member):
    alone = table.digest
    table.merge(member(1, state=State.DEAD), 0.0)
    table.merge(member(2, state=State.LEFT), 0.0)
    assert table.digest == alone
    table.merge(member(3), 0.0)
    with_three = table.digest
    assert with_three != alone
    table.merge(member(3, state=State.SUSPECT), 0.0)
    assert table.digest == with_three
    table.merge(member(3, state=State.DEAD), 0.0)
    assert table.digest == alone


def test_the_digest_tells_incarnations_apart(table, member):
    table.merge(member(1, incarnation=1), 0.0)
    before = table.digest
    table.merge(member(1, incarnation=2), 0.0)
    assert table.digest != before


def test_a_doubt_is_refuted_by_the_next_incarnation(table, member):
    change = table.merge(member(0, incarnation=7, state=State.DEAD), 1.0)
    assert change.record == table.me == member(0, incarnation=8)
    assert not change.appeared
    assert not change.vanished


def test_an_old_word_about_me_is_no_news(table, member):
    assert table.merge(member(0, incarnation=0, state=State.DEAD), 1.0) is None
    assert table.merge(member(0), 1.0) is None


def test_an_older_life_of_mine_is_outlived(table, member):
    table.merge(member(0, incarnation=5, addresses=("ws://old:1",)), 1.0)
    assert table.me == member(0, incarnation=6)


def test_the_last_incarnation_there_is_leaves_me_as_i_am(table, member):
    assert table.merge(member(0, incarnation=2**53 - 1, state=State.DEAD), 1.0) is None
    assert table.me == member(0)


def test_leaving_is_not_refuted(table, member):
    table.update_me(1.0, state=State.LEFT)
    assert table.me == member(0, incarnation=2, state=State.LEFT)
    assert table.merge(member(0, incarnation=9, state=State.SUSPECT), 2.0) is None
    assert table.me.state is State.LEFT
    assert table.live() == []


def test_a_change_says_who_appeared_and_who_vanished(table, member):
    assert table.merge(member(1), 0.0).appeared
    assert not table.merge(member(1, incarnation=2), 0.0).appeared
    assert table.merge(member(1, incarnation=2, state=State.DEAD), 0.0).vanished
    assert not table.merge(member(1, incarnation=2, state=State.LEFT), 0.0).vanished
    assert table.merge(member(1, incarnation=3), 0.0).appeared
    stranger = table.merge(member(2, state=State.DEAD), 0.0)
    assert not stranger.appeared
    assert not stranger.vanished


def test_the_dead_and_the_left_are_forgotten_after_a_day_and_the_living_never(table, member):
    table.merge(member(1), 0.0)
    table.merge(member(2, state=State.DEAD), 0.0)
    table.merge(member(3, state=State.LEFT), 10.0)
    assert table.forget(FORGET_S) == []
    assert table.forget(FORGET_S + 1) == [member(2).peer_id]
    assert table.forget(FORGET_S + 11) == [member(3).peer_id]
    assert table.forget(1e9) == []
    assert table.live() == sorted([member(0), member(1)], key=lambda record: record.peer_id)


def test_a_peer_that_left_does_not_forget_itself(table):
    table.update_me(0.0, state=State.LEFT)
    assert table.forget(1e9) == []


def test_the_dead_are_listed_newest_verdict_first_without_the_left(table, member):
    for number in (3, 1, 2):
        table.merge(member(number, state=State.DEAD), float(number))
    table.merge(member(4, state=State.LEFT), 9.0)
    assert [record.name for record in table.dead()] == ["peer3", "peer2", "peer1"]


def test_what_was_forgotten_is_not_learnt_again_from_those_who_forget_later(table, member):
    dead = member(1, incarnation=3, state=State.DEAD)
    table.merge(dead, 0.0)
    assert table.forget(FORGET_S + 1) == [dead.peer_id]
    assert table.merge(dead, FORGET_S + 2) is None
    assert table.get(dead.peer_id) is None
    # It lives after all: that is news.
    assert table.merge(member(1, incarnation=3), FORGET_S + 3) is not None
