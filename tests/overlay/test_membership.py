import dataclasses
import functools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.certificates import certify
from overlay.digests import BUCKETS, part_of
from overlay.membership import FORGET_S, MAX_HEARD_INCARNATION, Change, Membership
from overlay.records import MAX_INCARNATION, Fate, Member, State
from overlay.revocation import Revocation

FATES = (State.SUSPECT, State.DEAD, State.LEFT)


@pytest.fixture
def table(member):
    return Membership(member(0))


@pytest.fixture
def fate(id_of):
    """fate(number, incarnation, state): what befell a fixed member."""
    return lambda number, incarnation, state: Fate(id_of(number), incarnation, state)


def words(*subjects):
    """Strategy: what is said of a few members, (number, incarnation, state) each; alive is what
    the member says of itself, the rest its fates."""
    return st.lists(
        st.tuples(
            st.sampled_from(subjects),
            st.integers(0, 3),
            st.sampled_from([State.ALIVE, *FATES]),
        ),
        max_size=14,
    )


def tell(table, member, said, now=0.0):
    for number, incarnation, state in said:
        if state is State.ALIVE:
            table.merge(member(number, incarnation=incarnation, name=f"life{incarnation}"), now)
        else:
            table.judge(Fate(member(number).peer_id, incarnation, state), now)


def told(member, said, *, known=(1, 2, 3)):
    """A table whose `known` were met in their first life before `said` was."""
    table = Membership(member(0))
    for number in known:
        table.merge(member(number, incarnation=0, name="life0"), 0.0)
    tell(table, member, said)
    return table


def pour(source, target, now=0.0):
    """Everything one table holds is told to another one."""
    for record in source.records():
        target.merge(record, now)
        held = source.fate(record.peer_id)
        if held is not None:
            target.judge(held, now)


def live_lives(table):
    return {(record.peer_id, record.incarnation) for record in table.live()}


# Merging.


@given(said=words(1, 2, 3), data=st.data())
def test_any_order_of_the_same_words_gives_the_same_rows_and_digests(member, said, data):
    one = told(member, said)
    other = told(member, data.draw(st.permutations(said)))
    assert one.members() == other.members()
    assert one.digests == other.digests


@given(said=words(1, 2, 3))
def test_hearing_everything_twice_is_no_news(member, said):
    once = told(member, said)
    rows = once.members()
    for number, incarnation, state in said:
        if state is State.ALIVE:
            change = once.merge(member(number, incarnation=incarnation), 9.0)
        else:
            change = once.judge(Fate(member(number).peer_id, incarnation, state), 9.0)
        assert change is None
    assert once.members() == rows


@given(one=words(1, 2), two=words(2, 3), three=words(1, 3))
def test_it_does_not_matter_which_tables_were_joined_first(member, one, two, three):
    left, right, both = told(member, one), told(member, one), told(member, two)
    pour(told(member, two), left)
    pour(told(member, three), left)
    pour(told(member, three), both)
    pour(both, right)
    assert left.live() == right.live()
    assert left.digests == right.digests


@given(said=words(1, 2, 3))
def test_the_digest_kept_along_the_way_is_that_of_the_result(member, said):
    table = told(member, said)
    fresh = Membership(member(0))
    for record in table.live():
        fresh.merge(record, 0.0)
    assert fresh.digests == table.digests


@given(one=words(1, 2, 3), two=words(1, 2, 3))
def test_digests_are_equal_just_when_the_same_lives_are_live(member, one, two):
    left, right = told(member, one), told(member, two)
    assert (left.digest == right.digest) is (live_lives(left) == live_lives(right))


