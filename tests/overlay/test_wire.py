import math
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import wire
from overlay.codec import WireError
from overlay.digests import BUCKETS
from overlay.founding import MAX_SAID_S, Candidacy
from overlay.identity import new_id
from overlay.records import (
    MAX_ADDRESSES,
    MAX_CHAIN,
    MAX_INCARNATION,
    MAX_NAME,
    MAX_VOTES,
    Fate,
    Record,
    State,
    Vote,
)
from overlay.revocation import MAX_REASON, Revocation

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

ids = st.text(ALPHABET, min_size=52, max_size=52)
networks = ids | st.just("")
tokens = st.binary(min_size=16, max_size=16)
digests = st.integers(0, 2**64 - 1)
incarnations = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=64)
printable = texts.filter(str.isprintable)
numbers = st.integers(-(2**63), 2**63)
versions = st.integers(0, 2**53 - 1)
signatures = st.just(b"") | st.binary(min_size=64, max_size=64)
chains = st.lists(st.binary(max_size=40), max_size=MAX_CHAIN).map(tuple)
votes = st.builds(Vote, ids, incarnations, st.booleans(), signatures)
records = st.builds(
    Record,
    peer_id=ids,
    name=texts.filter(str.isprintable),
    addresses=st.lists(texts, max_size=MAX_ADDRESSES).map(tuple),
    incarnation=incarnations,
    learner=st.booleans(),
    part=st.integers(-1, 2**31 - 1),
    chain=chains,
    signature=signatures,
)
pages = st.lists(records, max_size=4).map(tuple)
fates = st.builds(
    Fate,
    ids,
    incarnations,
    st.sampled_from([s for s in State if s != State.ALIVE]),
    st.lists(votes, max_size=2).map(tuple),
)
fate_pages = st.lists(fates, max_size=4).map(tuple)
evidence = st.builds(wire.Evidence, ids, incarnations, ids, st.booleans(), signatures)
revocations = st.builds(
    Revocation,
    ids,
    st.integers(0, 2**53 - 1),
    texts.filter(str.isprintable),
    chains,
    st.binary(min_size=64, max_size=64),
)
candidacies = st.none() | st.builds(
    Candidacy, ids, st.floats(0, MAX_SAID_S), st.floats(0, MAX_SAID_S)
)

CONTROL_MESSAGES = st.one_of(
    st.builds(wire.Hello, numbers, networks, records, tokens, tokens, digests, candidacies),
    st.builds(wire.Welcome, ids, records, tokens, digests),
    st.builds(wire.Refuse, printable, printable, candidacies),
    st.builds(wire.Heartbeat, digests),
    st.builds(wire.News, pages, fate_pages, st.lists(evidence, max_size=4).map(tuple)),
    st.builds(wire.SyncRequest, st.lists(digests, min_size=BUCKETS, max_size=BUCKETS).map(tuple)),
    st.builds(wire.SyncPage, pages, fate_pages),
    st.builds(wire.Revoked, st.lists(revocations, max_size=3).map(tuple)),
    st.builds(wire.Note, st.binary(max_size=512)),
)
DATA_MESSAGES = st.one_of(
    st.builds(wire.DataHello, tokens),
    st.builds(wire.DataWelcome),
    st.builds(wire.Want, numbers, texts, texts, numbers),
    st.builds(
        wire.Offer,
        numbers, versions, texts, st.integers(0, 2**40 - 1), st.integers(0, 2**53 - 1), tokens,
    ),
    st.builds(wire.Decline, numbers, texts),
    st.builds(wire.Accept, numbers),
    st.builds(wire.Chunk, numbers, numbers, st.integers(0, 2**32 - 1), st.binary(max_size=512)),
    st.builds(wire.Again, numbers, numbers),
    st.builds(wire.Finish, numbers),
)  # fmt: skip
CODECS = pytest.mark.parametrize("codec", [wire.CONTROL, wire.DATA], ids=["control", "data"])


