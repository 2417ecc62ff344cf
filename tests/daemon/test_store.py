import sqlite3
import threading

import pytest

from daemon.store import Invitation, Store, StoreFailed, StoreFull


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


@pytest.fixture
def fill(store):
    """Leave the database no page more than it has."""

    def make():
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")

    return make


def test_words_are_remembered_and_replaced(store):
    assert store.get("peer") == ""
    assert store.get("peer", "nobody") == "nobody"
    store.put({"peer": "a", "network": "n"})
    store.put({"peer": "b"})
    assert [store.get("peer"), store.get("network")] == ["b", "n"]


def test_words_are_put_all_or_none(store):
    store.put({"a": "old"})
    with pytest.raises(StoreFailed):
        store.put({"a": "new", "b": None})
    assert [store.get("a"), store.get("b", "absent")] == ["old", "absent"]
    store.put({"b": "fine"})
    assert store.get("b") == "fine"


def test_members_are_remembered_changed_and_forgotten(store):
    store.put_members([("b", {"n": 1}), ("a", {"n": 2})], [])
    assert store.members() == [{"n": 2}, {"n": 1}]
    store.put_members([("a", {"n": 3})], ["b", "stranger"])
    assert store.members() == [{"n": 3}]


def test_rounds_are_found_by_job_and_number_the_newest_of_them(store):
    for number in range(1, 6):
        store.add_round("1-x", number, {"loss": number / 10})
    store.add_round("2-y", 1, {"loss": 9.0})
    numbers = [row["round"] for row in store.rounds("1-x", since=2, limit=3)]
    assert numbers == [3, 4, 5]
    (row,) = store.rounds("2-y", since=0, limit=10)
    assert (row["round"], row["loss"]) == (1, 9.0)
    assert row["at"] > 0
    assert store.rounds("3-z", since=0, limit=10) == []


# Tickets and revocations.


def test_a_ticket_is_remembered_by_its_hash(store):
    ticket = Invitation("h1", "issuer", 3, 1000)
    store.add_invitation(ticket)
    assert store.invitation("h1") == ticket
    assert store.invitation("h2") is None
    with pytest.raises(StoreFailed):
        store.add_invitation(ticket)


def test_a_ticket_has_so_many_uses_and_a_peers_second_time_is_free(store):
    store.add_invitation(Invitation("h1", "member", 2, 1000))
    store.add_invitation(Invitation("h2", "member", 1, 1000))
    assert [store.redeem("h1", peer) for peer in "aabbc"] == [True, True, True, True, False]
    assert store.redeem("h1", "a")
    assert store.redeem("h2", "c")
    assert not store.redeem("h3", "a")


def test_uses_are_counted_across_threads_and_restarts(tmp_path):
    store, admitted = Store(tmp_path / "state.db"), []
    store.add_invitation(Invitation("h", "member", 5, 1000))

    def redeem(number):
        if store.redeem("h", f"p{number}"):
            admitted.append(number)

    threads = [threading.Thread(target=redeem, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 5
    store.close()
    again = Store(tmp_path / "state.db")
    assert not again.redeem("h", "late")
    assert again.redeem("h", f"p{admitted[0]}")
    again.close()


def test_old_tickets_are_forgotten_with_their_uses(store):
    store.add_invitation(Invitation("old", "member", 1, 99))
    store.add_invitation(Invitation("new", "member", 1, 100))
    assert store.redeem("old", "a")
    assert store.redeem("new", "a")
    store.forget_invitations(100)
    assert store.invitation("old") is None
    assert not store.redeem("new", "b")
    store.add_invitation(Invitation("old", "member", 1, 500))
    assert store.redeem("old", "b")


def test_revocations_are_remembered_in_the_order_in_which_they_came(store):
    store.put_revocations([("b", b"first"), ("a", b"second")])
    store.put_revocations([("c", b"third")])
    assert store.revocations() == [b"first", b"second", b"third"]
    assert [store.is_revoked(peer) for peer in "abcd"] == [True, True, True, False]


def test_a_network_is_forgotten_whole_and_nothing_else(store):
    store.put({"name": "me"})
    store.add_round("1-x", 1, {"loss": 0.5})
    store.put_members([("a", {"n": 1})], [])
    store.add_invitation(Invitation("h", "member", 1, 1000))
    store.redeem("h", "a")
    store.put_revocations([("b", b"out")])
    store.forget_network()
    assert (store.members(), store.revocations(), store.invitation("h")) == ([], [], None)
    assert store.get("name") == "me"
    assert len(store.rounds("1-x", since=0, limit=10)) == 1


def test_a_full_disk_admits_nobody(store, fill):
    store.add_invitation(Invitation("h", "member", 10_000, 1000))
    fill()

    def redeem_all():
        for number in range(2000):
            store.redeem("h", f"{number:052}")

    with pytest.raises(StoreFull):
        redeem_all()


def test_everything_survives_a_restart(tmp_path):
    first = Store(tmp_path / "state.db")
    first.put({"peer": "a"})
    first.put_members([("b", {"n": 1})], [])
    first.add_round("1-x", 1, {"loss": 0.5})
    first.close()
    second = Store(tmp_path / "state.db")
    assert second.get("peer") == "a"
    assert second.members() == [{"n": 1}]
    assert len(second.rounds("1-x", since=0, limit=10)) == 1
    second.close()


def test_a_write_that_returned_is_there_for_another_process_at_once(store, tmp_path):
    store.put({"peer": "a"})
    other = sqlite3.connect(tmp_path / "state.db")
    assert other.execute("SELECT value FROM meta WHERE key = 'peer'").fetchone() == ("a",)
    other.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.put({"peer": "new", "big": "x" * 100_000}),
        lambda store: store.put_members([("c", {"big": "x" * 100_000})], []),
        lambda store: store.add_round("1-x", 2, {"big": "x" * 100_000}),
    ],
)
def test_a_full_disk_is_said_so_and_leaves_the_database_as_it_was(store, fill, write):
    store.put({"peer": "old"})
    store.add_round("1-x", 1, {})
    fill()
    with pytest.raises(StoreFull, match="no space left"):
        write(store)
    assert store.get("peer") == "old"
    assert store.members() == []
    assert [row["round"] for row in store.rounds("1-x", since=0, limit=9)] == [1]
    store._db.execute("PRAGMA max_page_count = 100000")
    write(store)


def test_writes_may_come_from_several_threads(store):
    def write(name):
        for number in range(20):
            store.put({f"{name}-{number}": "x"})

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(store.get(f"{name}-{number}") == "x" for name in "abc" for number in range(20))


async def test_calls_off_the_event_loop_give_their_result(store):
    await store.in_thread(store.put, {"a": "b"})
    assert await store.in_thread(store.get, "a") == "b"


def test_a_database_that_somebody_else_holds_fails_the_write_and_works_again(tmp_path):
    store = Store(tmp_path / "state.db")
    store._db.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match="locked") as caught:
        store.put({"a": "1"})
    assert caught.value.kind == "store.failed"
    other.execute("ROLLBACK")
    other.close()
    store.put({"a": "2"})
    assert store.get("a") == "2"
    store.close()
