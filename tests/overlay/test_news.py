import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.certificates import MAX_CERTIFICATE_BYTES
from overlay.news import (
    ITEMS_PER_PAGE,
    KIND_BYTES,
    PATIENCE,
    RECORDS_PER_PAGE,
    Outbox,
    fate_bytes,
    pages,
    record_bytes,
    revocation_pages,
)
from overlay.records import (
    MAX_ADDRESSES,
    MAX_CHAIN,
    MAX_INCARNATION,
    MAX_NAME,
    MAX_VOTES,
    SIGNATURE_BYTES,
    Fate,
    State,
    Vote,
)
from overlay.revocation import MAX_REASON, Revocation
from overlay.wire import CONTROL, MAX_CONTROL_BYTES, Evidence, News, Revoked, SyncPage

INTERVAL_S = 0.05
LAST = MAX_INCARNATION - 1
SIGNATURE = bytes(SIGNATURE_BYTES)
CHAIN = (bytes(MAX_CERTIFICATE_BYTES),) * MAX_CHAIN


@pytest.fixture
def outbox():
    return Outbox(INTERVAL_S)


@pytest.fixture
def fate(id_of):
    """fate(number, state=…, incarnation=1)"""
    return lambda number, state=State.DEAD, incarnation=1: Fate(id_of(number), incarnation, state)


@pytest.fixture
def saw(id_of):
    """saw(observer, subject, hard=False): a testimony, by numbers."""
    return lambda observer, subject, hard=False: Evidence(id_of(subject), 1, id_of(observer), hard)


@pytest.fixture
def revocation(id_of):
    """revocation(number, **changes): a fixed one."""

    def revocation(number, *, reason="", chain=()):
        return Revocation(id_of(number), LAST, reason, chain, SIGNATURE)

    return revocation


def told(outbox, *links, now=0.0):
    """What each link is told at a flush, all its pages together."""
    result = {link: ((), (), ()) for link in links}
    for link, news in outbox.flush(links, now):
        records, fates, evidence = result[link]
        result[link] = (records + news.records, fates + news.fates, evidence + news.evidence)
    return result


# Pages.


def full(member, number):
    """A record at the limits of all its fields."""
    return member(
        number,
        name="𝄞" * MAX_NAME,
        addresses=("𝄞" * 256,) * MAX_ADDRESSES,
        incarnation=LAST,
        part=2**31 - 1,
        chain=CHAIN,
        signature=SIGNATURE,
    )


def fully_doomed(id_of, number, votes=MAX_VOTES):
    """A fate at the limits of all its fields, but for the number of its votes."""
    voters = tuple(Vote(id_of(n), LAST, True, SIGNATURE) for n in range(votes))
    return Fate(id_of(number), LAST, State.REVOKED, voters)


def fully_seen(id_of, number):
    """A testimony at the limits of all its fields."""
    return Evidence(id_of(number), LAST, id_of(0), True, SIGNATURE)


@given(
    sizes=st.lists(st.integers(0, MAX_ADDRESSES), max_size=40),
    fates=st.integers(0, 300),
    evidence=st.integers(0, 300),
)
def test_nothing_is_lost_or_doubled_and_the_order_kept(member, id_of, sizes, fates, evidence):
    records = [
        member(n, addresses=("x" * 256,) * size, name="é" * size) for n, size in enumerate(sizes)
    ]
    fates = [Fate(id_of(1), n, State.DEAD) for n in range(fates)]
    evidence = [Evidence(id_of(1), n, id_of(2), True) for n in range(evidence)]
    cut = pages(records, fates, evidence)
    assert [record for page in cut for record in page.records] == records
    assert [fate for page in cut for fate in page.fates] == fates
    assert [piece for page in cut for piece in page.evidence] == evidence
    assert all(page.records or page.fates or page.evidence for page in cut)
    assert all(len(CONTROL.encode(page)) <= MAX_CONTROL_BYTES for page in cut)


