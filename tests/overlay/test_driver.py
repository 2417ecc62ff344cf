"""Whole peers on a network in memory: they converge, move bytes, and survive what others do."""

import itertools
import random
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from overlay import wire
from overlay.admission import AdmissionSettings
from overlay.driver import JoinFailed, open_overlay
from overlay.effects import Join
from overlay.identity import is_id
from overlay.limits import DEFAULT_ALLOWANCES
from overlay.link import OUTBOX_BYTES, OUTBOX_MESSAGES
from overlay.profile import PROFILES
from overlay.records import State
from overlay.transfer import FetchFailed
from overlay.transport import HANDSHAKE_S, ConnectionLost, HandshakeFailed, Tcp, open_client

SIZES = [0, 1, 300_000]


def fits(offer):
    """Any offer will do."""


@pytest.fixture
def town(run, member, memory):
    """town(story): runs `async def story(town)` in an empty town under the jumping clock."""

    def play(story, *, jump=True, limit_s=300.0):
        async def main():
            async with memory.open_town(member) as place:
                await story(place)

        run(main, jump=jump, limit_s=limit_s)

    return play


@asynccontextmanager
async def caller(place, target, path=wire.CONTROL_PATH):
    """A websocket to a peer, on which the test says what it likes."""
    stream = await place.streams.connect("test:1", target.overlay.address)
    async with open_client(
        stream, host="x", path=path, max_message_bytes=wire.MAX_DATA_BYTES
    ) as socket:
        yield socket


def hello(place, record, **changes):
    fields = {
        "version": wire.PROTOCOL_VERSION, "network": place.network_id, "record": record,
        "instance": bytes(16), "link_id": b"L" * 16, "digest": 0, "candidacy": None,
    }  # fmt: skip
    return wire.Hello(**{**fields, **changes})


async def say(socket, message):
    await socket.send(wire.CONTROL.encode(message))


async def hear(socket):
    return wire.CONTROL.decode(await socket.receive())


async def ends(socket):
    """Wait until the other side ends the connection."""
    try:
        while True:
            await socket.receive()
    except ConnectionLost:
        return


# Coming together.


@pytest.mark.parametrize("count", [2, 5, 10])
def test_peers_that_join_through_one_converge(town, count):
    async def story(place):
        peers = await place.grow(count)
        assert all(len(peer.live) == count for peer in peers)

    town(story)


def test_two_pairs_that_meet_become_one_overlay(town, memory):
    async def story(place):
        await place.start(0)
        await place.start(1, seed=0)
        await place.start(2)
        await place.start(3, seed=2)
        await place.peers[3].overlay.join(place.peers[1].overlay.address)
        await memory.until(place.settled)

    town(story)


def test_a_join_gives_the_id_of_who_answered(town):
    async def story(place):
        one, two = await place.start(0), await place.start(1)
        assert await two.overlay.join(one.overlay.address) == one.id

    town(story)


def test_simultaneous_dials_end_in_exactly_one_link(town, memory):
    async def story(place):
        for _ in range(5):
            one, two = await place.start(0), await place.start(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_to_join, one, two)
                nursery.start_soon(try_to_join, two, one)
            await memory.until(place.settled)
            await trio.sleep(5)
            assert place.settled()
            (here,), (there,) = one.overlay.links.values(), two.overlay.links.values()
            assert here.link_id == there.link_id
            assert here.dialled is not there.dialled
            assert not one.heard.kinds("member.suspect", "member.dead")
            assert {reply.kind for reply in replies} <= {"declined"}
            place.kill(0)
            place.kill(1)
            await trio.testing.wait_all_tasks_blocked()

    replies = []

    async def try_to_join(one, two):
        with trio.move_on_after(5):
            try:
                await one.overlay.join(two.overlay.address)
            except JoinFailed as error:
                replies.append(error)

    town(story)


def test_a_peer_without_a_network_adopts_that_of_its_seed(town, memory):
    async def story(place):
        await place.start(0)
        newcomer = await place.start(1, seed=0, network_id="")
        await memory.until(place.settled)
        assert newcomer.heard.adopted == [place.network_id]
        assert newcomer.overlay.machine.network_id == place.network_id

    town(story)


def test_who_knows_nobody_yet_may_change_networks(town, memory, id_of):
    async def story(place):
        await place.start(0)
        founder = await place.start(1, seed=0, network_id=id_of("other"), may_adopt=True)
        await memory.until(place.settled)
        assert founder.heard.adopted == [place.network_id]

    town(story)


def test_peers_that_all_join_each_other_found_one_network_and_are_told_its_id(town, memory):
    async def story(place):
        peers = [await place.start(number, network_id="") for number in range(5)]
        addresses = tuple(peer.overlay.address for peer in peers)
        for peer in peers:
            peer.overlay.step(Join(addresses))
            await trio.sleep(0.3)
        await memory.until(place.settled)
        (network_id,) = {peer.overlay.machine.network_id for peer in peers}
        assert is_id(network_id)
        assert [peer.heard.adopted for peer in peers] == [[network_id]] * 5
        assert not any(peer.heard.kinds("member.suspect", "member.dead") for peer in peers)

    town(story)


