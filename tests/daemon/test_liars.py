"""Networks in memory in which one peer lies, boasts, sends rubbish or is blocked."""

import dataclasses

import pytest
import trio

from daemon import trust as trust_module
from daemon.notes import NOTES, Announce
from learner.job import Gossip, Partition, Robust
from learner.messages import Mix
from overlay.transfer import FetchFailed, make_blob
from overlay.transport import DialRefused, Tcp
from overlay.wire import Want


def robust(job, **changes):
    """The job for four peers on a complete graph, one of whom may lie."""
    wanted = {
        "rounds": 12,
        "evaluate_every": 100,
        "min_peers": 4,
        "checkpoint_every": 10_000,
        **changes,
    }
    return dataclasses.replace(
        job,
        training=dataclasses.replace(job.training, **wanted),
        partition=Partition("iid", 4),
        gossip=Gossip(topology="complete"),
        robust=Robust(liars=1, rule="nna"),
    )


async def linked(*peers):
    for peer in peers:
        others = {other.id for other in peers} - {peer.id}
        await peer.until(lambda peer=peer, others=others: others <= peer.overlay.links.keys())


async def three_and_a_liar(start, job, *, prepare=None, **sections):
    """Three honest peers and a fourth, whom `prepare` makes lie or `sections` configure to."""
    honest = [await start(name) for name in "abc"]
    liar = await start("d", prepare=prepare, **sections)
    await linked(*honest, liar)
    if hasattr(liar, "once_linked"):
        liar.once_linked()
    await honest[0].session.jobs.submit(job)
    return honest, liar


def refused(peer, other):
    """What `peer` refused of `other`, by cause."""
    return peer.session.trust.to_json()["refused"].get(other.id, {})


def rows_of(peer):
    run = peer.session.jobs.board.posted.run
    return peer.store.rounds(run, since=0, limit=9999)


# Rubbish.


def spoils(change):
    """Makes a peer answer what neighbours want with a blob that `change` made of the true one."""

    def prepare(peer):
        provide = peer.session.provide

        async def another(neighbour, want):
            return await change(await provide(neighbour, want))

        peer.session.provide = another

    return prepare


async def too_long(blob):
    data = bytearray(blob.data) + bytes(4)
    return await make_blob(data, version=blob.version, layout=blob.layout, weight=blob.weight)


async def of_another_layout(blob):
    return dataclasses.replace(blob, layout="another")


async def of_another_round(blob):
    return dataclasses.replace(blob, version=blob.version + 1)


async def not_a_number(blob):
    data = bytearray(blob.data)
    data[4:8] = b"\x00\x00\xc0\x7f"
    return await make_blob(data, version=blob.version, layout=blob.layout, weight=blob.weight)


KINDS = {
    "size": too_long,
    "layout": of_another_layout,
    "wrong round": of_another_round,
    "not finite": not_a_number,
}


async def all_kinds_in_turn(blob):
    """Rounds 1, 5, 9 of the first kind, 2, 6, 10 of the second, …"""
    return await list(KINDS.values())[(blob.version - 1) % len(KINDS)](blob)


async def test_rubbish_is_refused_and_counted_and_the_others_train_on(
    peers, small_job, monkeypatch
):
    # What is refused is no drop by the rule.
    monkeypatch.setattr(trust_module, "SUSPICIOUS_ROUNDS", 2)
    async with peers() as start:
        job = robust(small_job, rounds=8)
        honest, liar = await three_and_a_liar(start, job, prepare=spoils(all_kinds_in_turn))
        for peer in honest:
            await peer.until_state("finished")
            assert peer.progress.figures["accuracy_after"] > 0.8
            assert peer.session.trust.to_json()["refused"] == {liar.id: dict.fromkeys(KINDS, 2)}
            told = peer.saw("peer.refused")
            assert {data["peer"] for data in told} == {liar.id}
            assert [(data["cause"], data["count"]) for data in told] == [(k, 1) for k in KINDS]
            assert all(data["detail"] for data in told)
            assert not peer.saw("learner.died")
            assert not [data for data in peer.saw("peer.suspicious") if data["peer"] == liar.id]
            assert peer.session.trust.blocked == ()
            for row in rows_of(peer):
                assert row["weights"].get(liar.id, 0) == 0
                assert sum(row["weights"].values()) + row["own_weight"] == pytest.approx(1)


async def test_a_round_announced_twice_is_counted_and_mixed_once(peers, small_job):
    def prepare(peer):
        def speak_twice():
            send = peer.overlay.send_note

            def twice(neighbour, body):
                send(neighbour, body)
                if isinstance(NOTES.decode(body), Announce):
                    send(neighbour, body)

            peer.overlay.send_note = twice

        peer.once_linked = speak_twice

    async with peers() as start:
        honest, liar = await three_and_a_liar(start, robust(small_job, rounds=6), prepare=prepare)
        for peer in honest:
            await peer.until_state("finished")
            assert refused(peer, liar) == {"duplicate": 6}
            assert [data["count"] for data in peer.saw("peer.refused")] == [1]
            assert all(row["missing"] == 0 for row in rows_of(peer))
            for command in peer.learner.commands:
                if isinstance(command, Mix):
                    assert sorted(command.senders) == sorted(set(command.senders))
                    assert len(command.senders) == 3