def decodes_or_wire_error(codec, data):
    try:
        message = codec.decode(data)
    except WireError:
        return
    assert codec.decode(codec.encode(message)) == message


@given(CONTROL_MESSAGES)
def test_every_control_message_survives_the_wire(message):
    assert wire.CONTROL.decode(wire.CONTROL.encode(message)) == message


@given(DATA_MESSAGES)
def test_every_data_message_survives_the_wire(message):
    assert wire.DATA.decode(wire.DATA.encode(message)) == message


@pytest.mark.parametrize("version", [0, 2**53 - 1])
def test_an_offers_version_is_a_round_at_its_limits(version):
    offer = wire.Offer(1, version, "layout", 8, 10, bytes(16))
    assert wire.DATA.decode(wire.DATA.encode(offer)) == offer


@pytest.mark.parametrize("version", [-1, -(2**63), 2**53, 2**63])
def test_an_offer_of_a_version_that_no_round_has_is_refused(version):
    with pytest.raises(ValueError, match="version out of range"):
        wire.Offer(1, version, "layout", 8, 10, bytes(16))
    packed = msgpack.unpackb(wire.DATA.encode(wire.Offer(1, 77, "layout", 8, 10, bytes(16))))
    assert packed.count(77) == 1
    packed[packed.index(77)] = version
    with pytest.raises(WireError):
        wire.DATA.decode(msgpack.packb(packed))


def test_a_full_chunk_fits_a_data_message():
    chunk = wire.Chunk(2**63, 2**40, 2**32 - 1, bytes(wire.CHUNK_BYTES))
    assert wire.DATA.decode(wire.DATA.encode(chunk)) == chunk


def test_a_record_at_its_limits_fits_a_control_message(member):
    record = member(
        0,
        name="𝄞" * MAX_NAME,
        addresses=("𝄞" * 256,) * MAX_ADDRESSES,
        chain=(bytes(2048),) * MAX_CHAIN,
        signature=bytes(64),
    )
    assert wire.CONTROL.decode(wire.CONTROL.encode(wire.SyncPage((record,), ()))).records == (
        record,
    )


def test_the_votes_of_a_fate_cross_the_wire_though_equal_fates_may_differ_in_them(id_of):
    votes = tuple(Vote(id_of(n), n, n % 2 == 0, bytes([n]) * 64) for n in range(MAX_VOTES))
    page = wire.SyncPage((), (Fate(id_of(9), 1, State.DEAD, votes),))
    (fate,) = wire.CONTROL.decode(wire.CONTROL.encode(page)).fates
    assert fate.votes == votes


def test_a_revocation_at_its_limits_fits_a_control_message(id_of):
    chain = (bytes(2048),) * MAX_CHAIN
    revocation = Revocation(id_of(0), MAX_INCARNATION - 1, "𝄞" * MAX_REASON, chain, bytes(64))
    message = wire.Revoked((revocation,))
    assert wire.CONTROL.decode(wire.CONTROL.encode(message)) == message


@CODECS
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_give_a_wire_error_and_nothing_else(codec, data):
    decodes_or_wire_error(codec, data)


values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | texts | st.binary(max_size=40) | ids,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=20,
)
tags = st.sampled_from(
    ["hello", "welcome", "refuse", "hb", "news", "sync?", "sync", "revoked", "note",
     "want", "offer", "decline", "accept", "chunk", "again", "finish"]
)  # fmt: skip


@CODECS
@given(tag=tags, fields=st.lists(values, max_size=7))
def test_well_formed_msgpack_of_any_shape_gives_a_wire_error_and_nothing_else(codec, tag, fields):
    decodes_or_wire_error(codec, msgpack.packb([tag, *fields]))


