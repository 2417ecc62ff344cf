import pytest

from learner.errors import KINDS, LearnerError


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_carries_its_kind_and_shows_its_message_only(kind):
    error = LearnerError(kind, "do this")
    assert (error.kind, str(error)) == (kind, "do this")