@given(said=words(1, 2, 3))
def test_all_views_of_the_table_agree(member, said):
    table = told(member, said)
    for row in table.members():
        peer = row.record.peer_id
        assert table.state(peer) is row.state
        assert table.get(peer) == row.record
        assert table.is_live(peer) is row.is_live
        assert (peer in table.gone) is not row.is_live
        assert table.live_record(peer) == (row.record if row.is_live else None)
        assert (table.fate(peer) is None) is (row.state is State.ALIVE)
        assert peer in table.known
    assert [row.record for row in table.members() if row.is_live] == table.live()
    assert sorted(table.live_ids()) == [record.peer_id for record in table.live()]
    assert len(table.live()) == table.live_count
    assert set(table.dead()) == {
        row.record.peer_id for row in table.members() if row.state is State.DEAD
    }


@given(said=words(1, 2, 3))
def test_changes_tell_all_that_happened_to_the_live_view(member, said):
    table = told(member, ())
    live = {record.peer_id for record in table.live()}
    for number, incarnation, state in said:
        if state is State.ALIVE:
            change = table.merge(member(number, incarnation=incarnation), 0.0)
        else:
            change = table.judge(Fate(member(number).peer_id, incarnation, state), 0.0)
        if change is not None:
            assert change.state is table.state(change.record.peer_id)
            assert change.record == table.get(change.record.peer_id)
            assert change.is_live is table.is_live(change.record.peer_id)
            live |= {change.record.peer_id} if change.appeared else set()
            live -= {change.record.peer_id} if change.vanished else set()
        assert live == set(table.live_ids())


@given(before=words(1, 2, 3), said=words(0, 1, 2, 3, 4), left=st.booleans())
def test_a_page_of_fates_does_what_they_do_one_by_one(member, before, said, left):
    fates = [Fate(member(n).peer_id, i, s) for n, i, s in said if s is not State.ALIVE]
    one, other = told(member, before), told(member, before)
    if left:
        one.leave(0.0)
        other.leave(0.0)
    changes = [one.judge(fate, 5.0) for fate in fates]
    assert other.judge_many(fates, 5.0) == [change for change in changes if change is not None]
    assert other.members() == one.members()
    assert other.digests == one.digests
    assert other.dead() == one.dead()
    assert other.forget(FORGET_S + 4.0) == one.forget(FORGET_S + 4.0)
    assert other.fates == one.fates


def test_a_page_with_the_death_of_an_earlier_life_is_no_news(table, member, fate):
    table.merge(member(1, incarnation=2), 0.0)
    assert table.judge_many([fate(1, 1, State.DEAD), fate(2, 1, State.DEAD)], 0.0) == []
    assert table.state(member(1).peer_id) is State.ALIVE


def test_what_befell_a_stranger_is_no_news(table, fate):
    alone = table.digest
    assert table.judge(fate(1, 5, State.DEAD), 0.0) is None
    assert table.state(fate(1, 5, State.DEAD).peer_id) is None
    assert table.digest == alone


def test_a_fate_outlives_only_the_records_up_to_its_incarnation(table, member, fate):
    table.merge(member(1, incarnation=1), 0.0)
    table.judge(fate(1, 3, State.DEAD), 0.0)
    assert table.merge(member(1, incarnation=3), 0.0).state is State.DEAD
    change = table.merge(member(1, incarnation=4), 0.0)
    assert change == Change(member(1, incarnation=4), State.ALIVE, State.DEAD)


def test_a_member_that_is_doubted_after_its_death_has_returned(table, member, fate):
    table.merge(member(1), 0.0)
    with_one = table.digest
    table.judge(fate(1, 1, State.DEAD), 0.0)
    assert table.judge(fate(1, 2, State.SUSPECT), 0.0).appeared
    assert table.digest == with_one
    assert table.dead() == []


def test_a_change_says_who_appeared_and_who_vanished(table, member, fate):
    assert table.merge(member(1), 0.0).appeared
    assert not table.merge(member(1, incarnation=2), 0.0).appeared
    doubted = table.judge(fate(1, 2, State.SUSPECT), 0.0)
    assert (doubted.appeared, doubted.vanished, doubted.is_live) == (False, False, True)
    assert table.judge(fate(1, 2, State.DEAD), 0.0).vanished
    assert not table.judge(fate(1, 2, State.LEFT), 0.0).vanished
    assert table.merge(member(1, incarnation=3), 0.0).appeared