def test_peers_that_join_each_other_in_a_chain_found_one_network(town, memory):
    async def story(place):
        peers = [await place.start(number, network_id="") for number in range(8)]
        for peer, seed in zip(peers, [*peers[1:], peers[-2]], strict=True):
            peer.overlay.step(Join((seed.overlay.address,)))
        await memory.until(place.settled, limit_s=60.0)
        assert len({peer.overlay.machine.network_id for peer in peers}) == 1
        assert all(len(peer.heard.adopted) == 1 for peer in peers)

    town(story)


def test_nobody_founds_before_every_address_was_reached(town, memory):
    async def story(place):
        peers = [await place.start(number, network_id="") for number in range(3)]
        addresses = tuple(f"ws://peer{number}:1" for number in range(4))
        for peer in peers:
            peer.overlay.step(Join(addresses))
        await trio.sleep(15)
        assert [peer.overlay.machine.network_id for peer in peers] == [""] * 3
        late = await place.start(3, network_id="")
        late.overlay.step(Join(addresses))
        await memory.until(place.settled)
        assert len({tuple(peer.heard.adopted) for peer in [*peers, late]}) == 1

    town(story)


def test_a_seed_with_all_its_guests_is_busy_and_lets_newcomers_in_later(
    town, member, memory, monkeypatch
):
    async def story(place):
        seed, *_ = await place.grow(12)
        monkeypatch.setattr("overlay.machine.MAX_GUESTS", 0)
        async with caller(place, seed) as socket:
            await say(socket, hello(place, member(30), network=""))
            assert (await hear(socket)).kind == "busy"
            await ends(socket)
        assert member(30).peer_id not in seed.live
        newcomers = [await place.start(number, network_id="") for number in (20, 21, 22)]
        for newcomer in newcomers:
            with pytest.raises(JoinFailed, match="as many newcomers as it takes") as failure:
                await newcomer.overlay.join(seed.overlay.address)
            assert failure.value.kind == "declined"
        assert len(seed.live) == 12
        assert all(newcomer.heard.adopted == [] for newcomer in newcomers)
        monkeypatch.setattr("overlay.machine.MAX_GUESTS", 1)
        await memory.until(place.settled)
        assert all(newcomer.heard.adopted == [place.network_id] for newcomer in newcomers)
        assert len(seed.live) == 15

    town(story)


# Refusals.


def refused_join(town, match, kind, **changes):
    async def story(place):
        one = await place.start(0)
        two = await place.start(1, **changes)
        with pytest.raises(JoinFailed, match=match) as failure:
            await two.overlay.join(one.overlay.address)
        assert failure.value.kind == kind
        assert one.live == {one.id}
        assert not one.overlay.links

    town(story)


def test_a_peer_of_another_network_is_refused_with_the_reason(town, id_of):
    refused_join(town, "belongs to network", "declined", network_id=id_of("other"))


def test_the_own_address_is_refused_with_the_reason(town):
    async def story(place):
        one = await place.start(0)
        with pytest.raises(JoinFailed, match="your own address") as failure:
            await one.overlay.join(one.overlay.address)
        assert failure.value.kind == "declined"

    town(story)


def test_an_address_where_nobody_listens_is_refused(town):
    async def story(place):
        one = await place.start(0)
        with pytest.raises(JoinFailed, match="refused by ws://peer9:1") as failure:
            await one.overlay.join("ws://peer9:1")
        assert failure.value.kind == "refused"
        with pytest.raises(ValueError, match="write wss://host:port"):
            await one.overlay.join("peer9")

    town(story)


def test_an_address_that_does_not_answer_is_given_up(town):
    async def story(place):
        one = await place.start(0)
        place.streams.cut("peer9:1")
        with pytest.raises(JoinFailed, match="no answer from ws://peer9:1") as failure:
            await one.overlay.join("ws://peer9:1")
        assert failure.value.kind == "unreachable"

    town(story)


def test_a_seed_that_is_still_homeless_refuses_for_now(town):
    async def story(place):
        one = await place.start(0, network_id="")
        two = await place.start(1)
        with pytest.raises(JoinFailed, match="no network yet"):
            await two.overlay.join(one.overlay.address)

    town(story)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"version": 0}, "version"),
        ({"version": 99}, "version"),
        ({"network": "a" * 52}, "network"),
    ],
)
def test_a_hello_that_does_not_fit_is_answered_with_the_kind_of_refusal(
    town, member, changes, kind
):
    async def story(place):
        one = await place.start(0)
        async with caller(place, one) as socket:
            await say(socket, hello(place, member(7), **changes))
            assert (await hear(socket)).kind == kind
            await ends(socket)
        assert one.live == {one.id}

    town(story)


