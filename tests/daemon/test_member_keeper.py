import pytest

from daemon.member_keeper import MemberKeeper
from daemon.store import Store, StoreFull
from overlay.membership import Membership
from overlay.records import Fate, Member, State

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
    assert MemberKeeper(store).remembered() == [
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
    assert MemberKeeper(store).remembered() == [Member(table.get(B), State.ALIVE)]


async def test_what_a_full_disk_did_not_take_is_written_later(store, table):
    keeper, put_members = MemberKeeper(store), store.put_members

    def full(rows, gone):
        raise StoreFull("no space left")

    store.put_members = full
    await keeper.save(table, "n")
    store.put_members = put_members
    await keeper.save(table, "n")
    assert len(MemberKeeper(store).remembered()) == 2


def test_a_row_that_cannot_be_read_is_left_out(store):
    store.put_members([(A, {"state": "alive"}), (B, {"addresses": 3, "state": "x"})], [])
    assert MemberKeeper(store).remembered() == []