def test_the_fates_are_those_of_all_who_are_not_alive(table, member, fate):
    for number in (1, 2):
        table.merge(member(number), 0.0)
    table.judge(fate(1, 1, State.SUSPECT), 0.0)
    assert dict(table.fates) == {member(1).peer_id: fate(1, 1, State.SUSPECT)}
    assert table.fate(member(1).peer_id) == fate(1, 1, State.SUSPECT)
    table.merge(member(1, incarnation=2), 0.0)
    assert dict(table.fates) == {}


# Digests and parts.


def test_the_digest_covers_live_members_only(table, member, fate):
    table.merge(member(1), 0.0)
    with_one = table.digest
    table.merge(member(2), 0.0)
    table.judge(fate(2, 1, State.SUSPECT), 0.0)
    assert table.digest != with_one
    table.judge(fate(2, 1, State.DEAD), 0.0)
    assert table.digest == with_one
    table.judge(fate(2, 1, State.LEFT), 0.0)
    assert table.digest == with_one


def test_the_digest_tells_incarnations_apart_and_names_not(table, member):
    table.merge(member(1, incarnation=1), 0.0)
    before = table.digest
    table.merge(member(1, incarnation=2), 0.0)
    assert table.digest != before
    other = Membership(member(0, name="other"))
    other.merge(member(1, incarnation=2, name="changed"), 0.0)
    assert other.digest == table.digest


@given(numbers=st.sets(st.integers(1, 400), max_size=80), gone=st.sets(st.integers(1, 400)))
def test_the_digests_of_the_parts_add_up_to_the_digest(member, numbers, gone):
    table = Membership(member(0))
    for number in sorted(numbers):
        table.merge(member(number), 0.0)
    for number in sorted(gone):
        table.judge(Fate(member(number).peer_id, 1, State.DEAD), 0.0)
    assert len(table.digests) == BUCKETS
    assert functools.reduce(operator.xor, table.digests) == table.digest


@given(mine=st.sets(st.integers(1, 300), max_size=40), theirs=st.sets(st.integers(1, 300)))
def test_just_the_parts_with_other_live_members_differ(member, mine, theirs):
    one, other = Membership(member(0)), Membership(member(0))
    for table, numbers in ((one, mine), (other, theirs)):
        for number in sorted(numbers):
            table.merge(member(number), 0.0)
    differing = one.differing(other.digests)
    assert set(differing) == {part_of(member(number).peer_id) for number in mine ^ theirs}
    assert differing == other.differing(one.digests)
    # What is in those parts is what mends the difference.
    for row in one.parts(differing):
        other.merge(row.record, 0.0)
    for row in other.parts(other.differing(one.digests)):
        one.merge(row.record, 0.0)
    assert one.digests == other.digests


def test_every_member_is_in_one_part_and_all_parts_are_used(table, member, fate):
    for number in range(1, 1000):
        table.merge(member(number), 0.0)
    table.judge(fate(5, 1, State.LEFT), 0.0)
    parts = [table.parts([number]) for number in range(BUCKETS)]
    assert sorted((row for part in parts for row in part), key=lambda row: row.record.peer_id) == (
        table.members()
    )
    assert all(part_of(r.record.peer_id) == n for n, part in enumerate(parts) for r in part)
    assert all(len(part) < 40 for part in parts)
    assert all(parts)
    assert table.parts([3, 9]) == sorted(parts[3] + parts[9], key=lambda row: row.record.peer_id)


@pytest.mark.parametrize(
    ("head", "part"), [("aa", 0), ("ab", 1), ("ac", 0), ("ba", 2), ("7a", 62), ("77", 63)]
)
def test_the_part_is_the_first_six_bits_of_what_the_id_begins_with(head, part):
    assert part_of(head + "a" * 50) == part