@given(message=CONTROL_MESSAGES, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_another_message_or_a_wire_error(message, at, byte):
    data = bytearray(wire.CONTROL.encode(message))
    data[at % len(data)] = byte
    decodes_or_wire_error(wire.CONTROL, bytes(data))


@given(message=CONTROL_MESSAGES, keep=st.integers(0, 10_000))
def test_a_truncated_control_message_is_refused(message, keep):
    data = wire.CONTROL.encode(message)
    with pytest.raises(WireError):
        wire.CONTROL.decode(data[: keep % len(data)])


@given(message=DATA_MESSAGES, keep=st.integers(0, 10_000))
def test_a_truncated_data_message_is_refused(message, keep):
    data = wire.DATA.encode(message)
    with pytest.raises(WireError):
        wire.DATA.decode(data[: keep % len(data)])


def test_a_bomb_of_nested_empty_lists_is_refused_and_stays_small():
    row = b"\xdc\x03\xff" + b"\x90" * 1023  # 1023 empty lists, just under the limit of items
    bomb = b"\xdc\x00\x3f" + row * 63
    assert 60_000 < len(bomb) <= wire.MAX_CONTROL_BYTES
    tracemalloc.start()
    with pytest.raises(WireError):
        wire.CONTROL.decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


@CODECS
@pytest.mark.parametrize("level", [b"\x91", b"\x92\xc0", b"\x81\xa1a"])
def test_a_depth_bomb_of_64_kib_is_refused(codec, level):
    with pytest.raises(WireError):
        codec.decode((level * wire.MAX_CONTROL_BYTES)[: wire.MAX_CONTROL_BYTES - 1] + b"\x90")


@CODECS
def test_more_than_the_limit_is_refused_whatever_it_is(codec):
    with pytest.raises(WireError, match="over the limit"):
        codec.decode(bytes(wire.MAX_DATA_BYTES + 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda who: wire.Hello(1, "short", who, bytes(16), bytes(16), 0, None),
        lambda who: wire.Hello(1, "", who, bytes(15), bytes(16), 0, None),
        lambda who: wire.Hello(1, "", who, bytes(16), bytes(17), 0, None),
        lambda who: wire.Hello(1, "", who, bytes(16), bytes(16), -1, None),
        lambda who: Candidacy("short", 0.0, 0.0),
        lambda who: Candidacy(who.peer_id, -0.1, 0.0),
        lambda who: Candidacy(who.peer_id, 0.0, -0.1),
        lambda who: Candidacy(who.peer_id, MAX_SAID_S + 0.1, 0.0),
        lambda who: Candidacy(who.peer_id, 0.0, MAX_SAID_S + 0.1),
        lambda who: Candidacy(who.peer_id, math.nan, 0.0),
        lambda who: Candidacy(who.peer_id, 0.0, math.nan),
        lambda who: wire.SyncRequest((0,) * (BUCKETS - 1)),
        lambda who: wire.SyncRequest((0,) * (BUCKETS + 1)),
        lambda who: wire.SyncRequest((-1,) * BUCKETS),
        lambda who: wire.SyncRequest((2**64,) * BUCKETS),
        lambda who: wire.Welcome("", who, bytes(16), 0),
        lambda who: wire.Welcome(new_id(), who, b"", 0),
        lambda who: wire.Heartbeat(2**64),
        lambda who: wire.Heartbeat(-1),
        lambda who: wire.Evidence("", 0, who.peer_id, True),
        lambda who: wire.Evidence(who.peer_id, 0, "x" * 52 + "\n", True),
        lambda who: wire.Evidence(who.peer_id, -1, who.peer_id, True),
        lambda who: wire.Evidence(who.peer_id, 2**53, who.peer_id, True),
        lambda who: wire.DataHello(b"short"),
        lambda who: wire.Offer(1, 1, "layout", -1, 0, bytes(16)),
        lambda who: wire.Offer(1, 1, "layout", 2**40, 0, bytes(16)),
        lambda who: wire.Offer(1, 1, "layout", 0, -1, bytes(16)),
        lambda who: wire.Offer(1, 1, "layout", 0, 0, bytes(15)),
    ],
)
def test_values_out_of_range_cannot_be_built(make, member):
    with pytest.raises(ValueError):
        make(member(0))


def fields_of(message):
    tag, *fields = msgpack.unpackb(wire.CONTROL.encode(message))
    return tag, fields


@pytest.mark.parametrize(
    ("place", "spoilt"),
    [
        (0, ["a"]),  # no list of records
        (0, [[]]),
        (0, None),
        (1, [["a" * 52, 1]]),
        (1, [["a" * 52, 1, "alive"]]),  # no fate
        (1, [["a" * 52, 1, "gone"]]),
        (1, [["a" * 52, 1, ["dead"]]]),
        (1, [["a" * 52, "1", "dead"]]),
        (1, [["a" * 52, 2**53, "dead"]]),
        (1, [["a" * 52, 1, "dead", 0]]),
        (1, ["a"]),
        (2, [["a" * 52, 1, "a" * 52, 1]]),  # 1 is not true
        (2, [["a" * 52, 1, "b", True]]),
        (2, [["a" * 52, -1, "a" * 52, True]]),
        (2, [["a" * 52, 1, "a" * 52]]),
        (2, {}),
    ],
)
def test_news_with_one_bad_item_is_refused_whole(member, id_of, place, spoilt):
    good = wire.News(
        (member(0),),
        (Fate(id_of(1), 1, State.DEAD),),
        (wire.Evidence(id_of(1), 1, id_of(2), True),),
    )
    tag, fields = fields_of(good)
    assert wire.CONTROL.decode(msgpack.packb([tag, *fields])) == good
    fields[place] = spoilt
    with pytest.raises(WireError):
        wire.CONTROL.decode(msgpack.packb([tag, *fields]))


@pytest.mark.parametrize(
    "spoilt",
    [
        ["a" * 52], ["a" * 52, 1.0], ["a" * 52, -1.0, 0], ["a" * 52, 0, -1.0], ["a", 1.0, 1.0],
        ["a" * 52, "1", 1.0], ["a" * 52, 1.0, None], ["a" * 52, 1, 1, 1], [], 5, "a", [[]],
    ],
)  # fmt: skip
def test_a_greeting_with_a_bad_candidacy_is_refused(member, spoilt):
    for message in (
        wire.Hello(1, "", member(0), bytes(16), bytes(16), 0, Candidacy("a" * 52, 0.5, 1.5)),
        wire.Refuse("homeless", "no network yet", Candidacy("a" * 52, 0.5, 1.5)),
    ):
        tag, fields = fields_of(message)
        place = fields.index(["a" * 52, 0.5, 1.5])
        fields[place] = spoilt
        with pytest.raises(WireError):
            wire.CONTROL.decode(msgpack.packb([tag, *fields]))


def test_a_message_of_the_other_link_is_unknown():
    with pytest.raises(WireError, match="unknown message 'want'"):
        wire.CONTROL.decode(wire.DATA.encode(wire.Want(1, "", "", -1)))
    with pytest.raises(WireError, match="unknown message 'hb'"):
        wire.DATA.decode(wire.CONTROL.encode(wire.Heartbeat(1)))


def test_what_was_read_is_of_the_same_kinds_as_what_was_written(member, id_of):
    """A bare tuple or string would be equal and have no methods."""
    news = wire.News(
        (member(0),),
        (Fate(id_of(1), 1, State.DEAD),),
        (wire.Evidence(id_of(1), 1, id_of(2), True),),
    )
    read = wire.CONTROL.decode(wire.CONTROL.encode(news))
    assert type(read.fates[0]) is Fate
    assert read.fates[0].state is State.DEAD
    assert type(read.evidence[0]) is wire.Evidence
    assert type(read.records[0]) is Record
    assert type(read.records[0].addresses) is tuple
