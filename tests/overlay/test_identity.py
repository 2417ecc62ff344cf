import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import id_of_key, is_id, new_id, read_id, short, spelled

ids = st.binary(min_size=32, max_size=32).map(id_of_key)
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def refuses(text):
    try:
        read_id(text)
    except ValueError:
        return True
    return False


def test_the_id_of_a_key_is_its_hash_in_base32():
    key = bytes(range(32))
    assert is_id(id_of_key(key))
    assert id_of_key(key) == "mmg42klgyqzwneiskrelxms3j72bfje4omw3fsflyg4fqg6xcdoq"
    assert hashlib.sha256(key).hexdigest().startswith("630dcd2966c4")
    assert id_of_key(key) != id_of_key(bytes(32))


@pytest.mark.parametrize("text", ["", "a" * 51, "a" * 53, "A" * 52, "1" * 52, "a" * 51 + "\n"])
def test_what_is_no_id(text):
    assert not is_id(text)


def test_fresh_ids_differ_and_are_short_for_people():
    one, other = new_id(), new_id()
    assert is_id(one)
    assert one != other
    assert short(one) == one[:8]


@given(identity=ids)
def test_a_spelled_id_is_nine_groups_of_six_and_reads_back(identity):
    groups = spelled(identity).split("-")
    assert [len(group) for group in groups] == [6] * 9
    assert "".join(groups)[:52] == identity
    assert read_id(spelled(identity)) == identity
    assert read_id(identity) == identity


@given(identity=ids)
def test_dashes_case_and_spaces_do_not_matter(identity):
    text = spelled(identity)
    for same in (
        text.upper(), text.replace("-", ""), text.replace("-", " "), f"  {text}\n",
        text.replace("-", " - "), identity.upper(), f"\t{identity} ",
    ):  # fmt: skip
        assert read_id(same) == identity


@given(identity=ids)
def test_a_whole_spelled_id_is_one_modulo_1271(identity):
    assert int(spelled(identity).replace("-", ""), 36) % 1271 == 1


@given(identity=ids)
def test_every_wrong_character_is_found(identity):
    text = spelled(identity)
    for place, right in enumerate(text):
        for wrong in LETTERS if right != "-" else "":
            if wrong != right:
                assert refuses(text[:place] + wrong + text[place + 1 :]), (place, wrong)


@given(identity=ids)
def test_every_swap_of_neighbours_is_found(identity):
    text = spelled(identity).replace("-", "")
    for place in range(len(text) - 1):
        one, other = text[place : place + 2]
        if one != other:
            assert refuses(text[:place] + other + one + text[place + 2 :]), place


@given(identity=ids, place=st.integers(0, 53))
def test_a_character_left_out_or_doubled_is_found(identity, place):
    text = spelled(identity).replace("-", "")
    assert refuses(text[:place] + text[place + 1 :])
    assert refuses(text[: place + 1] + text[place:])


def test_the_error_says_what_is_wrong():
    text = spelled("a" * 52)
    other = text[:-1] + ("0" if text[-1] != "0" else "1")
    with pytest.raises(ValueError, match="mistyped: its check digits"):
        read_id(other)
    with pytest.raises(ValueError, match="no peer id: 52 letters"):
        read_id("alice")
    with pytest.raises(ValueError, match="no peer id"):
        read_id("x" * 10_000)


@given(text=st.text(max_size=70))
def test_any_text_is_an_id_or_a_value_error(text):
    assert refuses(text) or is_id(read_id(text))