# Oneself.


@given(said=words(0))
def test_whatever_is_said_of_me_i_stay_alive_above_it(member, said):
    table = told(member, said)
    assert table.state(table.my_id) is State.ALIVE
    for _, incarnation, state in said:
        if state is State.ALIVE:
            assert table.me.incarnation >= incarnation
        else:
            assert table.me.incarnation > incarnation
    assert live_lives(table) == live_lives(told(member, ())) - {(table.my_id, 1)} | {
        (table.my_id, table.me.incarnation)
    }


@pytest.mark.parametrize("state", FATES)
def test_a_doubt_is_refuted_by_the_next_incarnation(table, member, fate, state):
    change = table.judge(fate(0, 7, state), 1.0)
    assert change == Change(member(0, incarnation=8), State.ALIVE, State.ALIVE)
    assert table.me == member(0, incarnation=8)
    assert not change.appeared
    assert not change.vanished


def test_an_old_word_about_me_is_no_news(table, member, fate):
    assert table.judge(fate(0, 0, State.DEAD), 1.0) is None
    assert table.merge(member(0), 1.0) is None
    assert table.merge(member(0, incarnation=0, name="older"), 1.0) is None
    assert table.me == member(0)


@pytest.mark.parametrize("incarnation", [1, 5])
def test_an_older_life_of_mine_is_outlived(table, member, incarnation):
    table.merge(member(0, incarnation=incarnation, addresses=("ws://old:1",)), 1.0)
    assert table.me == member(0, incarnation=incarnation + 1)


@pytest.mark.parametrize("incarnation", [MAX_HEARD_INCARNATION + 1, MAX_INCARNATION - 1])
def test_a_word_from_the_end_of_all_incarnations_leaves_me_as_i_am(
    table, member, fate, incarnation
):
    assert table.judge(fate(0, incarnation, State.DEAD), 1.0) is None
    assert table.merge(member(0, incarnation=incarnation), 1.0) is None
    assert table.me == member(0)


def test_the_highest_word_that_is_heard_leaves_room_to_rise(table, fate):
    assert table.judge(fate(0, MAX_HEARD_INCARNATION, State.DEAD), 1.0) is None
    table.judge(fate(0, MAX_HEARD_INCARNATION - 1, State.DEAD), 1.0)
    assert table.me.incarnation == MAX_HEARD_INCARNATION


def test_a_change_of_mine_comes_under_the_next_incarnation(table, member):
    before = table.digest
    change = table.update_me(part=4, name="new")
    assert change.record == table.me == member(0, incarnation=2, part=4, name="new")
    assert table.digest != before


def test_leaving_is_said_at_my_incarnation_and_not_refuted(table, member, fate):
    table.merge(member(1), 0.0)
    assert not table.has_left
    assert table.leave(1.0) == fate(0, 1, State.LEFT)
    assert table.has_left
    assert table.judge(fate(0, 9, State.SUSPECT), 2.0) is None
    assert table.merge(member(0, incarnation=9), 2.0) is None
    assert table.state(table.my_id) is State.LEFT
    assert table.live() == [member(1)]


def test_a_table_without_me_is_what_i_leave_behind(table, member, fate):
    table.merge(member(1), 0.0)
    table.leave(1.0)
    other = Membership(member(1))
    other.merge(member(0), 0.0)
    other.judge(fate(0, 1, State.LEFT), 0.0)
    assert other.digests == table.digests


# The dead.


def test_the_dead_and_the_left_are_forgotten_after_a_day_and_the_living_never(table, member, fate):
    for number in (1, 2, 3, 4):
        table.merge(member(number), 0.0)
    table.judge(fate(2, 1, State.DEAD), 0.0)
    table.judge(fate(3, 1, State.LEFT), 10.0)
    table.judge(fate(4, 1, State.SUSPECT), 0.0)
    digest = table.digest
    assert table.forget(FORGET_S) == []
    assert table.forget(FORGET_S + 1) == [member(2).peer_id]
    assert table.get(member(2).peer_id) is None
    assert table.forget(FORGET_S + 11) == [member(3).peer_id]
    assert table.forget(1e9) == []
    assert {record.name for record in table.live()} == {"peer0", "peer1", "peer4"}
    assert table.digest == digest
    assert (table.live_count, table.dead()) == (3, [])