async def test_among_honest_peers_of_different_speeds_nothing_is_refused(peers, small_job):
    async with peers() as start:
        job = robust(small_job, mode="async", rounds=6)
        four = [await start(name, work_s=0.05 + place / 20) for place, name in enumerate("abcd")]
        await linked(*four)
        await four[0].session.jobs.submit(job)
        for peer in four:
            await peer.until_state("finished")
            assert peer.session.trust.to_json()["refused"] == {}


# Lies.


async def test_who_is_dropped_20_rounds_in_a_row_is_reported_once_and_not_banned(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=21)
        lie = {"attack": "SignFlipping:scale=3"}
        honest, liar = await three_and_a_liar(start, job, lie=lie)
        for peer in [*honest, liar]:
            await peer.until_state("finished")
        for peer in honest:
            assert peer.progress.figures["accuracy_after"] > 0.85
            (told,) = peer.saw("peer.suspicious")
            assert (told["peer"], told["rounds"]) == (liar.id, 20)
            assert peer.session.trust.to_json()["suspicious"] == {liar.id: 21}
            assert peer.session.trust.blocked == ()
            assert liar.id in peer.overlay.links
            rows = rows_of(peer)
            assert all((row["neighbours"], row["missing"]) == (3, 0) for row in rows)
            assert all(row["dropped"] == 1 and row["weights"][liar.id] == 0 for row in rows)
        # A liar mixes as the honest do.
        assert liar.progress.figures["accuracy_after"] > 0.8


async def test_too_few_neighbours_for_the_rule_are_said_aloud_once(peers, small_job):
    async with peers() as start:
        job = robust(small_job, min_peers=3)
        three = [await start(name) for name in "abc"]
        await linked(*three)
        await three[0].session.jobs.submit(job)
        for peer in three:
            await peer.until_state("finished")
            (told,) = peer.saw("robust.too_small")
            assert (told["neighbours"], told["liars"]) == (2, 1)
            assert "gossip.degree to 4" in told["reason"]


# Boasting.


def speaking(peer, note):
    """Tell all neighbours something."""
    for neighbour in peer.overlay.links:
        peer.overlay.send_note(neighbour, NOTES.encode(note))


async def test_a_boasting_neighbour_leads_nobody_astray(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=400)
        honest, liar = await three_and_a_liar(start, job)
        await liar.until(lambda: liar.progress.round >= 5)
        mine = liar.session.running().train_state()
        # It claims all but the last round, and offers its model as one of then.
        spoils(of_round(390))(liar)
        speaking(liar, dataclasses.replace(mine, round=390))
        await honest[0].until(lambda: honest[0].session.view.round_of(liar.id) >= 390)
        at = honest[0].progress.round
        for peer in honest:
            await peer.until(lambda peer=peer: peer.progress.round >= at + 8)
            assert not peer.saw("train.behind")
            assert not peer.saw("train.bootstrapped")
            assert peer.progress.round < 300


def of_round(number):
    async def change(blob):
        return dataclasses.replace(blob, version=number)

    return change


async def test_a_round_that_no_job_has_costs_the_link_and_nothing_else(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=60, min_peers=3)
        honest, liar = await three_and_a_liar(start, job)
        await liar.until(lambda: liar.progress.round >= 5)
        mine = liar.session.running().train_state()
        speaking(liar, dataclasses.replace(mine, round=10**6))
        for peer in honest:
            await peer.until(lambda peer=peer: peer.saw("peer.misbehaved"))
            assert "round 1000000 of 60" in peer.saw("peer.misbehaved")[0]["reason"]
        at = honest[0].progress.round
        for peer in honest:
            await peer.until(lambda peer=peer: peer.progress.round >= at + 5)
            assert not peer.saw("train.behind")


async def test_a_newcomer_takes_the_round_that_more_than_the_liars_tell(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=3000, min_peers=4)
        honest, liar = await three_and_a_liar(start, job)
        await liar.until(lambda: liar.progress.round >= 4)
        spoils(of_round(2990))(liar)
        speaking(liar, dataclasses.replace(liar.session.running().train_state(), round=2990))
        newcomer = await start("e", data={"part": "1/4"})
        await newcomer.until(lambda: newcomer.saw("train.bootstrapped"))
        (told,) = newcomer.saw("train.bootstrapped")
        assert liar.id in told["neighbours"]
        assert 4 <= told["round"] <= honest[0].progress.round + 2 < 2000
        await newcomer.until(lambda: newcomer.progress.round >= told["round"] + 2)