def test_a_hello_under_my_own_name_is_refused(town, member):
    async def story(place):
        one = await place.start(0)
        async with caller(place, one) as socket:
            await say(socket, hello(place, member(0, incarnation=99)))
            assert (await hear(socket)).kind == "self"

    town(story)


@pytest.fixture
def impostor(member):
    """impostor(place, answer): a listener at ws://impostor:1 that answers every hello with that."""

    async def listen(place, answer, nursery):
        async def handler(stream):
            try:
                async with wire_server(stream) as socket:
                    await socket.receive()
                    await socket.send(answer)
                    await ends(socket)
            except (HandshakeFailed, ConnectionLost):
                pass

        await nursery.start(place.streams.listen, "impostor:1", handler)

    return listen


def wire_server(stream):
    from overlay.transport import open_server

    return open_server(
        stream, paths=(wire.CONTROL_PATH, wire.DATA_PATH), max_message_bytes=wire.MAX_DATA_BYTES
    )


def test_an_answer_under_my_own_name_is_no_link(town, member, impostor):
    async def story(place):
        one = await place.start(0)
        mirror = wire.Welcome(place.network_id, member(0, incarnation=9), bytes(16), 0)
        async with trio.open_nursery() as nursery:
            await impostor(place, wire.CONTROL.encode(mirror), nursery)
            with pytest.raises(JoinFailed):
                await one.overlay.join("ws://impostor:1")
            assert not one.overlay.links
            assert not one.overlay.machine.links
            nursery.cancel_scope.cancel()

    town(story)


@pytest.mark.parametrize(
    "answer", [b"", b"\xc1\xc1", wire.CONTROL.encode(wire.Heartbeat(1)), bytes(60_000)]
)
def test_a_seed_that_answers_nonsense_fails_the_join(town, impostor, answer):
    async def story(place):
        one = await place.start(0)
        async with trio.open_nursery() as nursery:
            await impostor(place, answer, nursery)
            with pytest.raises(JoinFailed) as failure:
                await one.overlay.join("ws://impostor:1")
            assert failure.value.kind == "unreachable"
            nursery.cancel_scope.cancel()

    town(story)


def test_an_answer_of_another_network_fails_the_join(town, member, impostor, id_of):
    async def story(place):
        one = await place.start(0)
        answer = wire.Welcome(id_of("other"), member(7), bytes(16), 0)
        async with trio.open_nursery() as nursery:
            await impostor(place, wire.CONTROL.encode(answer), nursery)
            with pytest.raises(JoinFailed, match="belongs to network"):
                await one.overlay.join("ws://impostor:1")
            nursery.cancel_scope.cancel()
        assert one.overlay.machine.network_id == place.network_id

    town(story)


# Lines that prove who is at the other end.


@asynccontextmanager
async def proving(place, *, caller_is, count=2):
    """So many peers whose lines prove their ids; the test's own lines prove `caller_is`."""
    place.streams.proven = {"test:1": caller_is}
    for number in range(count):
        place.streams.proven[f"peer{number}:1"] = place.id_of(number)
    yield await place.grow(count)


def test_peers_whose_lines_prove_their_ids_are_linked(town, member):
    async def story(place):
        async with proving(place, caller_is="", count=3) as peers:
            assert place.settled()
            assert all(len(peer.overlay.links) == 2 for peer in peers)

    town(story)


def test_who_proves_nothing_reaches_neither_control_nor_data(town):
    async def story(place):
        async with proving(place, caller_is="") as (one, _):
            for path in (wire.CONTROL_PATH, wire.DATA_PATH, wire.ENROL_PATH, "/"):
                with pytest.raises(HandshakeFailed, match="404"):
                    async with caller(place, one, path):
                        pass
            assert place.settled()

    town(story)


def test_who_greets_in_anothers_name_is_shown_the_door(town, member):
    async def story(place):
        async with proving(place, caller_is=member(7).peer_id) as (one, two):
            before = one.overlay.machine.table.get(two.id)
            for stolen in (member(8), member(1, incarnation=99)):
                async with caller(place, one) as socket:
                    await say(socket, hello(place, stolen))
                    await ends(socket)
            assert one.live == {one.id, two.id}
            assert one.overlay.machine.table.get(two.id) == before
            assert place.settled()
            # Under its own name it is welcome.
            async with caller(place, one) as socket:
                await say(socket, hello(place, member(7)))
                assert isinstance(await hear(socket), wire.Welcome)

    town(story)


