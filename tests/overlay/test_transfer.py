import hashlib
import random
import socket
import zlib
from contextlib import asynccontextmanager

import pytest
import trio

from overlay.codec import WireError
from overlay.mailbox import MAX_RETRIES, STALLED_S
from overlay.transfer import MAX_REQUESTS, Assembly, DataLink, FetchFailed, make_blob
from overlay.transport import Tcp, open_client, open_server
from overlay.wire import (
    CHUNK_BYTES,
    DATA,
    DATA_PATH,
    MAX_DATA_BYTES,
    Accept,
    Again,
    Chunk,
    DataHello,
    DataWelcome,
    Decline,
    Finish,
    Offer,
    Want,
)

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 300_000]


def fits(offer):
    """Any offer will do."""


def content(size, seed=0):
    return random.Random(seed).randbytes(size)


def offer_of(data, request=1, **changes):
    digest = hashlib.blake2b(data, digest_size=16).digest()
    fields = {"version": 1, "layout": "l", "size_bytes": len(data), "weight": 1, "digest": digest}
    return Offer(request, **{**fields, **changes})


def chunk_of(data, offset, request=1):
    part = data[offset : offset + CHUNK_BYTES]
    return Chunk(request, offset, zlib.crc32(part), part)


class Shelf:
    """What one end has to give: blobs by stream; it can be slow, and counts what was asked."""

    def __init__(self, **blobs):
        self.blobs = blobs
        self.asked = []
        self.gate = None

    async def __call__(self, want):
        self.asked.append(want)
        if self.gate is not None:
            await self.gate.wait()
        if want.stream not in self.blobs:
            raise FetchFailed("there is no such stream")
        return await make_blob(self.blobs[want.stream], version=want.version, layout="l", weight=5)


@pytest.fixture
def joined(memory):
    """joined(shelf, shelf): two data links and their ends, running until the block ends."""

    @asynccontextmanager
    async def join(left, right):
        ends = memory.pipes()
        links = [DataLink(end, shelf) for end, shelf in zip(ends, (left, right), strict=True)]
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.run)
            yield (*links, *ends)
            nursery.cancel_scope.cancel()

    return join