@pytest.mark.parametrize("count", [1, 3, 4, 6, 7, 9])
def test_pages_fit_a_control_message_with_every_field_at_its_limit(member, id_of, count):
    records = [full(member, number) for number in range(count)]
    fates = [fully_doomed(id_of, n) for n in range(60)]
    evidence = [fully_seen(id_of, n) for n in range(2 * ITEMS_PER_PAGE + 1)]
    cut = pages(records, fates, evidence)
    sizes = [len(CONTROL.encode(page)) for page in cut]
    assert 0.6 * MAX_CONTROL_BYTES < max(sizes) <= MAX_CONTROL_BYTES
    assert sum(len(page.records) for page in cut) == count
    assert [fate for page in cut for fate in page.fates] == fates
    assert [piece for page in cut for piece in page.evidence] == evidence


sizes = st.integers(0, 9)  # of what there are this many of, and how large each is
sized = st.lists(st.tuples(sizes, st.sampled_from([0, 1, 255, 256, 2048])), max_size=40)


@given(records=sized, votes=st.lists(st.integers(0, MAX_VOTES), max_size=300), seen=st.just(300))
def test_pages_of_whatever_is_signed_fit_a_control_message(member, id_of, records, votes, seen):
    signed = [
        member(
            n, name="", addresses=("x" * 200,) * min(count, MAX_ADDRESSES), incarnation=LAST,
            chain=(bytes(size),) * MAX_CHAIN, signature=SIGNATURE,
        )
        for n, (count, size) in enumerate(records)
    ]  # fmt: skip
    fates = [fully_doomed(id_of, n, count) for n, count in enumerate(votes)]
    cut = pages(signed, fates, [fully_seen(id_of, n) for n in range(seen)])
    assert [record for page in cut for record in page.records] == signed
    assert max(len(CONTROL.encode(page)) for page in cut) <= MAX_CONTROL_BYTES
    for page in pages(signed, fates):
        assert len(CONTROL.encode(SyncPage(page.records, page.fates))) <= MAX_CONTROL_BYTES


@pytest.mark.parametrize("votes", range(MAX_VOTES + 1))
def test_a_fate_measures_no_more_than_is_reckoned(id_of, votes):
    fate = fully_doomed(id_of, 9, votes)
    size = len(CONTROL.encode(SyncPage((), (fate,)))) - len(CONTROL.encode(SyncPage((), ())))
    assert size <= fate_bytes(fate) <= size + 8 * (votes + 1)


@pytest.mark.parametrize(("reason", "chain"), [("", ()), ("𝄞" * MAX_REASON, CHAIN)])
def test_pages_of_revocations_fit_a_control_message(revocation, reason, chain):
    revoked = [revocation(n, reason=reason, chain=chain) for n in range(300)]
    cut = revocation_pages(revoked)
    assert [one for page in cut for one in page.revocations] == revoked
    assert max(len(CONTROL.encode(page)) for page in cut) <= MAX_CONTROL_BYTES
    assert revocation_pages([]) == []


def test_the_largest_records_fit_a_page_of_a_table(member):
    for page in pages([full(member, number) for number in range(9)]):
        assert len(CONTROL.encode(SyncPage(page.records, page.fates))) <= MAX_CONTROL_BYTES


def test_small_records_fill_pages_by_their_number(member):
    records = [member(number) for number in range(2 * RECORDS_PER_PAGE + 5)]
    cut = pages(records)
    assert [len(page.records) for page in cut] == [RECORDS_PER_PAGE, RECORDS_PER_PAGE, 5]


def test_records_come_before_the_fates_about_them(member, fate):
    records = [member(number) for number in range(RECORDS_PER_PAGE + 1)]
    first, second = pages(records, [fate(0)], [])
    assert (first.fates, second.fates) == ((), (fate(0),))


def test_no_news_is_no_page():
    assert pages([]) == []


