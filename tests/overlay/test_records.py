import itertools

import pytest

from overlay.identity import is_id, new_id, short
from overlay.records import (
    GRAVITY,
    MAX_ADDRESSES,
    MAX_INCARNATION,
    MAX_NAME,
    Fate,
    Member,
    State,
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


def test_alive_is_the_least_grave_and_left_the_gravest():
    assert sorted(State, key=GRAVITY.__getitem__) == [State.ALIVE, *FATES]


@pytest.mark.parametrize(
    ("state", "live"),
    [(State.ALIVE, True), (State.SUSPECT, True), (State.DEAD, False), (State.LEFT, False)],
)
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


def test_ids_are_fresh_and_of_their_form():
    ids = {new_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(is_id(identity) for identity in ids)
    assert {len(short(identity)) for identity in ids} == {8}