@pytest.fixture
def puppet(memory):
    """puppet(): one data link against an end that the test plays itself, and what `run` said."""

    class Puppet:
        def __init__(self, link, end):
            self.link, self._end, self.verdict = link, end, None

        async def run(self):
            self.verdict = await self.link.run()

        async def say(self, message):
            await self._end.send(DATA.encode(message))

        async def hear(self):
            return DATA.decode(await self._end.receive())

    @asynccontextmanager
    async def play(shelf=None, excess=lambda kind: ""):
        ours, theirs = memory.pipes()
        player = Puppet(DataLink(ours, shelf or Shelf(), excess), theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(player.run)
            yield player
            nursery.cancel_scope.cancel()

    return play


@pytest.fixture
def failing():
    """failing(link): fetches, and gives the reason why that came to nothing."""

    async def fetch(link, check=fits, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started()
        with pytest.raises(FetchFailed) as failure:
            await link.fetch("job", "model", 1, check=check)
        return str(failure.value)

    return fetch


# Between two honest ends.


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_arrives_intact_with_what_was_offered(run, joined, size):
    async def main():
        data = content(size)
        async with joined(Shelf(), Shelf(model=data)) as (link, *_):
            offer, received = await link.fetch("job", "model", 3, check=fits)
            assert received == data
            assert (offer.version, offer.layout, offer.weight) == (3, "l", 5)
            assert offer.size_bytes == size

    run(main)


def test_both_ends_fetch_several_blobs_at_once(run, joined):
    async def main():
        left = {f"l{n}": content(size, n) for n, size in enumerate(SIZES)}
        right = {f"r{n}": content(size, 9 + n) for n, size in enumerate(SIZES)}
        received = {}

        async def fetch(link, name):
            received[name] = (await link.fetch("job", name, 1, check=fits))[1]

        async with (
            joined(Shelf(**left), Shelf(**right)) as (one, two, *_),
            trio.open_nursery() as nursery,
        ):
            for name in right:
                nursery.start_soon(fetch, one, name)
            for name in left:
                nursery.start_soon(fetch, two, name)
        assert received == {**left, **right}

    run(main)


def test_a_large_blob_is_hashed_in_a_thread(run, joined):
    async def main():
        data = memoryview(content(1_500_000))
        async with joined(Shelf(), Shelf(model=data)) as (link, *_):
            assert (await link.fetch("job", "model", 1, check=fits))[1] == data

    run(main, jump=False, limit_s=20)


def test_what_is_not_there_is_declined_with_the_reason(run, joined, failing):
    async def main():
        async with joined(Shelf(), Shelf()) as (link, *_):
            assert await failing(link) == "there is no such stream"

    run(main)


def test_the_same_link_serves_on_after_refusals_of_either_side(run, joined, failing):
    def refuse(offer):
        raise FetchFailed("does not fit")

    async def main():
        shelf = Shelf(model=content(300_000))
        async with joined(Shelf(), shelf) as (link, server, *_):
            for _ in range(3 * MAX_REQUESTS):
                assert await failing(link, refuse) == "does not fit"
            assert len((await link.fetch("job", "model", 1, check=fits))[1]) == 300_000
            await trio.testing.wait_all_tasks_blocked()
            assert server._uploads == {}
            assert server._streams == {}
            assert link._fetches == {}

    run(main)


def test_an_offer_that_the_check_refuses_allocates_nothing(run, puppet, failing, monkeypatch):
    def refuse(offer):
        raise FetchFailed("far too large")

    async def main():
        monkeypatch.setattr("overlay.transfer.Assembly", None)
        async with puppet() as player, trio.open_nursery() as nursery:
            await nursery.start(failing, player.link, refuse)
            want = await player.hear()
            await player.say(offer_of(b"", want.request, size_bytes=2**40 - 1))
            assert await player.hear() == Finish(want.request)
            assert player.verdict is None

    run(main)


def test_a_newer_want_cancels_the_older_upload(run, puppet):
    async def main():
        data = content(20 * CHUNK_BYTES)
        async with puppet(Shelf(model=data)) as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            await player.say(Accept(1))
            for _ in range(3):
                assert (await player.hear()).request == 1
            await player.say(Want(2, "job", "model", 2))
            late = 0
            while not isinstance(message := await player.hear(), Offer):
                late += 1
            assert message.request == 2
            assert late < 8  # what was in the pipe already
            await player.say(Accept(2))
            chunks = [await player.hear() for _ in range(20)]
            assert b"".join(chunk.data for chunk in chunks) == data
            assert {chunk.request for chunk in chunks} == {2}

    run(main, jump=False, limit_s=20)


def test_a_want_of_another_stream_cancels_nothing(run, joined):
    async def main():
        shelf = Shelf(one=content(600_000, 1), two=content(600_000, 2))
        async with joined(Shelf(), shelf) as (link, *_), trio.open_nursery() as nursery:
            nursery.start_soon(lambda: link.fetch("job", "one", 1, check=fits))
            assert (await link.fetch("job", "two", 1, check=fits))[1] == shelf.blobs["two"]

    run(main)


def test_a_caller_that_gives_up_ends_the_upload(run, joined):
    async def main():
        shelf = Shelf(model=b"x")
        shelf.gate = trio.Event()
        async with joined(Shelf(), shelf) as (link, server, *_):
            with trio.move_on_after(1):
                await link.fetch("job", "model", 1, check=fits)
            await trio.testing.wait_all_tasks_blocked()
            assert server._uploads == {}
            assert link._fetches == {}

    run(main)


def test_more_fetches_than_the_limit_fail_here_and_cost_nothing(run, joined, failing):
    async def main():
        shelf = Shelf(**{f"s{n}": content(10, n) for n in range(MAX_REQUESTS)})
        shelf.gate = trio.Event()
        async with joined(Shelf(), shelf) as (link, *_), trio.open_nursery() as nursery:
            for name in shelf.blobs:
                nursery.start_soon(lambda name=name: link.fetch("job", name, 1, check=fits))
            await trio.testing.wait_all_tasks_blocked()
            assert await failing(link) == "too many transfers under way on this link"
            shelf.gate.set()

    run(main)


def test_a_full_link_may_ask_again_as_soon_as_one_transfer_is_over(run, joined):
    async def main():
        names = [f"s{n}" for n in range(MAX_REQUESTS)]
        shelf = Shelf(**{name: content(10) for name in names})

        async def fetch_often(link, name):
            for version in range(20):
                await link.fetch("job", name if version % 2 else f"{name}!", version, check=fits)

        shelf.blobs |= {f"{name}!": b"" for name in names}
        async with joined(Shelf(), shelf) as (link, *_), trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(fetch_often, link, name)

    run(main)


@pytest.mark.parametrize("end", ["finish", "decline"])
def test_a_request_that_is_over_makes_room_at_once(run, puppet, end):
    async def main():
        shelf = Shelf()
        shelf.gate = trio.Event()
        async with puppet(shelf) as player:
            for request in range(MAX_REQUESTS):
                await player.say(Want(request, "job", f"stream {request}", 1))
            await trio.testing.wait_all_tasks_blocked()
            if end == "finish":
                await player.say(Finish(0))
                await player.say(Want(99, "job", "another", 1))
            else:
                shelf.gate.set()
                for request in range(MAX_REQUESTS):
                    declined = await player.hear()
                    assert isinstance(declined, Decline)
                    await player.say(Want(100 + request, "job", "another", 1))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict is None

    run(main)


def test_a_link_that_ends_fails_the_fetch(run, joined, failing):
    async def main():
        shelf = Shelf(model=b"x")
        shelf.gate = trio.Event()
        async with (
            joined(Shelf(), shelf) as (link, _, end, other),
            trio.open_nursery() as nursery,
        ):
            await nursery.start(failing, link)
            await trio.testing.wait_all_tasks_blocked()
            end.close()
            other.close()

    run(main)


# Damage on the way.


def flip_first_chunks(times):
    """A tamper that damages the payload of so many chunks and counts all."""
    seen = []

    def tamper(data):
        message = DATA.decode(data)
        if isinstance(message, Chunk):
            seen.append(message.offset)
            if len(seen) <= times:
                broken = bytes([message.data[0] ^ 1]) + message.data[1:]
                return DATA.encode(Chunk(message.request, message.offset, message.crc32, broken))
        return data

    return tamper, seen


def test_damaged_chunks_are_asked_for_again(run, joined):
    async def main():
        data = content(600_000)
        async with joined(Shelf(), Shelf(model=data)) as (link, _, _, end):
            end.tamper, seen = flip_first_chunks(2)
            assert (await link.fetch("job", "model", 1, check=fits))[1] == data
            assert seen == [0, CHUNK_BYTES, 2 * CHUNK_BYTES, 0, CHUNK_BYTES]

    run(main)


def test_a_transfer_that_keeps_arriving_damaged_is_given_up_and_the_link_lives(
    run, joined, failing
):
    async def main():
        async with joined(Shelf(), Shelf(model=b"abc")) as (link, _, _, end):
            end.tamper, seen = flip_first_chunks(MAX_RETRIES + 1)
            assert await failing(link) == "chunks keep arriving damaged"
            assert len(seen) == MAX_RETRIES + 1
            assert (await link.fetch("job", "model", 2, check=fits))[1] == b"abc"

    run(main)


def test_a_blob_without_the_offered_digest_is_refused(run, puppet, failing):
    async def main():
        async with puppet() as player, trio.open_nursery() as nursery:
            await nursery.start(failing, player.link)
            want = await player.hear()
            await player.say(offer_of(b"abc", want.request))
            assert await player.hear() == Accept(want.request)
            await player.say(chunk_of(b"abd", 0, want.request))
            assert await player.hear() == Finish(want.request)

    run(main)


# Lies.


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(1, 0, zlib.crc32(b"ab"), b"ab"),
        Chunk(1, 0, zlib.crc32(b"abcd"), b"abcd"),
        Chunk(1, 0, 0, b""),
        Chunk(1, 1, zlib.crc32(b"bc"), b"bc"),
        Chunk(1, 3, 0, b""),
        Chunk(1, CHUNK_BYTES, 0, b""),
        Chunk(1, -1, zlib.crc32(b"abcd"), b"abcd"),
        Chunk(1, 2**62, 0, b"abc"),
    ],
)
def test_a_chunk_that_belongs_nowhere_costs_the_link(run, puppet, failing, chunk):
    async def main():
        async with puppet() as player, trio.open_nursery() as nursery:
            await nursery.start(failing, player.link)
            await player.hear()
            await player.say(offer_of(b"abc"))
            await player.hear()
            await player.say(chunk)
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "a chunk that was not asked for"

    run(main)


