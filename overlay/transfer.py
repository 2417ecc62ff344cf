"""Blobs over a data link: pulled by whoever wants them, in chunks, checked before and after.

The receiver asks (Want), gets an Offer that it compares with its own layout before a byte is
allocated, accepts it, and puts the Chunks together. A chunk with a wrong CRC is asked for Again;
the whole must have the digest that was offered. A newer Want for the same stream ends the older
upload. Both ends of a link may ask and serve at once.

Rules kept here:
- the reader never sends, so two busy ends cannot block each other;
- what is in flight is bounded: MAX_REQUESTS fetches and as many uploads a link, one upload a
  stream, MAX_RETRIES repeated chunks an upload; wants, and messages that belong to no transfer,
  are bounded in number a second;
- nothing is held for whoever stands still: a transfer in which nothing moves for STALLED_S is over,
  and a link that takes no bytes for so long as well;
- a frame that is half out is never cut short: whoever is stopped waits for its turn no longer, or
  ends after the frame;
- TCP's backpressure is the flow control: chunks are sent one after the other.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from overlay.codec import WireError
from overlay.limits import STRAY
from overlay.mailbox import MAX_RETRIES, STALLED_S, Mailbox, Outlet, open_mailbox
from overlay.transport import ConnectionLost, WebSocket
from overlay.wire import (
    CHUNK_BYTES,
    DATA,
    Accept,
    Again,
    Chunk,
    DataHello,
    DataMessage,
    DataWelcome,
    Decline,
    Finish,
    Offer,
    Want,
)

MAX_REQUESTS = 8
# Hashing more than this at once would delay heartbeats: it goes to a thread.
INLINE_HASH_BYTES = 1 << 20


class FetchFailed(Exception):
    """The blob could not be had; the reason is for people."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Something to serve: `weight` is what it was trained on (samples), `digest` BLAKE2b-128."""

    version: int
    layout: str
    weight: int
    data: bytes | bytearray | memoryview
    digest: bytes


async def make_blob(
    data: bytes | bytearray | memoryview, *, version: int, layout: str, weight: int
) -> Blob:
    """A blob with its digest, computed off the event loop when it is large."""
    return Blob(version, layout, weight, data, await _digest(data))


Provider = Callable[[Want], Awaitable[Blob]]
"""Finds what was asked for, or raises FetchFailed with the reason."""


