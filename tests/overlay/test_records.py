import dataclasses
import itertools

import pytest

from overlay.identity import is_id, new_id, short
from overlay.records import (
    GRAVITY,
    MAX_ADDRESSES,
    MAX_CHAIN,
    MAX_INCARNATION,
    MAX_NAME,
    MAX_VOTES,
    SIGNATURE_BYTES,
    Fate,
    Member,
    State,
    Vote,
)

ORDER = [
    (1, State.SUSPECT), (1, State.DEAD), (1, State.LEFT),
    (2, State.SUSPECT), (2, State.DEAD), (2, State.LEFT),
]  # fmt: skip
FATES = (State.SUSPECT, State.DEAD, State.LEFT)


@pytest.mark.parametrize(("low", "high"), [*itertools.combinations(ORDER, 2)])
def test_a_higher_incarnation_and_then_the_graver_state_wins(low, high, id_of):
    older, newer = Fate(id_of(0), *low), Fate(id_of(0), *high)
    assert newer.graver_than(older)
    assert not older.graver_than(newer)


@pytest.mark.parametrize(("incarnation", "state"), ORDER)
def test_a_fate_is_news_to_who_knows_none_and_no_news_to_itself(incarnation, state, id_of):
    fate = Fate(id_of(0), incarnation, state)
    assert fate.graver_than(None)
    assert not fate.graver_than(Fate(id_of(0), incarnation, state))


def test_alive_is_the_least_grave_and_revoked_the_gravest():
    assert sorted(State, key=GRAVITY.__getitem__) == [State.ALIVE, *FATES, State.REVOKED]


@pytest.mark.parametrize(
    ("state", "live"),
    [
        (State.ALIVE, True), (State.SUSPECT, True),
        (State.DEAD, False), (State.LEFT, False), (State.REVOKED, False),
    ],
)  # fmt: skip
def test_the_suspect_are_still_live(state, live, member):
    assert Member(member(0), state).is_live is live
    if state is not State.ALIVE:
        assert Fate(member(0).peer_id, 1, state).is_live is live


@pytest.mark.parametrize(
    "changes",
    [
        {"peer_id": "short"},
        {"peer_id": "A" * 52},
        {"peer_id": "a" * 52 + "\n"},
        {"name": "x" * (MAX_NAME + 1)},
        {"name": "two\nlines"},
        {"name": "\x1b[2J"},
        {"addresses": ("ws://a:1",) * (MAX_ADDRESSES + 1)},
        {"addresses": ("x" * 257,)},
        {"incarnation": -1},
        {"incarnation": MAX_INCARNATION},
        {"part": -2},
        {"part": 2**31},
        {"chain": (b"x",) * (MAX_CHAIN + 1)},
        {"signature": b"x" * (SIGNATURE_BYTES - 1)},
    ],
)
def test_a_record_outside_its_limits_cannot_be_built(changes, member):
    with pytest.raises(ValueError):
        member(0, **changes)


def test_a_record_at_its_limits_can_be_built(member):
    addresses = ("x" * 256,) * MAX_ADDRESSES
    full = member(
        0, name="x" * MAX_NAME, addresses=addresses, incarnation=MAX_INCARNATION - 1, part=2**31 - 1
    )
    empty = member(0, name="", addresses=(), incarnation=0, part=-1)
    assert (len(full.name), full.addresses, empty.part) == (MAX_NAME, addresses, -1)


@pytest.mark.parametrize(
    ("peer", "incarnation", "state"),
    [
        ("short", 1, State.DEAD),
        ("", 1, State.DEAD),
        ("a" * 52, -1, State.DEAD),
        ("a" * 52, MAX_INCARNATION, State.DEAD),
        ("a" * 52, 1, State.ALIVE),
    ],
)
def test_a_fate_outside_its_limits_cannot_be_built(peer, incarnation, state):
    with pytest.raises(ValueError):
        Fate(peer, incarnation, state)


@pytest.mark.parametrize("incarnation", [0, MAX_INCARNATION - 1])
@pytest.mark.parametrize("state", FATES)
def test_a_fate_is_its_three_fields(incarnation, state, id_of):
    fate = Fate(id_of(3), incarnation, state)
    assert (fate.peer_id, fate.incarnation, fate.state) == (id_of(3), incarnation, state)
    assert {fate: 1}[Fate(id_of(3), incarnation, state)] == 1


def test_two_fates_are_equal_when_they_say_the_same_whoever_vouches_for_it(id_of):
    vote = Vote(id_of(1), 1, True, bytes(SIGNATURE_BYTES))
    bare, vouched = (Fate(id_of(0), 1, State.DEAD, votes) for votes in ((), (vote,)))
    assert bare == vouched
    assert (bare != vouched) is False
    assert hash(bare) == hash(vouched)
    assert bare != Fate(id_of(0), 2, State.DEAD)
    assert bare != (id_of(0), 1, State.DEAD)


def test_what_nobody_could_believe_is_not_told(id_of):
    goodbye = (Vote(id_of(0), 1, True, b""),)
    assert Fate(id_of(0), 1, State.LEFT, goodbye).can_be_told
    assert not Fate(id_of(0), 1, State.LEFT).can_be_told
    assert not Fate(id_of(0), 1, State.REVOKED, goodbye).can_be_told
    assert Fate(id_of(0), 1, State.DEAD).can_be_told
    assert Fate(id_of(0), 1, State.SUSPECT).can_be_told


def test_a_fate_has_no_more_votes_than_there_are_observers(id_of):
    votes = [Vote(id_of(number), 1, True, b"") for number in range(MAX_VOTES + 1)]
    assert Fate(id_of(0), 1, State.DEAD, tuple(votes[1:])).votes == tuple(votes[1:])
    with pytest.raises(ValueError, match="more votes"):
        Fate(id_of(0), 1, State.DEAD, tuple(votes))


@pytest.mark.parametrize(
    ("observer", "incarnation", "signature"),
    [("short", 1, b""), ("a" * 52, -1, b""), ("a" * 52, MAX_INCARNATION, b""),
     ("a" * 52, 1, b"x"), ("a" * 52, 1, b"x" * (SIGNATURE_BYTES + 1))],
)  # fmt: skip
def test_a_vote_outside_its_limits_cannot_be_built(observer, incarnation, signature):
    with pytest.raises(ValueError):
        Vote(observer, incarnation, True, signature)


def test_everything_but_the_signature_is_signed(member):
    record = member(0, chain=(b"certificate",), signature=bytes(SIGNATURE_BYTES))
    changed = {
        "peer_id": "a" * 52, "name": "other", "addresses": (), "incarnation": 9,
        "learner": False, "part": 7, "chain": (),
    }  # fmt: skip
    for field, value in changed.items():
        assert dataclasses.replace(record, **{field: value}).words != record.words, field
    assert dataclasses.replace(record, signature=b"").words == record.words


def test_ids_are_fresh_and_of_their_form():
    ids = {new_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(is_id(identity) for identity in ids)
    assert {len(short(identity)) for identity in ids} == {8}