def test_the_same_chunk_twice_costs_the_link(run, puppet, failing):
    async def main():
        data = content(CHUNK_BYTES + 1)
        async with puppet() as player, trio.open_nursery() as nursery:
            await nursery.start(failing, player.link)
            await player.hear()
            await player.say(offer_of(data))
            await player.hear()
            await player.say(chunk_of(data, 0))
            await player.say(chunk_of(data, 0))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict

    run(main)


@pytest.mark.parametrize("answer", [chunk_of(b"abc", 0), Decline(1, "no"), Decline(1, "")])
def test_an_answer_that_is_no_offer_fails_the_fetch(run, puppet, failing, answer):
    async def main():
        async with puppet() as player, trio.open_nursery() as nursery:
            await nursery.start(failing, player.link)
            await player.hear()
            await player.say(answer)
            assert await player.hear() == Finish(1)

    run(main)


def test_messages_of_requests_that_never_were_are_ignored(run, puppet):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            for message in (
                Accept(7), Again(7, 0), Finish(7), offer_of(b"x", 7), chunk_of(b"x", 0, 7),
                Decline(7, "no"),
            ):  # fmt: skip
                await player.say(message)
            await player.say(Want(1, "job", "model", 1))
            assert isinstance(await player.hear(), Offer)
            assert player.verdict is None

    run(main)