def test_a_data_link_is_for_who_has_the_control_link(town, member):
    async def story(place):
        async with (
            proving(place, caller_is=member(7).peer_id) as (one, _),
            caller(place, one) as control,
        ):
            await say(control, hello(place, member(7, addresses=())))
            assert isinstance(await hear(control), wire.Welcome)
            place.streams.proven["test:1"] = member(8).peer_id
            async with caller(place, one, wire.DATA_PATH) as data:
                await data.send(wire.DATA.encode(wire.DataHello(b"L" * 16)))
                with pytest.raises(ConnectionLost):
                    await data.receive()
            place.streams.proven["test:1"] = member(7).peer_id
            async with caller(place, one, wire.DATA_PATH) as data:
                await data.send(wire.DATA.encode(wire.DataHello(b"L" * 16)))
                assert isinstance(wire.DATA.decode(await data.receive()), wire.DataWelcome)

    town(story)


def test_who_answers_in_anothers_name_is_no_neighbour(town, member, impostor):
    async def story(place):
        async with proving(place, caller_is="") as (one, two), trio.open_nursery() as nursery:
            place.streams.proven["impostor:1"] = member(7).peer_id
            answer = wire.Welcome(place.network_id, member(8), bytes(16), 0)
            await impostor(place, wire.CONTROL.encode(answer), nursery)
            with pytest.raises(JoinFailed, match="speaks in the name of") as failure:
                await one.overlay.join("ws://impostor:1")
            assert failure.value.kind == "unreachable"
            assert one.live == {one.id, two.id}
            nursery.cancel_scope.cancel()

    town(story)


# Notes and blobs.


def test_notes_arrive_in_order_and_only_at_their_addressee(town, memory):
    async def story(place):
        one, two, three = await place.grow(3)
        bodies = [bytes([n]) * n for n in range(100)]
        for body in bodies:
            one.overlay.send_note(two.id, body)
        one.overlay.send_note("nobody", b"lost")
        await memory.until(lambda: len(two.heard.notes) == 100)
        assert two.heard.notes == [(one.id, body) for body in bodies]
        assert three.heard.notes == []

    town(story)


async def fetch_into(received, peer, other, name):
    _, data = await peer.overlay.fetch(other.id, "job", name, 1, check=fits)
    received[name] = data


def test_blobs_are_fetched_at_once_in_both_directions_whoever_dialled(town):
    async def story(place):
        one, two = await place.grow(2)
        content = random.Random(1)
        one.heard.blobs = {f"one{size}": content.randbytes(size) for size in SIZES}
        two.heard.blobs = {f"two{size}": content.randbytes(size) for size in SIZES}
        received = {}
        async with trio.open_nursery() as nursery:
            for name in two.heard.blobs:
                nursery.start_soon(fetch_into, received, one, two, name)
            for name in one.heard.blobs:
                nursery.start_soon(fetch_into, received, two, one, name)
        assert received == {**one.heard.blobs, **two.heard.blobs}
        traffic = one.overlay.traffic()
        assert traffic.data_sent > 300_000
        assert traffic.data_received > 300_000
        assert traffic.control_sent < 10_000

    town(story)


def test_a_large_blob_crosses_while_heartbeats_go_on(town):
    async def story(place):
        one, two = await place.grow(2)
        two.heard.blobs["model"] = random.Random(1).randbytes(1_500_000)
        received = {}
        await fetch_into(received, one, two, "model")
        assert received == two.heard.blobs
        assert one.overlay.machine.links == {two.id}

    town(story, jump=False, limit_s=20)


def test_a_fetch_from_who_is_no_neighbour_or_has_nothing_fails(town, id_of):
    async def story(place):
        one, two = await place.grow(2)
        with pytest.raises(FetchFailed, match="no link"):
            await one.overlay.fetch(id_of(9), "job", "model", 1, check=fits)
        with pytest.raises(FetchFailed, match="no such stream"):
            await one.overlay.fetch(two.id, "job", "model", 1, check=fits)

    town(story)


def test_trackers_keep_no_data_link(town, memory):
    async def story(place):
        one, two = await place.start(0, learner=False), await place.start(1, seed=0)
        await trio.sleep(5)
        assert one.overlay.links.keys() == {two.id}
        assert one.overlay.links[two.id].data is None

    town(story)


# Going.


def test_a_leaver_is_heard_as_left(town, memory):
    async def story(place):
        peers = await place.grow(5)
        leaver, *others = peers
        began = trio.current_time()
        await leaver.overlay.leave()
        place.kill(0)
        assert trio.current_time() - began <= PROFILES["local"].goodbye_s
        await memory.until(place.settled)
        await trio.sleep(10)
        for peer in others:
            assert peer.overlay.machine.table.state(leaver.id) is State.LEFT
            assert peer.heard.kinds("member.left")
            assert not peer.heard.kinds("member.dead", "member.suspect")

    town(story)


def test_a_killed_peer_is_known_as_dead_within_a_second(town, memory):
    async def story(place):
        peers = await place.grow(8)
        place.kill(3)
        began = trio.current_time()
        await memory.until(lambda: all(peers[3].id not in p.live for p in peers if p != peers[3]))
        assert trio.current_time() - began <= 1.0
        await memory.until(place.settled)

    town(story)


