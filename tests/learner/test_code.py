import sys

import pytest

from learner import code
from learner.errors import LearnerError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(name, text) lays an importable module on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_a_reference_is_loaded(module):
    module("gossipd_test_good", "def factory():\n    return 3\n")
    assert code.load("gossipd_test_good:factory", kind="model")() == 3


@pytest.mark.parametrize(
    ("reference", "text", "message"),
    [
        ("gossipd_test_none:f", None, "no module 'gossipd_test_none'; install it"),
        ("gossipd_test_a:fatcory", "def factory(): ...", "did you mean 'factory'?"),
        ("gossipd_test_b:f", "", "has no 'f'"),
        ("gossipd_test_c:f", "f = 3", "must be a function or class"),
        ("gossipd_test_d:f", "import gossipd_absent", "imports 'gossipd_absent'"),
        ("gossipd_test_e:f", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_says_why(module, reference, text, message):
    if text is not None:
        module(reference.partition(":")[0], text)
    with pytest.raises(LearnerError, match=message.replace("?", r"\?")) as caught:
        code.load(reference, kind="data")
    assert caught.value.kind == "data"
