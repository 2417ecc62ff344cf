import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.digests import BUCKETS
from overlay.records import MAX_ADDRESSES, MAX_NAME, MAX_VOTES, Fate, Record, State, Vote
from overlay.revocation import Revocation
from overlay.simulator.sizes import message_bytes
from overlay.wire import CONTROL, Evidence, Heartbeat, News, Revoked, SyncPage, SyncRequest

# Where msgpack takes another byte or more, and their neighbours.
STEPS = [0, 1, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**32 - 1, 2**32, 2**53 - 1]

ids = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=52, max_size=52)
incarnations = st.integers(0, 2**53 - 1) | st.sampled_from(STEPS)
digests = st.integers(0, 2**64 - 1) | st.sampled_from([*STEPS, 2**64 - 1])
texts = st.text(st.characters(codec="utf-8"), max_size=MAX_NAME)
long_texts = st.builds(str.__mul__, st.sampled_from(["x", "é", "𝄞"]), st.integers(0, 256))
signatures = st.sampled_from([b"", bytes(64)])
chains = st.lists(st.sampled_from([0, 255, 256, 2048]).map(bytes), max_size=2).map(tuple)
records = st.builds(
    Record,
    peer_id=ids,
    name=texts.filter(str.isprintable),
    addresses=st.lists(texts | long_texts, max_size=MAX_ADDRESSES).map(tuple),
    incarnation=incarnations,
    learner=st.booleans(),
    part=st.integers(-1, 2**31 - 1) | st.sampled_from([-1, *STEPS[:9]]),
    chain=chains,
    signature=signatures,
)
votes = st.builds(Vote, ids, incarnations, st.booleans(), signatures)
fates = st.builds(
    Fate,
    ids,
    incarnations,
    st.sampled_from([s for s in State if s != State.ALIVE]),
    st.lists(votes, max_size=MAX_VOTES).map(tuple),
)
evidence = st.builds(Evidence, ids, incarnations, ids, st.booleans(), signatures)
revocations = st.builds(
    Revocation,
    ids,
    st.integers(0, 2**53 - 1),
    texts.filter(str.isprintable),
    chains,
    st.just(bytes(64)),
)


def tuples(items, most):
    return st.lists(items, max_size=most).map(tuple)


messages = st.one_of(
    st.builds(Heartbeat, digests),
    st.builds(News, tuples(records, 3), tuples(fates, 5), tuples(evidence, 5)),
    st.builds(SyncPage, tuples(records, 3), tuples(fates, 17)),
    st.builds(Revoked, tuples(revocations, 3)),
    st.builds(SyncRequest, st.lists(digests, min_size=BUCKETS, max_size=BUCKETS).map(tuple)),
)


@given(message=messages)
def test_the_size_is_that_of_the_encoded_message(message):
    assert message_bytes(message) == len(CONTROL.encode(message))


@pytest.mark.parametrize("number", [*STEPS, 2**64 - 1])
def test_integers_grow_where_msgpack_says(number):
    message = Heartbeat(number)
    assert message_bytes(message) == len(CONTROL.encode(message))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 64, 255, 256])
@pytest.mark.parametrize("letter", ["x", "é", "𝄞"])
def test_texts_grow_where_msgpack_says(member, length, letter):
    record = member(0, name=letter * min(length, MAX_NAME), addresses=(letter * length,))
    message = SyncPage((record,), ())
    assert message_bytes(message) == len(CONTROL.encode(message))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 128])
def test_lists_grow_where_msgpack_says(member, id_of, count):
    rows = tuple(member(number, addresses=()) for number in range(count))
    said = tuple(Fate(id_of(number), 1, State.SUSPECT) for number in range(count))
    seen = tuple(Evidence(id_of(number), 1, id_of(0), True) for number in range(count))
    for message in (News(rows, said, seen), News((), (), seen), SyncPage(rows, said)):
        assert message_bytes(message) == len(CONTROL.encode(message))