@pytest.mark.parametrize("offset", [-1, 3, 2**60])
def test_again_out_of_range_ends_the_upload_only(run, puppet, offset):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            await player.say(Accept(1))
            await player.hear()
            await player.say(Again(1, offset))
            await player.say(Want(2, "job", "model", 1))
            assert (await player.hear()).request == 2

    run(main)


def test_too_many_wants_and_the_same_request_twice_cost_the_link(run, puppet):
    async def main(requests):
        shelf = Shelf()
        shelf.gate = trio.Event()
        async with puppet(shelf) as player:
            for number, request in enumerate(requests):
                await player.say(Want(request, "job", f"s{number}", 1))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "too many wants"

    run(lambda: main(range(MAX_REQUESTS + 1)))
    run(lambda: main([1, 1]))


@pytest.mark.parametrize("greeting", [DataHello(bytes(16)), DataWelcome()])
def test_a_second_greeting_costs_the_link(run, puppet, greeting):
    async def main():
        async with puppet() as player:
            await player.say(greeting)
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "greeted twice"

    run(main)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Want(1, "job", "model", 1), "Want"),
        (Accept(7), "Stray"),
        (Again(7, 0), "Stray"),
        (Finish(7), "Stray"),
        (Decline(7, "no"), "Stray"),
        (offer_of(b"x", 7), "Stray"),
        (chunk_of(b"x", 0, 7), "Stray"),
    ],
)
def test_wants_and_messages_that_belong_nowhere_are_counted(run, puppet, message, kind):
    counted = []

    def excess(kind):
        counted.append(kind)
        return "too many" if len(counted) > 3 else ""

    async def main():
        async with puppet(Shelf(), excess) as player:
            for number in range(4):
                assert player.verdict is None
                await player.say(Want(number, "j", "s", 1) if kind == "Want" else message)
                await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "too many"
            assert counted == [kind] * 4

    run(main)


