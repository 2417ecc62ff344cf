"""Of signed messages that were changed, nothing is believed but what somebody said."""

import pytest
import trio
from hypothesis import given

from benchmarks.fuzz_contract import Broken
from benchmarks.fuzz_targets import believing
from benchmarks.fuzz_world import World
from overlay.credence import believed
from overlay.notary import Unsigned
from overlay.wire import CONTROL, News
from tests.fuzz.inputs import TARGETS, check, inputs, quick


@quick
@given(inputs("credence"))
def test_whatever_a_neighbour_says(data):
    check("credence", data)


def test_what_was_truly_said_is_believed():
    world = World(1)
    for message in world.words():
        heard = believed(message, world.judge, world.table)
        if isinstance(message, News):
            assert heard == message
            assert [f.votes for f in heard.fates] == [f.votes for f in message.fates]
    for data in TARGETS["credence"].corpus:
        check("credence", data)


def test_a_notary_that_believes_everything_would_be_noticed():
    world = World(1)
    world.judge = Unsigned(world.people[0].record.peer_id)
    changed = CONTROL.encode(world.words()[0]).replace(b"again", b"AGAIN")
    with pytest.raises(Broken):
        trio.run(believing, world, changed)