def test_who_went_again_is_remembered_from_then_on(table, member, fate):
    for number in (1, 2):
        table.merge(member(number), 0.0)
        table.judge(fate(number, 1, State.DEAD), float(number))
    table.merge(member(1, incarnation=2), 5.0)
    table.judge(fate(1, 2, State.DEAD), 50.0)
    assert table.dead() == [member(2).peer_id, member(1).peer_id]
    assert table.forget(FORGET_S + 10.0) == [member(2).peer_id]
    assert table.forget(FORGET_S + 51.0) == [member(1).peer_id]


def test_a_later_verdict_about_the_dead_keeps_nobody_else_from_being_forgotten(table, member, fate):
    for number in (1, 2):
        table.merge(member(number), 0.0)
        table.judge(fate(number, 1, State.DEAD), float(number))
    table.judge(fate(1, 1, State.LEFT), 50.0)
    assert table.forget(FORGET_S + 10.0) == [member(2).peer_id]
    assert table.forget(FORGET_S + 51.0) == [member(1).peer_id]


def test_a_peer_that_left_does_not_forget_itself_and_still_forgets_others(table, member, fate):
    table.merge(member(1), 0.0)
    table.leave(0.0)
    table.judge(fate(1, 1, State.DEAD), 1.0)
    assert table.forget(1e9) == [member(1).peer_id]
    assert table.me == member(0)


def test_the_dead_are_listed_oldest_verdict_first_without_the_left(table, member, fate):
    for number in (3, 1, 2, 4):
        table.merge(member(number), 0.0)
    for number in (3, 1, 2):
        table.judge(fate(number, 1, State.DEAD), float(number))
    table.judge(fate(4, 1, State.LEFT), 9.0)
    assert table.dead() == [member(number).peer_id for number in (3, 1, 2)]


def test_what_was_forgotten_is_not_learnt_again_from_those_who_forget_later(table, member, fate):
    table.merge(member(1, incarnation=3), 0.0)
    table.judge(fate(1, 3, State.DEAD), 0.0)
    table.forget(FORGET_S + 1)
    assert table.merge(member(1, incarnation=3), FORGET_S + 2) is None
    assert table.merge(member(1, incarnation=2), FORGET_S + 2) is None
    assert table.judge(fate(1, 3, State.DEAD), FORGET_S + 2) is None
    assert table.get(member(1).peer_id) is None
    # It lives after all: that is news.
    assert table.merge(member(1, incarnation=4), FORGET_S + 3).appeared


def test_after_another_day_not_even_the_forgetting_is_remembered(table, member, fate):
    table.merge(member(1), 0.0)
    table.judge(fate(1, 1, State.DEAD), 0.0)
    table.forget(FORGET_S + 1)
    table.forget(2 * FORGET_S + 2)
    assert table.merge(member(1), 2 * FORGET_S + 3).appeared


def test_the_holder_of_an_address_is_a_live_member_that_says_so(table, member, fate):
    table.merge(member(1, addresses=("ws://a:1", "ws://b:1")), 0.0)
    assert table.holder("ws://b:1") == member(1).peer_id
    assert table.holder("ws://c:1") is None
    table.judge(fate(1, 1, State.DEAD), 0.0)
    assert table.holder("ws://b:1") is None


# Forks.


