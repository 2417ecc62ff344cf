"""Whatever comes in, a codec gives a message that it would write itself, or WireError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import TARGETS, check, inputs, quick

CODECS = ("control", "data", "enrol", "notes")


@pytest.mark.parametrize("name", CODECS)
@quick
@given(data=st.data())
def test_what_decodes_encodes_to_the_same(name, data):
    check(name, data.draw(inputs(name)))


@pytest.mark.parametrize("name", CODECS)
def test_every_kind_of_message_is_in_the_corpus(name):
    for data in TARGETS[name].corpus:
        check(name, data)
