import itertools

import pytest

from overlay.identity import is_id, new_id, short
from overlay.records import MAX_ADDRESSES, MAX_NAME, State, supersedes

ORDER = [
    (1, State.ALIVE), (1, State.SUSPECT), (1, State.DEAD), (1, State.LEFT),
    (2, State.ALIVE), (2, State.SUSPECT), (2, State.DEAD), (2, State.LEFT),
]  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [*itertools.combinations(ORDER, 2)])
def test_a_higher_incarnation_and_then_the_graver_state_wins(low, high, member):
    older = member(0, incarnation=low[0], state=low[1])
    newer = member(0, incarnation=high[0], state=high[1])
    assert supersedes(newer, older)
    assert not supersedes(older, newer)


@pytest.mark.parametrize(("incarnation", "state"), ORDER)
def test_a_record_is_no_news_to_itself(incarnation, state, member):
    record = member(0, incarnation=incarnation, state=state)
    assert not supersedes(record, record)


@pytest.mark.parametrize(
    ("state", "live"),
    [(State.ALIVE, True), (State.SUSPECT, True), (State.DEAD, False), (State.LEFT, False)],
)
def test_the_suspect_are_still_live(state, live, member):
    assert member(0, state=state).is_live is live


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
        {"incarnation": 2**53},
        {"part": -2},
        {"part": 2**31},
    ],
)
def test_a_record_outside_its_limits_cannot_be_built(changes, member):
    with pytest.raises(ValueError):
        member(0, **changes)


def test_ids_are_fresh_and_of_their_form():
    ids = {new_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(is_id(identity) for identity in ids)
    assert {len(short(identity)) for identity in ids} == {8}