def test_messages_of_a_transfer_are_not_counted(run, puppet, failing):
    async def main():
        data = content(3 * CHUNK_BYTES)
        counted = []
        async with puppet(Shelf(model=data), lambda kind: counted.append(kind) or "") as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            await player.say(Accept(1))
            for _ in range(3):
                await player.hear()
            await player.say(Again(1, 0))
            await player.hear()
            await player.say(Finish(1))
            await trio.testing.wait_all_tasks_blocked()
            assert counted == ["Want"]

    run(main)


def test_accepting_twice_costs_the_link(run, puppet):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            await player.say(Accept(1))
            await player.hear()
            await player.say(Accept(1))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "accepted twice"

    run(main)


def test_a_chunk_is_sent_again_so_often_and_then_the_link_is_over(run, puppet):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            await player.say(Accept(1))
            for _ in range(MAX_RETRIES):
                await player.hear()
                await player.say(Again(1, 0))
            assert isinstance(await player.hear(), Chunk)
            assert player.verdict is None
            await player.say(Again(1, 0))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict == "more than 5 chunks asked for again"

    run(main)


# Standing still.


@pytest.mark.parametrize("accepts", [True, False])
def test_an_upload_is_not_held_for_a_receiver_that_says_nothing(run, puppet, accepts):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            await player.say(Want(1, "job", "model", 1))
            await player.hear()
            if accepts:
                await player.say(Accept(1))
                await player.hear()
            await trio.sleep(STALLED_S - 1)
            assert player.link._uploads
            await trio.sleep(2)
            assert not player.link._uploads
            assert not player.link._streams
            await player.say(Want(2, "job", "model", 1))
            assert isinstance(await player.hear(), Offer)

    run(main)


def test_a_fetch_is_given_up_when_its_sender_stands_still(run, puppet, failing):
    async def main():
        reasons = []
        data = content(3 * CHUNK_BYTES)
        async with puppet() as player, trio.open_nursery() as nursery:
            nursery.start_soon(note_failure, player.link, reasons)
            await player.hear()
            await trio.sleep(3 * STALLED_S)  # the caller decides how long it waits for the offer
            await player.say(offer_of(data))
            await player.hear()
            for offset in (0, CHUNK_BYTES):
                await trio.sleep(STALLED_S - 1)
                await player.say(chunk_of(data, offset))
            assert not reasons
            assert await player.hear() == Finish(1)
        assert reasons == ["nothing came for 30 s"]

    async def note_failure(link, reasons):
        reasons.append(await failing(link))

    run(main)


def test_a_link_whose_other_side_takes_no_bytes_ends(run, puppet):
    async def main():
        names = [f"s{number}" for number in range(MAX_REQUESTS)]
        async with puppet(Shelf(**dict.fromkeys(names, b"abc"))) as player:
            for request, name in enumerate(names):
                await player.say(Want(request, "job", name, 1))
            await trio.sleep(STALLED_S - 1)
            assert player.verdict is None
            await trio.sleep(2)
            assert player.verdict == ""

    run(main)