class Assembly:
    """An offered blob being put together from chunks. Pure."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.buffer = bytearray(offer.size_bytes)
        self._missing = set(range(0, offer.size_bytes, CHUNK_BYTES))

    @property
    def complete(self) -> bool:
        """Every chunk has arrived."""
        return not self._missing

    def add(self, chunk: Chunk) -> bool:
        """Lay a chunk in its place; False if it is damaged and must be sent again.

        Raises WireError for a chunk that belongs nowhere.
        """
        expected = min(CHUNK_BYTES, self.offer.size_bytes - chunk.offset)
        if chunk.offset not in self._missing or len(chunk.data) != expected:
            raise WireError("a chunk that was not asked for")
        if zlib.crc32(chunk.data) != chunk.crc32:
            return False
        self.buffer[chunk.offset : chunk.offset + expected] = chunk.data
        self._missing.remove(chunk.offset)
        return True


class DataLink:
    """One data websocket, both directions."""

    def __init__(
        self, socket: WebSocket, provider: Provider, excess: Callable[[str], str] = lambda kind: ""
    ) -> None:
        """`excess(kind)` counts a want or a stray; which limit it breaks, or ''."""
        self._socket = socket
        self._provider = provider
        self._excess = excess
        self._outlet = Outlet(socket, self.end)
        self._fetches: dict[int, Mailbox] = {}
        self._uploads: dict[int, Mailbox] = {}
        self._streams: dict[tuple[str, str], int] = {}
        self._next_request = 0
        self._scope = trio.CancelScope()
        self._nonsense = ""

    async def run(self) -> str:
        """Read and serve until the link ends; what nonsense the other side sent, if any."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                try:
                    return await self._read(nursery)
                finally:
                    nursery.cancel_scope.cancel()
                    for mailbox in self._fetches.values():
                        mailbox.send.close()
        return self._nonsense

    def end(self) -> None:
        """End the link."""
        self._scope.cancel()

    async def _read(self, nursery: trio.Nursery) -> str:
        try:
            while True:
                message = DATA.decode(await self._socket.receive())
                if isinstance(message, (DataHello, DataWelcome)):
                    raise WireError("greeted twice")
                if isinstance(message, Want):
                    self._begin_upload(message, nursery)
                else:
                    await self._deliver(message)
        except ConnectionLost:
            return ""
        except WireError as error:
            return str(error)

    async def fetch(
        self, scope: str, stream: str, version: int, *, check: Callable[[Offer], None]
    ) -> tuple[Offer, bytearray]:
        """Pull a blob. `check` raises FetchFailed for an offer that does not fit.

        Raises FetchFailed, also when the link ends. The caller bounds the time.
        """
        if len(self._fetches) >= MAX_REQUESTS:
            raise FetchFailed("too many transfers under way on this link")
        self._next_request += 1
        request = self._next_request
        mailbox = self._fetches[request] = open_mailbox()
        asked = False
        try:
            await self._outlet.send(Want(request, scope, stream, version))
            asked = True
            return await self._fetch(request, mailbox, check)
        except (ConnectionLost, trio.EndOfChannel):
            raise FetchFailed("the link ended during the transfer") from None
        except WireError as error:
            self._nonsense = str(error)
            self._scope.cancel()
            raise FetchFailed(f"the sender broke the protocol: {error}") from None
        finally:
            del self._fetches[request]
            mailbox.receive.close()
            if asked:
                await self._outlet.finish(request)

    async def _fetch(
        self, request: int, mailbox: Mailbox, check: Callable[[Offer], None]
    ) -> tuple[Offer, bytearray]:
        answer = await mailbox.receive.receive()
        if isinstance(answer, Decline):
            raise FetchFailed(answer.reason)
        if not isinstance(answer, Offer):
            raise FetchFailed("answered out of turn")
        check(answer)
        assembly = Assembly(answer)
        await self._outlet.send(Accept(request))
        retries = 0
        while not assembly.complete:
            chunk = await mailbox.next()
            if chunk is None:
                raise FetchFailed(f"nothing came for {STALLED_S:.0f} s")
            if not isinstance(chunk, Chunk):
                raise FetchFailed("the sender gave up")
            if not assembly.add(chunk):
                retries += 1
                if retries > MAX_RETRIES:
                    raise FetchFailed("chunks keep arriving damaged")
                await self._outlet.send(Again(request, chunk.offset))
        if await _digest(assembly.buffer) != answer.digest:
            raise FetchFailed("the blob does not have the digest that was offered")
        return answer, assembly.buffer

    def _begin_upload(self, want: Want, nursery: trio.Nursery) -> None:
        self._count("Want")
        if want.request in self._uploads or len(self._uploads) >= MAX_REQUESTS:
            raise WireError("too many wants")
        older = self._uploads.get(self._streams.get((want.scope, want.stream), -1))
        if older is not None:
            del self._uploads[self._streams[want.scope, want.stream]]
            older.stop()
        self._streams[want.scope, want.stream] = want.request
        mailbox = self._uploads[want.request] = open_mailbox()
        nursery.start_soon(self._upload, want, mailbox)

    async def _upload(self, want: Want, mailbox: Mailbox) -> None:
        try:
            with mailbox.while_wanted():  # what was stopped need not be found any more
                blob = await self._provider(want)
            if not mailbox.stopped:
                await self._serve(want.request, blob, mailbox)
        except FetchFailed as error:
            decline = Decline(want.request, str(error)[:200])
            await self._outlet.say(
                decline, mailbox, first=lambda: self._forget_upload(want.request, mailbox)
            )
        except trio.EndOfChannel:
            pass  # stopped while it waited for the receiver
        self._forget_upload(want.request, mailbox)
        mailbox.receive.close()
        if self._streams.get((want.scope, want.stream)) == want.request:
            del self._streams[want.scope, want.stream]

    async def _serve(self, request: int, blob: Blob, mailbox: Mailbox) -> None:
        view = memoryview(blob.data).cast("B")
        offer = Offer(request, blob.version, blob.layout, view.nbytes, blob.weight, blob.digest)
        await self._outlet.say(offer, mailbox)
        if not isinstance(await mailbox.next(), Accept):
            return
        for offset in range(0, view.nbytes, CHUNK_BYTES):
            if mailbox.stopped:
                return
            await self._outlet.say(_chunk(request, view, offset), mailbox)
        while isinstance(message := await mailbox.next(), Again):
            if not 0 <= message.offset < view.nbytes:
                return
            await self._outlet.say(_chunk(request, view, message.offset), mailbox)

    async def _deliver(self, message: DataMessage) -> None:
        """Hand a message to its fetch or upload; one that is over is nobody's fault, but there are
        only so many of them."""
        is_to_upload = isinstance(message, (Accept, Again, Finish))
        mailbox = (self._uploads if is_to_upload else self._fetches).get(message.request)
        if mailbox is None:
            self._count(STRAY)
        elif isinstance(message, Finish):
            # Over at once, not when its task has ended: the next Want may come right behind.
            self._forget_upload(message.request, mailbox)
            mailbox.stop()
        else:
            await mailbox.put(message)

    def _forget_upload(self, request: int, mailbox: Mailbox) -> None:
        if self._uploads.get(request) is mailbox:
            del self._uploads[request]

    def _count(self, kind: str) -> None:
        if excess := self._excess(kind):
            raise WireError(excess)


def _chunk(request: int, view: memoryview, offset: int) -> Chunk:
    data = bytes(view[offset : offset + CHUNK_BYTES])
    return Chunk(request, offset, zlib.crc32(data), data)


async def _digest(data: bytes | bytearray | memoryview) -> bytes:
    if len(data) <= INLINE_HASH_BYTES:
        return hashlib.blake2b(data, digest_size=16).digest()
    return await trio.to_thread.run_sync(lambda: hashlib.blake2b(data, digest_size=16).digest())