@given(
    name=st.text(st.characters(codec="utf-8"), max_size=MAX_NAME).filter(str.isprintable),
    addresses=st.lists(
        st.builds(str.__mul__, st.sampled_from(["x", "é", "𝄞"]), st.integers(0, 256)),
        max_size=MAX_ADDRESSES,
    ),
    incarnation=st.sampled_from([0, 127, 2**16, 2**32, LAST]),
    part=st.sampled_from([-1, 0, 300, 2**31 - 1]),
    chain=st.sampled_from([(), CHAIN[:1], CHAIN]),
    signature=st.sampled_from([b"", SIGNATURE]),
)
def test_a_record_measures_no_more_than_is_reckoned(member, addresses, **fields):
    record = member(0, addresses=tuple(addresses), **fields)
    empty = len(CONTROL.encode(SyncPage((), ())))
    size = len(CONTROL.encode(SyncPage((record,), ()))) - empty
    assert size <= record_bytes(record) <= size + 24 + 2 * len(addresses)
    assert record_bytes(record) <= 2 * KIND_BYTES


# When.


def test_nothing_is_due_when_there_is_nothing_to_say(outbox, member):
    assert outbox.due_at() == math.inf
    assert outbox.flush(["a"], 5.0) == []
    outbox.add_record(member(1), "")
    outbox.flush(["a"], 6.0)
    assert outbox.due_at() == math.inf


@pytest.mark.parametrize("kind", ["record", "fate", "evidence", "revocation"])
def test_the_first_news_after_a_quiet_moment_goes_at_once(
    outbox, member, fate, saw, revocation, kind
):
    match kind:
        case "record":
            outbox.add_record(member(1), "a")
        case "fate":
            outbox.add_fates([fate(1)], "a")
        case "evidence":
            outbox.add_evidence([saw(1, 2)], "a")
        case "revocation":
            outbox.add_revocation(revocation(1), "a")
    assert outbox.due_at() <= 0.0
    assert len(outbox.flush(["b"], 0.0)) == 1