@given(before=words(1, 2), mine=words(1, 2, 3, 5), theirs=words(0, 1, 2, 4, 5))
def test_a_fork_starts_equal_and_goes_its_own_way(member, before, mine, theirs):
    one, same_as_one = told(member, before), told(member, before)
    two = one.fork(member(3).peer_id)
    assert two.my_id == two.me.peer_id == member(3).peer_id
    assert two.members() == one.members()
    assert two.digests == one.digests

    # The other side, as somebody who was never forked holds it.
    like_two = Membership(member(3, incarnation=0, name="life0"))
    pour(one, like_two)
    like_two.merge(member(0), 0.0)

    for at in range(14):
        tell(one, member, mine[at : at + 1])
        tell(two, member, theirs[at : at + 1])
    tell(same_as_one, member, mine)
    tell(like_two, member, theirs)
    for forked, plain in ((one, same_as_one), (two, like_two)):
        assert forked.members() == plain.members()
        assert forked.digests == plain.digests
        assert forked.live_count == plain.live_count


@pytest.mark.parametrize("first", ["original", "fork"])
def test_whichever_side_of_a_fork_changes_first_the_other_sees_nothing(table, member, first):
    table.merge(member(1), 0.0)
    twin = table.fork(member(1).peer_id)
    third = twin.fork(member(0).peer_id)
    sides = [table, twin, third] if first == "original" else [third, twin, table]
    for number, side in enumerate(sides, start=10):
        side.update_me(part=number)
        side.merge(member(number), 0.0)
    for number, side in enumerate(sides, start=10):
        assert side.me.part == number
        assert side.live_count == 3
        assert side.is_live(member(number).peer_id)


def test_rows_are_records_with_their_states_in_the_order_of_the_ids(table, member, fate):
    table.merge(member(1), 0.0)
    table.merge(member(2), 0.0)
    table.judge(fate(1, 1, State.SUSPECT), 0.0)
    table.judge(fate(2, 1, State.LEFT), 0.0)
    rows = [Member(member(0), State.ALIVE), Member(member(1), State.SUSPECT)]
    rows.append(Member(member(2), State.LEFT))
    assert table.members() == sorted(rows, key=lambda row: row.record.peer_id)


# The revoked.


@pytest.fixture
def revocation(id_of):
    """revocation(number): a fixed one."""
    return lambda number: Revocation(id_of(number), 1, "why", (), bytes(64))


def test_the_revoked_are_out_and_it_is_news_once(table, member, revocation):
    table.merge(member(1), 0.0)
    (change,) = table.revoke(revocation(1), 1.0)
    assert change == Change(member(1), State.REVOKED, State.ALIVE)
    assert change.vanished
    assert table.revoke(revocation(1), 2.0) == []
    assert (table.state(member(1).peer_id), table.live()) == (State.REVOKED, [member(0)])
    assert member(1).peer_id in table.gone
    assert table.dead() == []


def test_nothing_brings_the_revoked_back(table, member, fate, revocation):
    table.merge(member(1), 0.0)
    table.revoke(revocation(1), 1.0)
    before = table.digests
    for incarnation in (1, 2, 2**51):
        assert table.merge(member(1, incarnation=incarnation), 2.0) is None
        assert not table.would_learn(member(1, incarnation=incarnation))
        for state in FATES:
            assert table.judge(fate(1, incarnation, state), 2.0) is None
            assert table.judge_many([fate(1, incarnation, state)], 2.0) == []
    assert table.state(member(1).peer_id) is State.REVOKED
    assert table.digests == before


@pytest.mark.parametrize("state", FATES)
def test_who_is_doubted_or_gone_can_be_revoked(table, member, fate, revocation, state):
    table.merge(member(1), 0.0)
    table.judge(fate(1, 1, state), 1.0)
    assert table.revoke(revocation(1), 2.0) == [Change(member(1), State.REVOKED, state)]
    other = Membership(member(0))
    other.merge(member(1), 0.0)
    other.revoke(revocation(1), 0.0)
    assert other.digests == table.digests


