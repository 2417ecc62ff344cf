"""An attacker with everything that a member could have: its own key and certificate, the protocol,
and no manners.

It speaks TLS with the overlay's own modules and frames its websocket messages by hand (RFC 6455,
section 5.2), so that it can say what no library would let it say, as fast as the line takes it.

Rules kept here:
- one `Line` a connection, which ends with its block; a test bounds the time;
- what the daemon does to it is `Cut` (with the reason that it gave) or `Refused` (its Refuse).
"""

from __future__ import annotations

import functools
import hashlib
import math
import secrets
import ssl
import struct
import zlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from daemon.credentials import Credentials
from daemon.notes import NOTES, Announce, TrainState
from overlay import tls
from overlay.addresses import split_address
from overlay.alerts import alert_of
from overlay.certificates import certify
from overlay.digests import BUCKETS
from overlay.enrolment import Enrolled, enrol
from overlay.keys import read_key, sign
from overlay.notary import RECORD
from overlay.records import Record
from overlay.tickets import read_ticket
from overlay.transport import HandshakeFailed, Tcp, open_unwrapping_nursery
from overlay.wire import (
    CHUNK_BYTES,
    CONTROL,
    CONTROL_PATH,
    DATA,
    DATA_PATH,
    PROTOCOL_VERSION,
    SUBPROTOCOL,
    Accept,
    Chunk,
    DataHello,
    DataWelcome,
    Decline,
    Finish,
    Heartbeat,
    Hello,
    News,
    Note,
    Offer,
    Refuse,
    Revoked,
    SyncPage,
    SyncRequest,
    Want,
    Welcome,
)

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
BEAT_S = 0.3


class Cut(Exception):
    """The daemon ended the connection; the message is the reason that it gave, '' for none."""


class Refused(Exception):
    """The daemon wants no link; `answer` is its Refuse."""

    def __init__(self, answer):
        super().__init__(f"{answer.kind}: {answer.reason}")
        self.answer = answer


class Rejected(Exception):
    """The websocket was not opened; the message is the first line of the answer."""


def on_trio(limit_s=30.0):
    """A coroutine test, under a deadline."""

    def decorate(test):
        @functools.wraps(test)
        def run(**arguments):
            async def bounded():
                with trio.fail_after(limit_s):
                    await test(**arguments)

            trio.run(bounded)

        return run

    return decorate


async def until(condition, limit_s, what):
    """Wait for a condition that is told without waiting. Raises TimeoutError that names `what`."""
    with trio.move_on_after(limit_s):
        while not condition():  # noqa: ASYNC110 - a daemon's, which sets no event here
            await trio.sleep(0.05)
        return
    raise TimeoutError(f"not within {limit_s:g} s: {what}")


# Identities.


@dataclass
class Attacker:
    """Somebody with a key and, perhaps, a certificate."""

    credentials: Credentials
    name: str = "mallory"
    learner: bool = False
    # A port where nobody listens: whoever looks for it finds that it is gone.
    address: str = "wss://127.0.0.1:9"
    instance: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    life: int = 1

    @property
    def id(self):
        return self.credentials.peer_id

    @property
    def notary(self):
        return self.credentials.signing()

    def is_doubted(self, fates):
        """Whether it is called suspect or dead; nobody finds it at its address. It rises above."""
        lives = [fate.incarnation for fate in fates if fate.peer_id == self.id]
        if lives:
            self.life = max(self.life, *lives) + 1
        return bool(lives)

    def record(self, incarnation=None, **changes):
        """What it says of itself, signed; by itself in a life above every doubt that it heard."""
        incarnation = self.life if incarnation is None else incarnation
        plain = Record(self.id, self.name, (self.address,), incarnation, self.learner, -1)
        return self.notary.record(replace(plain, **changes))

    def hello(self, **changes):
        network = self.credentials.network
        words = {
            "version": PROTOCOL_VERSION,
            "network": network,
            "record": changes.pop("record", None) or self.record(),
            "instance": self.instance,
            "link_id": secrets.token_bytes(16),
            "digest": 1,
            "candidacy": None,
        }
        return Hello(**{**words, **changes})

    def context(self):
        """What it shows; it believes whoever answers."""
        context = self.credentials.contexts().client
        context.verify_mode = ssl.CERT_NONE
        return context

    @asynccontextmanager
    async def open(self, address, path=CONTROL_PATH):
        """A websocket on which nothing was said yet."""
        async with open_line(address, self.context(), path) as line:
            yield line

    @asynccontextmanager
    async def linked(self, address, **changes):
        """A control link that beats like an honest one. Raises Refused or Cut."""
        hello = self.hello(**changes)
        async with self.open(address) as line, open_unwrapping_nursery() as nursery:
            await line.say(hello)
            answer = CONTROL.decode(await line.receive())
            if isinstance(answer, Refuse):
                raise Refused(answer)
            assert isinstance(answer, Welcome)
            link = ControlLink(line, hello, answer, self)
            nursery.start_soon(link.listen)
            nursery.start_soon(link.beat)
            yield link
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def data_link(self, address, link_id):
        """The data link beside a control link. Raises Cut."""
        async with self.open(address, DATA_PATH) as line:
            await line.send(DATA.encode(DataHello(link_id)))
            assert isinstance(DATA.decode(await line.receive()), DataWelcome)
            yield line


