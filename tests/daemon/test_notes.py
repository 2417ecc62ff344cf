import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.notes import (
    MAX_PARTNERS,
    NOTES,
    STATES,
    Announce,
    JobOffer,
    JobRequest,
    JobState,
    Proof,
    TrainState,
)
from learner.job_file import MAX_JOB_BYTES
from overlay.certificates import MAX_CERTIFICATE_BYTES
from overlay.codec import WireError
from overlay.records import MAX_CHAIN, SIGNATURE_BYTES

NUMBERS = st.integers(0, 2**53 - 1)
TEXTS = st.text(max_size=64)
IDS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=52, max_size=52)
PROOFS = st.builds(
    Proof,
    NUMBERS,
    st.lists(st.binary(max_size=MAX_CERTIFICATE_BYTES), max_size=MAX_CHAIN).map(tuple),
    st.sampled_from([b"", bytes(SIGNATURE_BYTES)]),
)
EVERY_NOTE = st.one_of(
    st.builds(JobState, NUMBERS, TEXTS),
    st.just(JobRequest()),
    st.builds(JobOffer, NUMBERS, st.text(max_size=2000), PROOFS),
    st.builds(TrainState, TEXTS, st.sampled_from(STATES), NUMBERS, TEXTS, TEXTS, NUMBERS),
    st.builds(Announce, TEXTS, NUMBERS, st.lists(IDS, max_size=8).map(tuple)),
)


@given(EVERY_NOTE)
def test_every_note_comes_back_as_it_was(note):
    assert NOTES.decode(NOTES.encode(note)) == note


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else(data):
    try:
        NOTES.decode(data)
    except WireError:
        return


@given(
    st.sampled_from(["job", "job?", "job!", "train", "round"]),
    st.lists(
        st.one_of(st.integers(-5, 2**60), st.text(max_size=10), st.none(), st.lists(st.text())),
        max_size=7,
    ),
)
def test_a_known_tag_with_wrong_fields_is_refused_and_nothing_else(tag, fields):
    try:
        note = NOTES.decode(msgpack.packb([tag, *fields]))
    except WireError:
        return
    assert NOTES.decode(NOTES.encode(note)) == note


@pytest.mark.parametrize(
    "make",
    [
        lambda: JobState(-1, ""),
        lambda: JobState(2**53, ""),
        lambda: JobState(1, "d" * 65),
        lambda: TrainState("r", "dreaming", 0, "", "", 0),
        lambda: TrainState("r", "idle", -1, "", "", 0),
        lambda: TrainState("r", "idle", 0, "", "", -1),
        lambda: TrainState("r", "idle", 0, "", "x" * 129, 0),
        lambda: Announce("r", 1, ("not an id",)),
        lambda: Proof(-1),
        lambda: Proof(0, (b"",) * (MAX_CHAIN + 1)),
        lambda: Proof(0, (), b"short"),
        lambda: Announce("r", 1, ("a" * 52,) * (MAX_PARTNERS + 1)),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_the_largest_job_and_the_most_partners_fit():
    proof = Proof(2**53 - 1, (bytes(MAX_CERTIFICATE_BYTES),) * MAX_CHAIN, bytes(SIGNATURE_BYTES))
    offer = JobOffer(1, "x" * MAX_JOB_BYTES, proof)
    assert NOTES.decode(NOTES.encode(offer)) == offer
    note = Announce("r" * 128, 2**53 - 1, ("a" * 52,) * MAX_PARTNERS)
    assert NOTES.decode(NOTES.encode(note)) == note
