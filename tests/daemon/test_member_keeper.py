import pytest

from daemon.credentials import Credentials
from daemon.member_keeper import MemberKeeper
from daemon.store import Store, StoreFull
from overlay.membership import Membership
from overlay.records import Fate, Member, Record, State
from overlay.wire import CONTROL, Heartbeat, Revoked
from tests.overlay.signed_network import SignedNetwork

ME, A, B = "m" * 52, "a" * 52, "b" * 52


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


@pytest.fixture
def table(record):
    table = Membership(record(ME))
    for peer in (A, B):
        table.merge(record(peer), 0.0)
    return table


async def test_the_others_are_remembered_as_they_were(store, table):
    await MemberKeeper(store).save(table, "n")
    assert MemberKeeper(store).remembered(None) == [
        Member(table.get(A), State.ALIVE),
        Member(table.get(B), State.ALIVE),
    ]
    assert store.get("network") == "n"
    assert store.get("incarnation") == str(table.me.incarnation)


async def test_only_what_changed_is_written(store, table, record):
    keeper, written = MemberKeeper(store), []
    await keeper.save(table, "n")
    put_members = store.put_members
    store.put_members = lambda rows, gone: written.append((rows, gone)) or put_members(rows, gone)
    store.put = lambda words: written.append(words)
    await keeper.save(table, "n")
    assert written == []
    table.merge(record(A, incarnation=2), 1.0)
    table.judge(Fate(A, 2, State.DEAD), 1.0)
    await keeper.save(table, "n")
    (((peer, row),), gone) = written.pop()
    assert (peer, row["state"], gone) == (A, "dead", [])
    table.forget(1e9)
    await keeper.save(table, "n")
    assert written.pop() == ([], [A])
    assert MemberKeeper(store).remembered(None) == [Member(table.get(B), State.ALIVE)]


async def test_what_a_full_disk_did_not_take_is_written_later(store, table):
    keeper, put_members = MemberKeeper(store), store.put_members

    def full(rows, gone):
        raise StoreFull("no space left")

    store.put_members = full
    await keeper.save(table, "n")
    store.put_members = put_members
    await keeper.save(table, "n")
    assert len(MemberKeeper(store).remembered(None)) == 2


@pytest.fixture
def founder(tmp_path):
    (tmp_path / "founder").mkdir()
    made = Credentials(tmp_path / "founder")
    made.found()
    return made


async def test_a_signed_record_is_remembered_with_its_certificate(store, table, founder):
    notary = founder.signing()
    signed = notary.record(Record(founder.peer_id, "f", ("wss://f:1",), 3, True, -1))
    table.merge(signed, 0.0)
    await MemberKeeper(store).save(table, "n")
    (found,) = [m.record for m in MemberKeeper(store).remembered(None) if m.record.chain]
    assert found == signed
    assert notary.knows(found)


async def test_revocations_are_remembered_whoever_said_them(store, table, founder):
    notary, keeper = founder.signing(), MemberKeeper(store)
    own, heard = notary.revocation(A, "told here"), notary.revocation(B, "")
    await keeper.remember_revocations([own])
    assert MemberKeeper(store).revoked() == [own]
    table.revoke(own, 0.0)
    table.revoke(heard, 0.0)
    await keeper.save(table, "n")
    assert MemberKeeper(store).revoked() == [own, heard]
    assert store.is_revoked(A)
    assert store.is_revoked(B)


async def test_a_revocation_is_written_once(store, table, founder):
    notary, keeper, written = founder.signing(), MemberKeeper(store), []
    await keeper.remember_revocations([notary.revocation(A, "")])
    put = store.put_revocations
    store.put_revocations = lambda rows, void: written.append((rows, void)) or put(rows, void)
    again = MemberKeeper(store)
    for revocation in [*again.revoked(), notary.revocation(B, "")]:
        table.revoke(revocation, 0.0)
    await again.save(table, "n")
    await again.save(table, "n")
    assert [([peer for peer, _ in rows], void) for rows, void in written] == [([B], [])]


async def test_a_revocation_that_a_full_disk_did_not_take_is_written_later(store, table, founder):
    keeper, put = MemberKeeper(store), store.put_revocations

    def full(rows, void):
        raise StoreFull("no space left")

    store.put_revocations = full
    table.revoke(founder.signing().revocation(A, ""), 0.0)
    await keeper.save(table, "n")
    assert not store.is_revoked(A)
    store.put_revocations = put
    await keeper.save(table, "n")
    assert store.is_revoked(A)
    store.put_revocations = full
    with pytest.raises(StoreFull):
        await keeper.remember_revocations([founder.signing().revocation(B, "")])


async def test_what_became_void_or_was_said_again_is_so_on_disk_too(store, table):
    """An issuer put a and b out; the authority puts the issuer out, and b besides."""
    network = SignedNetwork()
    issuer, keeper = network.person("issuer", "issuer"), MemberKeeper(store)
    for name in ("a", "b"):
        subject = network.person(name)
        table.revoke(issuer.notary.revocation(subject.id, "", subject.chain), 0.0)
    await keeper.save(table, "n")
    kept = [network.revocation(network.person("b").id), network.revocation(issuer.id)]
    for revocation in kept:
        table.revoke(revocation, 0.0)
    await keeper.save(table, "n")
    again = MemberKeeper(store)
    assert sorted(again.revoked(), key=str) == sorted(kept, key=str)
    assert not store.is_revoked(network.person("a").id)
    await again.remember_revocations([], [issuer.id])
    assert not store.is_revoked(issuer.id)


def test_a_revocation_that_cannot_be_read_is_left_out(store, founder):
    good = founder.signing().revocation(A, "")
    rows = [("x", b"\xc1"), ("y", CONTROL.encode(Heartbeat(1)))]
    store.put_revocations([*rows, (A, CONTROL.encode(Revoked((good,))))])
    assert MemberKeeper(store).revoked() == [good]


def test_a_row_that_cannot_be_read_is_left_out(store):
    store.put_members([(A, {"state": "alive"}), (B, {"addresses": 3, "state": "x"})], [])
    assert MemberKeeper(store).remembered(None) == []
