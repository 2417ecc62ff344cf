import enum
import math
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.codec import Codec, WireError


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    number: int

    def __post_init__(self):
        if self.number < 0:
            raise ValueError("negative")


class _Small(NamedTuple):
    colour: Colour
    number: int


class Small(_Small):
    __slots__ = ()

    def __new__(cls, colour, number):
        if number < 0:
            raise ValueError("negative")
        return super().__new__(cls, colour, number)


@dataclass(frozen=True)
class Everything:
    text: str
    number: int
    share: float
    flag: bool
    raw: bytes
    colour: Colour
    inner: Inner
    many: tuple[Inner, ...]
    perhaps: float | None
    small: tuple[Small, ...]
    perhaps_inner: Inner | None


@dataclass(frozen=True)
class Nothing:
    pass


CODEC = Codec(
    {"all": Everything, "none": Nothing}, max_bytes=4096, max_binary=64, max_items=32, max_text=64
)
GOOD = ["t", 1, 0.5, True, b"r", "red", [1], [[1], [2]], None, [["red", 1]], [5]]

inners = st.builds(Inner, st.integers(0, 2**63))
everything = st.builds(
    Everything,
    text=st.text(max_size=16),
    number=st.integers(-(2**63), 2**64 - 1),
    share=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    raw=st.binary(max_size=64),
    colour=st.sampled_from(Colour),
    inner=inners,
    many=st.lists(inners, max_size=32).map(tuple),
    perhaps=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    small=st.lists(st.builds(Small, st.sampled_from(Colour), st.integers(0, 9)), max_size=32).map(
        tuple
    ),
    perhaps_inner=st.none() | inners,
)


def packed(*values, tag="all"):
    return msgpack.packb([tag, *values])


def changed(index, value):
    return packed(*GOOD[:index], value, *GOOD[index + 1 :])


@given(everything)
def test_what_is_encoded_is_decoded_as_the_same(message):
    assert CODEC.decode(CODEC.encode(message)) == message


def test_a_message_without_fields_is_its_tag():
    assert CODEC.encode(Nothing()) == msgpack.packb(["none"])
    assert CODEC.decode(msgpack.packb(["none"])) == Nothing()


def test_the_example_that_the_refusals_below_spoil_is_good():
    message = CODEC.decode(packed(*GOOD))
    assert message.many == (Inner(1), Inner(2))
    assert message.small == (Small(Colour.RED, 1),)
    assert (type(message.small[0]), type(message.small[0].colour)) == (Small, Colour)
    assert message.perhaps_inner == Inner(5)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 1), (0, b"bytes"), (0, None), (0, "x" * 65),
        (1, "1"), (1, 1.0), (1, True), (1, None),
        (2, math.nan), (2, math.inf), (2, -math.inf), (2, "0.5"), (2, True),
        (3, 1), (3, None),
        (4, "text"), (4, b"x" * 65), (4, [1]),
        (5, "green"), (5, 0), (5, []), (5, None),
        (6, []), (6, [1, 2]), (6, [-1]), (6, 1), (6, None), (6, ["1"]),
        (7, [1]), (7, [[]]), (7, None), (7, "ab"), (7, [[1]] * 33), (7, b""),
        (8, math.nan), (8, "none"), (8, []),
        (9, [["green", 1]]), (9, [["red", -1]]), (9, [["red"]]), (9, [["red", 1, 1]]),
        (9, [["red", True]]), (9, [[[], 1]]), (9, ["red"]), (9, ["r1"]), (9, None),
        (9, [["red", 1]] * 33), (10, 5), (10, []), (10, [-1]), (10, "x"), (10, [None]),
        (0, {}), (0, {"a": 1}), (7, {}), (1, msgpack.ExtType(1, b"")),
        (1, msgpack.ExtType(1, b"x")), (1, msgpack.Timestamp(1, 0)),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_or_range_is_refused(index, value):
    with pytest.raises(WireError):
        CODEC.decode(changed(index, value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packed(*GOOD[:-1]),
        packed(*GOOD, 1),
        packed(*GOOD) + b"\xc0",
        packed(*GOOD)[:-1],
        packed(*GOOD, tag="other"),
        msgpack.packb([]),
        msgpack.packb([1, 2]),
        msgpack.packb([b"none"]),
        msgpack.packb([["none"]]),
        msgpack.packb("none"),
        msgpack.packb({"none": 1}),
        msgpack.packb({}),
        msgpack.packb(None),
        msgpack.packb(msgpack.ExtType(5, b"none")),
        b"\x91\xa4\xff\xff\xff\xff",  # a tag that is no UTF-8
        b"\x92\xa3all\xa2\xed\xa0",  # half a surrogate
        b"\xc1",  # never used in msgpack
    ],
)
def test_what_is_not_exactly_one_message_is_refused(data):
    with pytest.raises(WireError):
        CODEC.decode(data)


@pytest.mark.parametrize(("whole", "share"), [(1, 1.0), (-(2**63), -(2.0**63)), (0, 0.0)])
def test_a_whole_number_is_read_where_a_fraction_may_stand(whole, share):
    read = CODEC.decode(changed(2, whole)).share
    assert (type(read), read) == (float, share)


def test_a_message_over_the_limit_is_neither_sent_nor_read():
    small = Codec({"inner": Inner}, max_bytes=8)
    with pytest.raises(WireError, match="over the limit"):
        small.encode(Inner(2**40))
    with pytest.raises(WireError, match="over the limit"):
        small.decode(msgpack.packb(["inner", 2**40]))


@pytest.mark.parametrize("depth", [100, 600, 4000])
def test_a_depth_bomb_is_refused(depth):
    with pytest.raises(WireError):
        CODEC.decode((b"\x91" * depth + b"\x90")[:4096])


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff"]
)
def test_an_announced_size_is_refused_before_anything_is_allocated(head):
    with pytest.raises(WireError):
        CODEC.decode(b"\x92\xa3all" + head)