def test_a_restarted_peer_is_linked_again(town, memory):
    async def story(place):
        await place.grow(4)
        place.kill(2)
        await memory.until(place.settled)
        await place.start(2, seed=0, incarnation=5)
        await memory.until(place.settled)

    town(story)


def test_a_peer_that_takes_no_more_bytes_is_let_go_in_bounded_time(town, memory):
    async def story(place):
        _, two, _ = await place.grow(3)
        victim = next(link for link in two.overlay.links.values() if link.dialled)
        place.streams.stalled += ["peer0:1", "peer1:1", "peer2:1"]
        two.overlay.send_note(victim.peer, b"stuck")
        await trio.testing.wait_all_tasks_blocked()
        victim.close("test")
        with trio.fail_after(3):
            await victim.ended.wait()

    town(story)


def test_a_neighbour_that_does_not_keep_up_is_cut_off(town, memory):
    async def story(place):
        one, two = await place.grow(2)
        (link,) = one.overlay.links.values()
        place.streams.stalled += ["peer0:1", "peer1:1"]
        for _ in range(OUTBOX_MESSAGES + 10):
            one.overlay.send_note(two.id, b"x")
        with trio.fail_after(1):
            await link.ended.wait()

    town(story)


# Misbehaviour.


def broken_by(place, peer):
    return [data["peer"] for _, data in place.peers[peer].heard.kinds("peer.misbehaved")]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"", b"\xc1", bytes(1000), b"\x91\xa2hb", b"\x92\xa2hb\xff",
        wire.CONTROL.encode(wire.Refuse("again", "and again")),
        wire.DATA.encode(wire.Accept(1)),
        bytes(wire.MAX_CONTROL_BYTES + 1),
    ],
)  # fmt: skip
def test_garbage_on_control_costs_the_link_and_the_others_go_on(town, member, memory, nonsense):
    async def story(place):
        one, two, three = await place.grow(3)
        async with caller(place, one) as socket:
            await say(socket, hello(place, member(7, addresses=())))
            assert isinstance(await hear(socket), wire.Welcome)
            await socket.send(nonsense)
            await ends(socket)
        assert broken_by(place, 0) == [member(7).peer_id]
        assert member(7).peer_id not in one.overlay.links
        assert {two.id, three.id} <= one.overlay.links.keys()
        one.overlay.send_note(two.id, b"still here")
        await memory.until(lambda: two.heard.notes == [(one.id, b"still here")])

    town(story)


@asynccontextmanager
async def stranger(place, member, target):
    """Control and data link of member 7, played by the test."""
    async with caller(place, target) as control:
        await say(control, hello(place, member(7, addresses=())))
        assert isinstance(await hear(control), wire.Welcome)
        async with caller(place, target, wire.DATA_PATH) as data:
            await data.send(wire.DATA.encode(wire.DataHello(b"L" * 16)))
            assert isinstance(wire.DATA.decode(await data.receive()), wire.DataWelcome)
            yield control, data


@pytest.mark.parametrize(
    "nonsense", [b"", b"\xc1", bytes(1000), wire.CONTROL.encode(wire.Note(b""))]
)
def test_garbage_on_data_costs_the_whole_link(town, member, nonsense):
    async def story(place):
        one, two = await place.grow(2)
        async with stranger(place, member, one) as (control, data):
            await data.send(nonsense)
            await ends(control)
            await ends(data)
        assert broken_by(place, 0) == [member(7).peer_id]
        assert one.overlay.links.keys() == {two.id}

    town(story)