async def enrolled(folder: Path, ticket: str, **more) -> Attacker:
    """A member like any other, made with a ticket. Raises Denied."""
    credentials = Credentials(folder)
    credentials.take(await enrol(Tcp(), read_ticket(ticket), credentials.key))
    return Attacker(credentials, **more)


def of_another_network(folder: Path) -> Attacker:
    """The founder of a network of its own."""
    credentials = Credentials(folder)
    credentials.found()
    return Attacker(credentials)


def certified_by(founder: Path, folder: Path, *, lifetime_s: float) -> Attacker:
    """A member whose certificate the authority in the founder's data directory made."""
    theirs, mine = Credentials(founder), Credentials(folder)
    chain = certify(
        mine.key.public_key(),
        "member",
        issuer_key=read_key(founder / "authority.key"),
        issuer=(),
        authority=theirs.authority,
        lifetime_s=lifetime_s,
    )
    mine.take(Enrolled(theirs.authority, chain))
    return Attacker(mine)


def sign_as(attacker: Attacker, record: Record) -> Record:
    """Somebody's record with the attacker's signature in the place of theirs."""
    network = attacker.credentials.network
    return replace(record, signature=sign(attacker.credentials.key, RECORD, network, record.words))


# Lines.


class Line:
    """A websocket whose frames are made by hand."""

    def __init__(self, stream, rest=b""):
        self.stream = stream
        self._buffer = bytearray(rest)
        self._turn = trio.Lock()
        self._cut = None

    async def pour(self, data):
        """Raw bytes. Raises Cut."""
        async with self._turn:
            try:
                await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._cut or Cut(alert_of(error)) from None

    async def send(self, data):
        await self.pour(frame(data))

    async def say(self, message):
        """A control message."""
        await self.send(CONTROL.encode(message))

    async def receive(self):
        """The next binary message. Raises Cut."""
        while True:
            opcode, body = await self._frame()
            if opcode == CLOSE:
                self._cut = Cut(bytes(body[2:]).decode())
                raise self._cut
            if opcode == PING:
                await self.pour(frame(body, opcode=PONG))
            if opcode in (0, BINARY):
                return bytes(body)

    async def until_cut(self, limit_s=5.0):
        """Hear the daemon out; the reason that it gave."""
        with trio.fail_after(limit_s):
            try:
                while True:
                    await self.receive()
            except Cut as cut:
                return str(cut)

    async def pour_until_cut(self, data):
        """Raw bytes, while the daemon is heard out; the reason that it gave."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pour_quietly, data)
            reason = await self.until_cut()
            nursery.cancel_scope.cancel()
        return reason

    async def _pour_quietly(self, data):
        with suppress(Cut):
            await self.pour(data)

    async def _frame(self):
        first, second = await self._take(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await self._take(2 if size == 126 else 8))
        return first & 15, await self._take(size)

    async def _take(self, count):
        while len(self._buffer) < count:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Cut(alert_of(error)) from None
            if not data:
                raise Cut("")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class ControlLink:
    """A control link that is up, with what was heard on it."""

    def __init__(self, line, hello, welcome, attacker):
        self.line, self.hello, self.welcome = line, hello, welcome
        self._attacker = attacker
        self.records = {welcome.record.peer_id: welcome.record}
        self.digest = welcome.digest
        self.notes = []
        self.revoked = []
        self.reason = None
        self.ended = trio.Event()

    async def say(self, message):
        await self.line.say(message)

    async def listen(self):
        """Take in what comes, to the end."""
        try:
            while True:
                message = CONTROL.decode(await self.line.receive())
                self._take(message)
                if isinstance(message, News) and self._attacker.is_doubted(message.fates):
                    await self.say(News((self._attacker.record(),), (), ()))
        except Cut as cut:
            self.reason = str(cut)
            self.ended.set()

    def _take(self, message):
        match message:
            case Heartbeat():
                self.digest = message.digest
            case News() | SyncPage():
                self.records |= {r.peer_id: r for r in message.records}
            case Revoked():
                self.revoked += message.revocations
            case Note():
                self.notes.append(message.body)

    async def beat(self):
        """Stay alive, and want nothing."""
        with suppress(Cut):
            while True:
                await self.say(Heartbeat(self.digest))
                await trio.sleep(BEAT_S)

    async def learn(self, *peers):
        """The records of these peers, as the daemon holds them."""
        await self.say(SyncRequest((0,) * BUCKETS))
        await until(lambda: self.records.keys() >= set(peers), 5, "the records came")
        return [self.records[peer] for peer in peers]

    async def until_cut(self, limit_s=5.0):
        """The reason for which the daemon ended the link."""
        with trio.fail_after(limit_s):
            await self.ended.wait()
        return self.reason


@asynccontextmanager
async def open_tcp(address):
    """A bare connection."""
    host, port = split_address(address)
    async with await trio.open_tcp_stream(host, port) as stream:
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_tls(address, context):
    """A connection whose TLS is up. Raises Cut."""
    async with open_tcp(address) as tcp:
        try:
            line = await tls.shake_hands(tcp, context, server_side=False)
        except HandshakeFailed as error:
            raise Cut(str(error)) from None
        yield line.stream


@asynccontextmanager
async def open_line(address, context, path):
    """A websocket; `context` None: over bare TCP. Raises Rejected or Cut."""
    opened = open_tls(address, context) if context is not None else open_tcp(address)
    async with opened as stream:
        line = Line(stream)
        await line.pour(upgrade(path))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await line._take(1)
        first = head.partition(b"\r\n")[0].decode()
        if " 101 " not in first:
            raise Rejected(first)
        yield line


def upgrade(path, host="localhost"):
    """The request that opens a websocket."""
    lines = (
        f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
    )  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(data, *, opcode=BINARY, claims=None, last=True):
    """A masked frame (the mask is zero); `claims` is the length that its header says, `last` tells
    whether its message ends with it."""
    size = len(data) if claims is None else claims
    if size < 126:
        head = bytes([128 | size])
    elif size < 2**16:
        head = bytes([128 | 126]) + size.to_bytes(2)
    else:
        head = bytes([128 | 127]) + size.to_bytes(8)
    return bytes([128 * last | opcode]) + head + bytes(4) + data


# Training, badly.


class Saboteur:
    """Takes part in a job as far as notes go, and answers every want with another kind of rubbish.

    A round's kind is that of its number modulo the number of kinds.
    """

    KINDS = ("size", "layout", "wrong round", "not finite")

    def __init__(self, link, data, victim):
        self._link, self._data, self._victim = link, data, victim
        self._request = 0
        self._true = None  # what an honest offer says
        self._wanted = {}
        self.served = dict.fromkeys(self.KINDS, 0)

    async def run(self):
        """Go on until the links end."""
        with suppress(Cut):
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(self._speak)
                nursery.start_soon(self._serve)

    async def _speak(self):
        while True:
            while self._link.notes:
                match note := NOTES.decode(self._link.notes.pop(0)):
                    case TrainState():
                        await self._note(note)
                    case Announce():
                        await self._note(replace(note, partners=(self._victim,)))
                        if self._true is None:
                            self._request += 1
                            want = Want(self._request, note.run, "round", note.round)
                            await self._data.send(DATA.encode(want))
            await trio.sleep(0.005)

    async def _note(self, note):
        await self._link.say(Note(NOTES.encode(note)))

    async def _serve(self):
        while True:
            match message := DATA.decode(await self._data.receive()):
                case Offer():
                    self._true = message
                    await self._data.send(DATA.encode(Finish(message.request)))
                case Want():
                    await self._offer(message)
                case Accept() if message.request in self._wanted:
                    await self._chunk(message.request, self._wanted.pop(message.request))

    async def _offer(self, want):
        true = self._true
        if true is None or want.version < 1:
            await self._data.send(DATA.encode(Decline(want.request, "not now")))
            return
        kind = self.KINDS[want.version % len(self.KINDS)]
        rubbish = struct.pack("<f", math.nan) * (true.size_bytes // 4)
        changes = {
            "size": {"size_bytes": 2**40 - 1},
            "layout": {"layout": "another"},
            "wrong round": {"version": want.version - 1},
            "not finite": {"digest": hashlib.blake2b(rubbish, digest_size=16).digest()},
        }[kind]
        if kind == "not finite":
            self._wanted[want.request] = rubbish
        offer = replace(true, request=want.request, version=want.version)
        await self._data.send(DATA.encode(replace(offer, **changes)))
        self.served[kind] += 1

    async def _chunk(self, request, data):
        for offset in range(0, len(data), CHUNK_BYTES):
            part = data[offset : offset + CHUNK_BYTES]
            await self._data.send(DATA.encode(Chunk(request, offset, zlib.crc32(part), part)))