def test_the_end_of_a_fetch_is_told_before_the_next_want_however_long_the_line_is_busy(run, puppet):
    async def main():
        names = [f"s{number}" for number in range(MAX_REQUESTS)]
        async with (
            puppet(Shelf(**dict.fromkeys(names, b"abc"))) as player,
            trio.open_nursery() as nursery,
        ):
            with trio.move_on_after(0):
                await player.link.fetch("job", "never asked for", 1, check=fits)
            with trio.move_on_after(1):
                nursery.start_soon(occupy, player, names)
                await player.link.fetch("job", "given up", 1, check=fits)
            nursery.start_soon(lambda: player.link.fetch("job", "next", 1, check=fits))
            heard = [await player.hear() for _ in range(MAX_REQUESTS + 3)]
            fetches = [m for m in heard if not isinstance(m, Offer)]
            assert [type(message) for message in fetches] == [Want, Finish, Want]
            assert fetches[0].request == fetches[1].request
            nursery.cancel_scope.cancel()

    async def occupy(player, names):
        await trio.sleep(0.5)
        for request, name in enumerate(names):
            await player.say(Want(request, "job", name, 1))

    run(main)


@pytest.mark.parametrize("stream", ["model", "nothing"])
def test_wants_whose_answers_nobody_reads_do_not_pile_up(run, puppet, stream):
    async def main():
        async with puppet(Shelf(model=b"abc")) as player:
            before = trio.lowlevel.current_statistics().tasks_living
            for request in range(500):
                await player.say(Want(request, "job", stream, request))
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict is None
            assert trio.lowlevel.current_statistics().tasks_living - before <= 8
            assert len(player.link._uploads) <= 1

    run(main)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa3abc", bytes(CHUNK_BYTES)])
def test_garbage_costs_the_link(run, puppet, data):
    async def main():
        async with puppet() as player:
            await player._end.send(data)
            await trio.testing.wait_all_tasks_blocked()
            assert player.verdict

    run(main)


# The assembly by itself.


def test_chunks_may_come_in_any_order():
    data = content(3 * CHUNK_BYTES + 5)
    assembly = Assembly(offer_of(data))
    for offset in (2 * CHUNK_BYTES, 0, 3 * CHUNK_BYTES, CHUNK_BYTES):
        assert not assembly.complete
        assert assembly.add(chunk_of(data, offset))
    assert assembly.complete
    assert assembly.buffer == data


def test_a_damaged_chunk_changes_nothing():
    assembly = Assembly(offer_of(b"abc"))
    assert not assembly.add(Chunk(1, 0, zlib.crc32(b"abc"), b"abd"))
    assert not assembly.complete
    assert assembly.buffer == bytes(3)


def test_an_empty_blob_is_complete_and_takes_no_chunk():
    assembly = Assembly(offer_of(b""))
    assert assembly.complete
    with pytest.raises(WireError):
        assembly.add(Chunk(1, 0, 0, b""))


def test_a_transfer_that_is_given_up_in_the_middle_of_a_frame_leaves_the_link_usable(run):
    big, small = content(4_000_000), b"small"

    async def serve(stream):
        # Small buffers: a frame takes many writes, so that giving up comes in the middle of one.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        async with open_server(stream, paths=(DATA_PATH,), max_message_bytes=MAX_DATA_BYTES) as end:
            await DataLink(end, Shelf(big=big, small=small)).run()

    async def main():
        async with trio.open_nursery() as nursery:
            address = await nursery.start(Tcp().listen, "127.0.0.1:0", serve)
            stream = (await Tcp().connect(address)).stream
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            async with open_client(
                stream, host="h", path=DATA_PATH, max_message_bytes=MAX_DATA_BYTES
            ) as end:
                link = DataLink(end, Shelf())
                nursery.start_soon(link.run)
                for version in range(3):
                    with trio.move_on_after(0.1) as scope:
                        await link.fetch("s", "big", version, check=fits)
                    assert scope.cancelled_caught
                with trio.fail_after(10):
                    _, data = await link.fetch("s", "small", 1, check=fits)
                assert data == small
                nursery.cancel_scope.cancel()

    run(main, jump=False)