def test_a_stranger_can_be_revoked_and_does_not_come(table, member, revocation):
    assert table.revoke(revocation(1), 1.0) == []
    assert table.merge(member(1), 2.0) is None
    assert table.get(member(1).peer_id) is None
    assert member(1).peer_id in table.revocations


def test_a_revocation_shows_in_the_digest_of_its_part_and_others_do_not(
    table, member, fate, revocation
):
    table.merge(member(1), 0.0)
    twin = Membership(member(0))
    twin.merge(member(1), 0.0)
    table.revoke(revocation(1), 1.0)
    twin.judge(fate(1, 1, State.LEFT), 1.0)
    assert table.digest != twin.digest
    assert table.differing(twin.digests) == [part_of(member(1).peer_id)]
    twin.revoke(revocation(1), 2.0)
    assert (table.digest, table.digests) == (twin.digest, twin.digests)


@given(order=st.permutations(["merge", "revoke", "death", "newer"]))
def test_the_order_in_which_a_revocation_comes_does_not_matter(member, order):
    out = member(1).peer_id

    def told_in(order):
        table = Membership(member(0))
        for step in order:
            match step:
                case "merge":
                    table.merge(member(1), 0.0)
                case "newer":
                    table.merge(member(1, incarnation=2), 0.0)
                case "death":
                    table.judge(Fate(out, 2, State.DEAD), 0.0)
                case "revoke":
                    table.revoke(Revocation(out, 1, "why", (), bytes(64)), 0.0)
        return table.digests, [record.peer_id for record in table.live()]

    assert told_in(order) == told_in(["revoke"])


def test_the_revoked_are_forgotten_and_stay_out(table, member, revocation):
    table.merge(member(1), 0.0)
    table.revoke(revocation(1), 1.0)
    before = table.digests
    assert table.forget(FORGET_S + 2.0) == [member(1).peer_id]
    assert table.get(member(1).peer_id) is None
    assert table.forget(3 * FORGET_S) == []
    assert table.merge(member(1, incarnation=9), 3 * FORGET_S) is None
    assert table.digests == before
    assert member(1).peer_id in table.revocations


def test_who_is_revoked_itself_has_left_and_refutes_nothing(table, member, fate, revocation):
    table.merge(member(1), 0.0)
    assert [c.state for c in table.revoke(revocation(0), 1.0)] == [State.REVOKED]
    assert table.has_left
    assert table.judge(fate(0, 5, State.DEAD), 2.0) is None
    assert table.merge(member(0, incarnation=9), 2.0) is None
    assert table.state(table.my_id) is State.REVOKED
    assert table.forget(2 * FORGET_S) == []


def test_tables_that_began_as_one_are_revoked_from_one_by_one(table, member, revocation):
    table.merge(member(1), 0.0)
    table.merge(member(2), 0.0)
    twin = table.fork(member(1).peer_id)
    table.revoke(revocation(2), 1.0)
    assert twin.is_live(member(2).peer_id)
    assert twin.revoke(revocation(2), 1.0) != []
    third = table.fork(member(1).peer_id)
    assert third.revoke(revocation(2), 1.0) == []
    assert third.digests == twin.digests == table.digests


# An issuer that is revoked itself.


@pytest.fixture(scope="module")
def said(network):
    """What can be said by and about issuers 1 and 2 and members 3 to 5, signed."""
    one, two = (network.person(number, "issuer") for number in (1, 2))
    people = {3: network.person(3), 4: network.person(4), 5: network.person(5)}
    records = [person.record for person in (one, two, *people.values())]

    def by(issuer, number):
        return issuer.notary.revocation(people[number].id, "", people[number].chain)

    revocations = [
        by(one, 3), by(one, 4), by(two, 4), by(two, 5),
        network.revocation(one.id), network.revocation(people[3].id),
        people[5].notary.revocation(people[5].id, "a new key"),
        one.notary.revocation(one.id, "mine"),
    ]  # fmt: skip
    return records, revocations


