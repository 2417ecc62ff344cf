import tomllib
from dataclasses import dataclass, field

import pytest

from learner.job import Job, Training
from learner.schema import (
    Problem,
    SchemaError,
    as_table,
    commented_toml,
    parse,
    setting,
    suggestion,
)


@dataclass(frozen=True, slots=True)
class Inner:
    size: int = setting(3, "a size", minimum=1, maximum=9)


@dataclass(frozen=True, slots=True)
class Outer:
    colour: str = setting("red", "a colour", choices=("red", "green"))
    share: float = setting(0.5, "a share", minimum=0, maximum=1)
    flag: bool = setting(False, "a flag")
    words: tuple[str, ...] = setting((), "some words")
    limit: int | None = setting(None, "perhaps a limit")
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, slots=True)
class Strict:
    name: str


def messages(table, cls=Outer):
    with pytest.raises(SchemaError) as caught:
        parse(cls, table, source="here.toml")
    return [str(problem) for problem in caught.value.problems]


def test_an_empty_table_gives_the_defaults():
    assert parse(Outer, {}, source="x") == Outer()


def test_every_mistake_is_reported_at_once_with_its_place():
    found = messages(
        {"colour": "grene", "share": 2, "flag": 1, "inner": {"size": 0, "sise": 1}, "wrods": []}
    )
    assert len(found) == 6
    assert all(text.startswith("here.toml: ") for text in found)
    assert any("inner.size: must be at least 1" in text for text in found)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"colour": "grene"}, "did you mean 'green'?"),
        ({"colur": "red"}, "did you mean 'colour'?"),
        ({"zzz": 1}, "known: colour, flag"),
        ({"share": float("nan")}, "must be at least 0"),
        ({"share": True}, "must be a number"),
        ({"flag": "yes"}, "must be true or false"),
        ({"words": "one"}, "must be a list"),
        ({"words": ["a", 1]}, "words[1]: must be a string"),
        ({"limit": 1.5}, "must be a whole number"),
        ({"inner": 3}, "must be a table"),
        ({"inner": {"size": 10}}, "must be at most 9"),
    ],
)
def test_a_problem_says_what_would_be_right(table, text):
    assert len(found := messages(table)) == 1
    assert text in found[0]


def test_a_whole_number_passes_for_a_float():
    share = parse(Outer, {"share": 1}, source="x").share
    assert (share, type(share)) == (1.0, float)


def test_an_optional_setting_may_be_null():
    assert parse(Outer, {"limit": None}, source="x").limit is None
    assert parse(Outer, {"limit": 4}, source="x").limit == 4


def test_a_missing_required_key_is_a_problem():
    assert messages({}, Strict) == ["here.toml: name: is required"]


def test_the_cross_check_runs_beside_wrong_fields():
    def check(value, source):
        return [Problem(source, "", "always wrong")]

    with pytest.raises(SchemaError) as caught:
        parse(Outer, {"flag": 3}, source="x", check=check)
    assert len(caught.value.problems) == 2


def test_as_table_is_read_back_to_an_equal_value():
    value = Outer(words=("a", "b"), inner=Inner(7))
    assert parse(Outer, as_table(value), source="x") == value


def test_suggestion_lists_all_words_when_none_is_near():
    assert suggestion("qqq", ["b", "a"]) == "known: a, b"


def test_the_commented_toml_is_valid_and_holds_the_defaults():
    text = commented_toml(Job, heading="A job.")
    assert set(tomllib.loads(text)) >= {"training", "model"}
    uncommented = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if " = " in line or "[" in line[:1]
    )
    table = tomllib.loads("\n".join(keep_settings(uncommented)))
    assert parse(Job, table, source="x") == Job()


def keep_settings(text):
    """Lines that are `key = value` or `[table]`; help texts may hold an equals sign too."""
    names = {"name", "seed", "algorithm", *(n for t in _tables() for n in t.__dataclass_fields__)}
    return [line for line in text.splitlines() if line[:1] == "[" or line.split(" = ")[0] in names]


def _tables():
    return [type(getattr(Job(), key)) for key in ("model", "data", "partition", "optimizer")] + [
        Training,
        type(Job().gossip),
    ]