def test_garbage_on_control_ends_the_data_link_too(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        async with stranger(place, member, one) as (control, data):
            await control.send(b"\xc1")
            with trio.fail_after(5):
                await ends(data)
        assert one.overlay.traffic().data_received > 0

    town(story)


def test_a_chunk_that_was_not_asked_for_costs_the_link_and_only_fails_the_fetch(town, member):
    async def story(place):
        one, two = await place.grow(2)
        async with (
            stranger(place, member, one) as (control, data),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(fetch_in_vain, one, member(7).peer_id)
            want = wire.DATA.decode(await data.receive())
            offer = wire.Offer(want.request, 1, "layout", 10, 1, bytes(16))
            await data.send(wire.DATA.encode(offer))
            await data.receive()
            await data.send(wire.DATA.encode(wire.Chunk(want.request, 5, 0, b"12345")))
            await ends(control)
        assert broken_by(place, 0) == [member(7).peer_id]
        assert one.overlay.links.keys() == {two.id}

    async def fetch_in_vain(peer, other):
        with pytest.raises(FetchFailed, match="broke the protocol"):
            await peer.overlay.fetch(other, "job", "model", 1, check=fits)

    town(story)


def test_a_text_message_ends_the_link(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        async with caller(place, one) as socket:
            await say(socket, hello(place, member(7, addresses=())))
            await hear(socket)
            await socket._connection.send_message("text")
            await ends(socket)

    town(story)


@pytest.mark.parametrize("link_id", [b"x" * 16, None])
def test_a_data_link_without_its_control_link_is_refused(town, link_id):
    async def story(place):
        one, two = await place.grow(2)
        (link,) = two.overlay.links.values()
        guess = link_id or link.link_id
        dialler = two if link.dialled else one  # only the dialled side may be called
        async with caller(place, dialler, wire.DATA_PATH) as socket:
            await socket.send(wire.DATA.encode(wire.DataHello(guess)))
            await ends(socket)
        assert place.settled()

    town(story)


@pytest.mark.parametrize(
    ("path", "first"),
    [
        (wire.CONTROL_PATH, b"\xc1"),
        (wire.CONTROL_PATH, wire.CONTROL.encode(wire.Heartbeat(0))),
        (wire.CONTROL_PATH, wire.CONTROL.encode(wire.SyncRequest((0,) * 64))),
        (wire.CONTROL_PATH, bytes(wire.MAX_CONTROL_BYTES + 1)),
        (wire.DATA_PATH, b""),
        (wire.DATA_PATH, wire.DATA.encode(wire.Want(1, "", "", 1))),
    ],
)
def test_who_does_not_greet_is_shown_the_door(town, path, first):
    async def story(place):
        one = await place.start(0)
        async with caller(place, one, path) as socket:
            await socket.send(first)
            await ends(socket)
        assert len(one.overlay._door._admission) == 0

    town(story)


UPGRADE = (
    b"GET /control HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: gossipd.1\r\n\r\n"
)


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        random.Random(5).randbytes(4096),
        UPGRADE[:50],
        UPGRADE,  # and then nothing
        UPGRADE.replace(b"/control", b"/other"),
        UPGRADE.replace(b"gossipd.1", b"gossipd.0"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        UPGRADE + b"\x82\xff" + (10**9).to_bytes(8) + b"mask" + bytes(100),  # a frame of 1 GB
        UPGRADE + b"\x82\x81maskx",
        UPGRADE + b"\x81\x81mask\x00",
        UPGRADE + b"\xff\xff\xff\xff",
        UPGRADE + b"\x89\x80mask" * 50,  # nothing but pings
    ],
)
@pytest.mark.parametrize("half_closes", [True, False])
def test_whatever_comes_to_the_port_is_closed_in_bounded_time_and_the_overlay_lives(
    town, memory, opening, half_closes
):
    async def story(place):
        one, _ = await place.grow(2)
        began = trio.current_time()
        stream = await place.streams.connect("test:1", one.overlay.address)
        await stream.send_all(opening)
        if half_closes:
            await stream._inner.send_eof()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() - began <= HANDSHAKE_S + 1
        await memory.until(lambda: len(one.overlay._door._admission) == 0)
        await place.start(2, seed=0)
        await memory.until(place.settled)

    town(story)


@pytest.fixture
def few_places(monkeypatch):
    monkeypatch.setattr("overlay.accepting.AdmissionSettings", lambda: AdmissionSettings(total=3))


def test_the_oldest_unnamed_connection_makes_room_for_a_newcomer(town, few_places):
    async def story(place):
        one = await place.start(0)
        streams = [await place.streams.connect("test:1", one.overlay.address) for _ in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        for oldest in streams[:2]:
            assert await oldest.receive_some() == b""
        assert len(one.overlay._door._admission) == 3
        await trio.sleep(HANDSHAKE_S + 1)
        assert len(one.overlay._door._admission) == 0

    town(story)


def test_connections_that_say_nothing_keep_nobody_out(town, few_places, memory):
    async def keep_dialling(place, target):
        while True:
            stream = await place.streams.connect("loris:1", target.overlay.address)
            await stream.send_all(UPGRADE[:20])
            await trio.sleep(0.05)

    async def story(place):
        one = await place.start(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_dialling, place, one)
            await trio.sleep(2 * HANDSHAKE_S)
            for number in (1, 2, 3):
                await place.start(number, seed=0)
            await memory.until(place.settled)
            assert len(one.overlay._door._admission) == 3
            nursery.cancel_scope.cancel()

    town(story)


def test_a_neighbour_that_breaks_every_link_does_not_keep_us_busy(town, member, memory):
    async def story(place):
        one = await place.start(0)
        welcome = wire.Welcome(place.network_id, member(7, addresses=("ws://bad:1",)), bytes(16), 0)

        async def misbehave(stream):
            try:
                async with wire_server(stream) as socket:
                    await socket.receive()
                    await say(socket, welcome)
                    await socket.send(b"\xc1")
                    await ends(socket)
            except (HandshakeFailed, ConnectionLost):
                pass

        async with trio.open_nursery() as nursery:
            await nursery.start(place.streams.listen, "bad:1", misbehave)
            await one.overlay.join("ws://bad:1")
            before = place.streams.dials
            await trio.sleep(10)
            assert place.streams.dials - before < 100
            nursery.cancel_scope.cancel()

    town(story)


# More than is allowed.


async def flood(socket, codec, messages):
    """Say all that, and take in what comes until the other side ends the connection; why it did."""
    try:
        for message in messages:
            await socket.send(codec.encode(message))
        while True:
            await socket.receive()
    except ConnectionLost as error:
        return str(error)


FLOODS = [
    wire.Heartbeat(1),
    wire.News((), (), ()),
    wire.SyncRequest((0,) * 64),
    wire.SyncPage((), ()),
    wire.Note(b"again"),
]


@pytest.mark.parametrize("message", FLOODS, ids=lambda message: type(message).__name__)
def test_who_floods_is_cut_and_told_why_while_another_link_lives_on(town, member, memory, message):
    kind = type(message).__name__

    async def story(place):
        one, two = await place.grow(2)
        (link,) = one.overlay.links.values()
        async with caller(place, one) as socket:
            await say(socket, hello(place, member(7, addresses=())))
            assert isinstance(await hear(socket), wire.Welcome)
            with trio.fail_after(1):
                said = [message] * (int(DEFAULT_ALLOWANCES[kind].burst) + 10)
                reason = await flood(socket, wire.CONTROL, said)
        assert reason == f"more than {DEFAULT_ALLOWANCES[kind].rate:.0f} {kind} a second"
        misbehaved = one.heard.kinds("peer.misbehaved")
        assert misbehaved == [
            ("peer.misbehaved", {"peer": member(7).peer_id, "reason": reason}),
        ]
        assert list(one.overlay.links.values()) == [link]
        two.overlay.send_note(one.id, b"still here")
        await memory.until(lambda: (two.id, b"still here") in one.heard.notes)

    town(story)


async def be_cut(place, record, target):
    """Greet and flood; the refusal if that was the answer to the greeting."""
    async with caller(place, target) as socket:
        await say(socket, hello(place, record))
        if isinstance(answer := await hear(socket), wire.Refuse):
            return answer
        await socket.send(b"\xc1")
        await ends(socket)
    return None


def test_who_was_cut_is_refused_for_a_while_and_twice_as_long_the_next_time(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        bad = member(7, addresses=())
        assert await be_cut(place, bad, one) is None
        for wait_s in (1, 2, 4):
            refused = await be_cut(place, bad, one)
            assert (refused.kind, refused.reason) == (
                "busy", f"you broke a limit of this peer and are refused for {wait_s} s",
            )  # fmt: skip
            assert await be_cut(place, member(8 + wait_s, addresses=()), one) is None
            await trio.sleep(wait_s)
            assert await be_cut(place, bad, one) is None

    town(story)


def test_a_new_link_does_not_bring_a_new_allowance(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        most = [wire.Heartbeat(1)] * int(DEFAULT_ALLOWANCES["Heartbeat"].burst * 0.7)
        for link in range(2):
            async with caller(place, one) as socket:
                await say(socket, hello(place, member(7, addresses=())))
                await hear(socket)
                with trio.move_on_after(0.1):
                    await flood(socket, wire.CONTROL, most)
            assert broken_by(place, 0) == [member(7).peer_id] * link

    town(story)


def test_who_was_cut_is_not_dialled_before_its_time_is_over(town, member, memory):
    async def story(place):
        one, two = await place.grow(2)
        (link,) = one.overlay.links.values()
        before = place.streams.dials
        one.overlay._live._condemn(link, "said too much")
        await trio.sleep(0.9)
        assert not one.overlay.links
        assert not two.overlay.links
        assert place.streams.dials - before <= 4  # those of the other side, in vain
        assert not one.heard.kinds("member.suspect", "member.dead")
        with pytest.raises(JoinFailed, match="is refused for 1 s"):
            await one.overlay.join(two.overlay.address)
        await memory.until(place.settled)

    town(story)


def test_who_wants_too_much_is_cut_and_told_why(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        async with stranger(place, member, one) as (control, data):
            one.heard.blobs["model"] = b"x"
            often = int(DEFAULT_ALLOWANCES["Want"].burst) + 10
            wants = [wire.Want(number, "job", "model", 1) for number in range(often)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, data, wire.DATA, wants)
                reason = await flood(control, wire.CONTROL, [])
            assert reason == "more than 1000 Want a second"
        assert broken_by(place, 0) == [member(7).peer_id]

    town(story)


def test_a_second_data_link_ends_the_first(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        async with (
            stranger(place, member, one) as (_, data),
            caller(place, one, wire.DATA_PATH) as newer,
        ):
            await newer.send(wire.DATA.encode(wire.DataHello(b"L" * 16)))
            assert isinstance(wire.DATA.decode(await newer.receive()), wire.DataWelcome)
            await ends(data)
            assert one.overlay.links[member(7).peer_id].data is not None
        assert not broken_by(place, 0)

    town(story)


def test_a_neighbour_that_lets_too_many_bytes_wait_is_cut_off(town):
    async def story(place):
        one, two = await place.grow(2)
        (link,) = one.overlay.links.values()
        place.streams.stalled += ["peer0:1", "peer1:1"]
        note = bytes(60_000)
        for _ in range(OUTBOX_BYTES // 62_000):
            one.overlay.send_note(two.id, note)
        assert not link.scope.cancel_called
        for _ in range(20):
            one.overlay.send_note(two.id, note)
        with trio.fail_after(1):
            await link.ended.wait()

    town(story)


def test_an_outbox_that_is_emptied_takes_any_number_of_bytes(town, memory):
    async def story(place):
        one, two = await place.grow(2)
        (link,) = one.overlay.links.values()
        for round in range(1, 4):
            for _ in range(120):
                one.overlay.send_note(two.id, bytes(60_000))
            await memory.until(lambda: len(two.heard.notes) == 120 * round)  # noqa: B023
        assert link.waiting_bytes < 60_000

    town(story)


def test_a_fetch_does_not_wait_for_ever_for_a_data_link(town, member):
    async def story(place):
        one, _ = await place.grow(2)
        async with caller(place, one) as control, trio.open_nursery() as nursery:
            await say(control, hello(place, member(7, addresses=())))
            await hear(control)
            nursery.start_soon(keep_beating, control)
            with pytest.raises(FetchFailed, match="the data link is down"):
                await one.overlay.fetch(member(7).peer_id, "job", "model", 1, check=fits)
            nursery.cancel_scope.cancel()

    async def keep_beating(control):
        while True:
            await say(control, wire.Heartbeat(1))
            await trio.sleep(0.5)

    town(story)


# Real sockets.


@asynccontextmanager
async def open_peer(member, number, heard, *, profile="local"):
    async with open_overlay(
        member(number, addresses=()),
        network_id=member("network").peer_id,
        listen="127.0.0.1:0",
        advertise=(),
        network=Tcp(),
        profile=PROFILES[profile],
        listener=heard,
        may_adopt=lambda: False,
        rng=random.Random(number),
    ) as overlay:
        yield overlay


def test_who_floods_over_tcp_without_listening_is_cut(run, member, memory):
    async def main():
        heard = memory.Heard()
        async with (
            # Patient ones: on a busy machine the flood itself is late.
            open_peer(member, 0, heard, profile="wan") as one,
            open_peer(member, 1, memory.Heard(), profile="wan") as two,
        ):
            await one.join(two.address)
            line = await Tcp().connect(one.address)
            async with open_client(
                line.stream, host="x", path=wire.CONTROL_PATH, max_message_bytes=wire.MAX_DATA_BYTES
            ) as socket:
                greeting = wire.Hello(
                    wire.PROTOCOL_VERSION, member("network").peer_id,
                    member(7, addresses=()), bytes(16), b"L" * 16, 0, None,
                )  # fmt: skip
                await say(socket, greeting)
                assert isinstance(await hear(socket), wire.Welcome)
                with trio.fail_after(15):
                    for number in itertools.count(1):
                        try:
                            await say(socket, wire.Note(bytes(100)))
                            if number % 500 == 0:  # on a busy machine it would seem silent
                                await say(socket, wire.Heartbeat(number // 500))
                        except ConnectionLost as error:
                            reason = str(error)
                            break
                assert reason == "more than 1000 Note a second"
            assert heard.kinds("peer.misbehaved")
            assert one.links.keys() == {two.my_id}

    run(main, jump=False, limit_s=20)


def test_peers_over_tcp_on_loopback(run, member, memory):
    async def main():
        here, there = memory.Heard(), memory.Heard(blobs={"model": bytes(1_000_000)})
        async with open_peer(member, 0, here) as one, open_peer(member, 1, there) as two:
            assert one.machine.table.me.addresses == (one.address,)
            assert await one.join(two.address) == two.my_id
            _, data = await one.fetch(two.my_id, "job", "model", 1, check=fits)
            assert data == there.blobs["model"]
            two.send_note(one.my_id, b"note")
            await memory.until(lambda: here.notes == [(two.my_id, b"note")])
            await two.leave()
            await memory.until(lambda: here.kinds("member.left"))

    run(main, jump=False, limit_s=20)


def test_an_address_in_use_is_an_os_error(run, member, memory):
    async def main():
        options = {
            "network_id": "n" * 52, "advertise": (), "network": Tcp(),
            "profile": PROFILES["local"], "listener": memory.Heard(),
            "may_adopt": lambda: False, "rng": random.Random(0),
        }  # fmt: skip
        async with open_overlay(member(0), listen="127.0.0.1:0", **options) as overlay:
            taken = overlay.address.removeprefix("ws://")
            with pytest.raises(OSError, match="in use"):
                async with open_overlay(member(1), listen=taken, **options):
                    raise AssertionError

    run(main, jump=False, limit_s=10)