# Blocks.


def senders_since(peer, number):
    """Who was mixed in after round `number`."""
    mixes = [c for c in peer.learner.commands if isinstance(c, Mix) and c.round > number]
    return mixes, {sender for mix in mixes for sender in mix.senders}


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_blocked_peer_gives_and_gets_nothing_and_all_train_on(peers, small_job, mode):
    async with peers() as start:
        job = robust(small_job, rounds=100_000, min_peers=3, evaluate_every=50, mode=mode)
        honest, other = await three_and_a_liar(start, job)
        one = honest[0]
        await one.until(lambda: one.progress.round >= 5)
        await one.session.block(other.id, True)
        assert one.saw("peer.blocked") == [{"peer": other.id}]
        at, theirs = one.progress.round + 1, other.progress.round + 2
        run = one.session.jobs.board.posted.run
        for stream in ("round", "model"):
            with pytest.raises(FetchFailed, match="gives you nothing"):
                await one.session.provide(other.id, Want(1, run, stream, -1))
        for peer in (*honest, other):
            await peer.until(lambda peer=peer: peer.progress.round >= max(at, theirs) + 5)
        mixes, senders = senders_since(one, at)
        assert len(mixes) >= 4
        assert senders == {peer.id for peer in honest[1:]}
        if mode == "sync":
            mixes, senders = senders_since(other, theirs)
            assert len(mixes) >= 4
            assert senders == {peer.id for peer in honest[1:]}
        else:  # what came before the block ages there
            held = other.session.running()._exchange._inbox.newest(one.id)
            assert held is None or held.version <= at
        assert senders_since(honest[1], at)[1] == {one.id, other.id, *(p.id for p in honest[2:])}
        # Its links stay, and it is alive.
        assert other.id in one.overlay.links
        assert one.id in other.overlay.links
        for peer in (*honest, other):
            assert not any(
                peer.saw(kind) for kind in ("link.down", "member.suspect", "member.dead")
            )
        if mode == "sync":  # nobody waits for who will not come
            assert sum(row["round_s"] for row in rows_of(other)[-3:]) < 3
        await one.session.block(other.id, False)
        assert one.saw("peer.unblocked") == [{"peer": other.id}]
        again = one.progress.round + 3
        await one.until(lambda: one.progress.round >= again + 3)
        assert other.id in senders_since(one, again)[1]
        await other.until(lambda: one.id in senders_since(other, again)[1])


async def test_a_block_survives_a_restart_of_the_daemon(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=100_000, min_peers=2, evaluate_every=50)
        two = [await start("b"), await start("c")]
        one = await start("a")
        await linked(one, *two)
        await one.session.jobs.submit(job)
        await one.until(lambda: one.progress.round >= 3)
        await one.session.block(two[0].id, True)
        one.vanish()
        await two[0].until(lambda: one.id not in two[0].overlay.links)
        one = await start("a", peer_id=one.id)
        assert one.session.trust.blocked == (two[0].id,)
        await linked(one, *two)
        assert one.session.view.state(two[0].id) is None


async def test_a_blocked_peers_job_is_not_taken(peers, small_job):
    async with peers() as start:
        one, other = await start("a"), await start("b")
        await linked(one, other)
        await one.session.block(other.id, True)
        await other.session.jobs.submit(small_job)
        await other.until_state("finished")
        await trio.sleep(30)
        assert one.session.jobs.board.posted is None


async def test_a_block_does_not_stop_training_where_all_peers_are_wanted(peers, small_job):
    async with peers() as start:
        job = robust(small_job, rounds=100_000, min_peers=2)
        job = dataclasses.replace(job, robust=Robust())
        one, other = await start("a"), await start("b")
        await linked(one, other)
        await one.session.jobs.submit(job)
        await one.until(lambda: one.progress.round >= 2)
        await one.session.block(other.id, True)
        await trio.sleep(1)
        assert one.progress.state == "training", one.progress.reason


# Where a liar may go.


@pytest.mark.parametrize("address", ["ws://192.0.2.7:1", "ws://0.0.0.0:1", "ws://example.org:1"])
async def test_a_liar_dials_nobody_beyond_this_machine(monkeypatch, address):
    async def dialled(host, port):
        pytest.fail(f"{host} was dialled")

    monkeypatch.setattr(trio, "open_tcp_stream", dialled)
    with pytest.raises(OSError, match="is not loopback, where this peer stays"):
        await Tcp(loopback_only=True).connect(address)


async def test_a_liar_dials_this_machine_as_others_do():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    line = await Tcp(loopback_only=True).connect(address)
    async with listeners[0], line.stream:
        pass
    with pytest.raises(DialRefused):
        await Tcp(loopback_only=True).connect(address)