@given(order=st.permutations(range(13)))
def test_tables_that_heard_the_same_are_the_same_in_whatever_order(member, said, order):
    records, revocations = said
    table = Membership(member(0))
    for step in order:
        if step < len(records):
            table.merge(records[step], 0.0)
        else:
            table.revoke(revocations[step - len(records)], 0.0)
    for record in records:  # as others repeat what was not taken in
        table.merge(record, 1.0)
    for revocation in revocations:
        table.revoke(revocation, 1.0)
    expected = Membership(member(0))
    for record in records:
        expected.merge(record, 0.0)
    for number in (4, 5, 6, 2):
        expected.revoke(revocations[number], 0.0)
    assert table.digests == expected.digests
    assert table.revocations.by_peer == expected.revocations.by_peer
    assert table.live_count == 2  # me and issuer 2


def test_whom_only_a_revoked_issuer_put_out_is_back_as_it_was(member, network, said):
    (_, _, record, *_), (void, *_) = said
    table = Membership(member(0))
    table.merge(record, 0.0)
    before = table.digests
    table.revoke(void, 1.0)
    back, *rest = table.revoke(network.revocation(network.person(1, "issuer").id), 2.0)
    assert back == Change(record, State.ALIVE, State.REVOKED)
    assert rest == []
    assert table.is_live(record.peer_id)
    assert part_of(record.peer_id) not in table.differing(before)
    assert table.judge(Fate(record.peer_id, 1, State.DEAD), 3.0).state is State.DEAD


def test_even_if_it_was_forgotten_meanwhile(member, network, said):
    (_, _, record, *_), (void, *_) = said
    table = Membership(member(0))
    table.merge(record, 0.0)
    table.revoke(void, 1.0)
    table.forget(FORGET_S + 2.0)
    table.revoke(network.revocation(network.person(1, "issuer").id), FORGET_S + 3.0)
    assert table.merge(record, FORGET_S + 4.0) is not None


def test_a_peer_whose_own_revocation_is_void_goes_on(network):
    me, issuer = network.person(3), network.person(1, "issuer")
    table = Membership(me.record, notary=me.notary)
    table.revoke(issuer.notary.revocation(me.id, "", me.chain), 1.0)
    assert table.has_left
    table.revoke(network.revocation(issuer.id), 2.0)
    assert not table.has_left
    assert table.is_live(me.id)


def test_a_lighter_word_differs_in_the_digest_so_that_the_other_is_heard(member, network, said):
    (*_, record), revocations = said
    own, strong = revocations[6], network.revocation(record.peer_id)
    tables = [Membership(member(0)), Membership(member(0))]
    for table, word in zip(tables, (own, strong), strict=True):
        table.merge(record, 0.0)
        table.revoke(word, 0.0)
    assert tables[0].differing(tables[1].digests) == [part_of(record.peer_id)]
    assert tables[0].revoke(strong, 1.0) == []
    assert tables[0].digests == tables[1].digests


def test_who_is_seen_to_be_an_issuer_after_all_is_back_and_that_is_told(member, network):
    """An issuer certified another's key as a member's and revoked it: seen with its own chain it is
    back."""
    issuer, other = network.person(1, "issuer"), network.person(2, "issuer")
    fake = certify(
        other.key.public_key(), "member", issuer_key=issuer.key, issuer=issuer.chain,
        authority=network.authority,
    )  # fmt: skip
    table = Membership(member(0))
    table.merge(dataclasses.replace(other.record, chain=fake), 0.0)
    table.revoke(issuer.notary.revocation(other.id, "", fake), 1.0)
    assert table.state(other.id) is State.REVOKED
    for incarnation in (1, 2):
        twin = table.fork(member(0).peer_id)
        change = twin.merge(other.says(incarnation=incarnation), 2.0)
        assert (change.record.incarnation, change.state, change.before) == (
            incarnation, State.ALIVE, State.REVOKED,
        )  # fmt: skip
        assert change.appeared