@pytest.mark.parametrize(
    ("pieces", "intervals"), [(0, 1.0), (1, 1 + 1 / 128), (128, 2.0), (300, 1 + 300 / 128),
                              (384, PATIENCE), (2000, PATIENCE)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["fates", "evidence"])
def test_the_next_one_waits_an_interval_and_longer_after_full_pages(
    outbox, fate, saw, pieces, intervals, kind
):
    if kind == "fates":
        outbox.add_fates([fate(number) for number in range(pieces)], "")
    elif pieces:
        outbox.add_evidence([saw(n, n + 1) for n in range(pieces)], "")
    outbox.flush(["a"], 10.0)
    outbox.add_fates([fate(5000)], "")
    assert outbox.due_at() == pytest.approx(10.0 + intervals * INTERVAL_S)


# What and to whom.


def test_everything_that_waits_goes_to_every_link_once(outbox, member, fate, saw):
    outbox.add_record(member(1), "")
    outbox.add_fates([fate(2), fate(3, State.SUSPECT)], "")
    outbox.add_evidence([saw(4, 5)], "")
    everything = ((member(1),), (fate(2), fate(3, State.SUSPECT)), (saw(4, 5),))
    assert told(outbox, "a", "b") == {"a": everything, "b": everything}
    assert outbox.flush(["a", "b"], 1.0) == []


def test_a_message_is_news(outbox, fate):
    outbox.add_fates([fate(1)], "")
    assert outbox.flush(["a"], 0.0) == [("a", News((), (fate(1),), ()))]


def test_a_link_is_not_told_what_came_from_it(outbox, member, fate, saw):
    outbox.add_record(member(1), "a")
    outbox.add_fates([fate(2)], "b")
    outbox.add_evidence([saw(3, 4)], "a")
    outbox.add_evidence([saw(5, 6)], "b")
    assert told(outbox, "a", "b", "c") == {
        "a": ((), (fate(2),), (saw(5, 6),)),
        "b": ((member(1),), (), (saw(3, 4),)),
        "c": ((member(1),), (fate(2),), (saw(3, 4), saw(5, 6))),
    }


def test_a_link_that_knows_everything_gets_no_message(outbox, fate):
    outbox.add_fates([fate(1)], "a")
    assert outbox.flush(["a"], 0.0) == []


def test_whoever_tells_a_waiting_fate_too_need_not_hear_it(outbox, fate):
    outbox.add_fates([fate(1)], "a")
    outbox.heard_too(fate(1), "b")
    outbox.heard_too(fate(1, State.SUSPECT), "c")  # another word
    outbox.heard_too(fate(2), "c")  # nothing that waits
    assert told(outbox, "a", "b", "c") == {
        "a": ((), (), ()),
        "b": ((), (), ()),
        "c": ((), (fate(1),), ()),
    }


def test_whoever_tells_a_fate_may_not_know_the_record_that_waits_as_well(outbox, member, fate):
    outbox.add_record(member(1), "a")
    outbox.add_fates([fate(1)], "b")
    outbox.heard_too(fate(1), "c")
    for link, (records, fates, _) in told(outbox, "b", "c", "d").items():
        assert records == (member(1),), link
        assert fates == (fate(1),), link


def test_a_refutation_replaces_the_doubt(outbox, member, fate):
    outbox.add_fates([fate(1, State.SUSPECT)], "a")
    outbox.add_record(member(1, incarnation=2), "b")
    assert told(outbox, "a", "b", "c") == {
        "a": ((member(1, incarnation=2),), (), ()),
        "b": ((), (), ()),
        "c": ((member(1, incarnation=2),), (), ()),
    }


def test_a_record_of_an_earlier_life_replaces_no_fate(outbox, member, fate):
    """It refutes nothing: the table still holds the fate, and the others are to hear of it."""
    outbox.add_fates([fate(1, State.DEAD, incarnation=3)], "a")
    outbox.add_record(member(1, incarnation=2), "a")
    (_, fates, _) = told(outbox, "b")["b"]
    assert fates == (fate(1, State.DEAD, incarnation=3),)


def test_a_newer_record_replaces_the_older_and_goes_to_who_told_that(outbox, member):
    outbox.add_record(member(1), "a")
    outbox.add_record(member(1, incarnation=2), "b")
    assert told(outbox, "a", "b") == {
        "a": ((member(1, incarnation=2),), (), ()),
        "b": ((), (), ()),
    }


def test_a_graver_fate_replaces_the_lesser_and_goes_to_who_told_that(outbox, fate):
    outbox.add_fates([fate(1, State.SUSPECT)], "a")
    outbox.add_fates([fate(1)], "b")
    assert told(outbox, "a", "b") == {"a": ((), (fate(1),), ()), "b": ((), (), ())}


@pytest.mark.parametrize(
    ("state", "kept"), [(State.SUSPECT, True), (State.DEAD, False), (State.LEFT, False)]
)
def test_a_verdict_replaces_the_evidence_for_it_and_a_doubt_does_not(
    outbox, fate, saw, state, kept
):
    outbox.add_evidence([saw(1, 9), saw(2, 8)], "a")
    outbox.add_fates([fate(9, state)], "")
    (_, _, evidence) = told(outbox, "b")["b"]
    assert evidence == ((saw(1, 9), saw(2, 8)) if kept else (saw(2, 8),))


def test_a_revocation_goes_once_to_every_link_but_the_one_it_came_from(outbox, revocation, fate):
    outbox.add_revocation(revocation(1), "a")
    outbox.add_revocation(revocation(2), "")
    outbox.add_fates([fate(3)], "")
    everything = [Revoked((revocation(1), revocation(2))), News((), (fate(3),), ())]
    assert outbox.flush(["a", "b"], 0.0) == [
        ("a", Revoked((revocation(2),))),
        ("a", News((), (fate(3),), ())),
        *(("b", message) for message in everything),
    ]
    assert outbox.due_at() == math.inf
