"""What is fuzzed: everything that decodes, believes or answers what others say.

The rules are those of `fuzz_contract`; what is true comes from `fuzz_world`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.fuzz_contract import Broken, Target
from benchmarks.fuzz_control_api import REQUESTS, SCOPES, answering, serving
from benchmarks.fuzz_world import World, words_in
from daemon.notes import NOTES
from overlay.certificates import Chain, check_chain
from overlay.codec import Codec, WireError
from overlay.credence import believed
from overlay.enrolment import ENROL, Authority, Denied, serve_enrolment
from overlay.notary import Forged
from overlay.revocation import Revocation
from overlay.transport import ConnectionLost, Line, WebSocket
from overlay.wire import (
    CONTROL,
    DATA,
    Accept,
    Again,
    Chunk,
    DataHello,
    DataWelcome,
    Decline,
    Finish,
    Hello,
    Note,
    Offer,
    Refuse,
    Want,
    Welcome,
)


def targets(seed: int = 1) -> tuple[Target, ...]:
    """All of them; the same for the same seed but for the times in certificates."""
    world = World(seed)
    control = tuple(CONTROL.encode(message) for message in world.control_messages())
    words = tuple(CONTROL.encode(message) for message in world.words())
    data = tuple(DATA.encode(message) for message in DATA_MESSAGES)
    enrol = tuple(ENROL.encode(message) for message in world.enrol_messages())
    notes = tuple(NOTES.encode(note) for note in world.notes())
    return (
        Target("control", _decoding(CONTROL), control, "msgpack"),
        Target("data", _decoding(DATA), data, "msgpack"),
        Target("enrol", _decoding(ENROL), enrol, "msgpack"),
        Target("notes", _decoding(NOTES), notes, "msgpack"),
        Target("enrolment", partial(enrolling, world), enrol, "msgpack"),
        Target("credence", partial(believing, world), words, "msgpack"),
        Target("rpc", answering, tuple(json.dumps(r).encode() for r in REQUESTS), "json"),
        Target("http", serving(), tuple(json.dumps(s).encode() for s in SCOPES), "json"),
    )


# Codecs.


def _decoding(codec: Codec) -> Callable[[bytes], Awaitable[None]]:
    async def check(data: bytes) -> None:
        try:
            message = codec.decode(data)
        except WireError:
            return
        again = codec.encode(message)
        if codec.decode(again) != message or codec.encode(codec.decode(again)) != again:
            raise Broken(f"does not read back what it writes: {message!r}")

    return check


DATA_MESSAGES: tuple[Any, ...] = (
    DataHello(bytes(16)), DataWelcome(), Want(1, "3-1f", "round", -1), Decline(1, "no"),
    Offer(1, 5, "layout", 2600, 100, bytes(16)), Accept(1), Chunk(1, 0, 7, bytes(50)), Again(1, 0),
    Finish(1),
)  # fmt: skip


# Belief.


async def believing(world: World, data: bytes) -> None:
    """Nothing is believed but what somebody said."""
    try:
        message = CONTROL.decode(data)
    except WireError:
        return
    if isinstance(message, (Hello, Welcome, Refuse, Note)):
        return
    try:
        result = believed(message, world.judge, world.table)
    except Forged:
        return
    for word in words_in(result):
        if word not in world.said:
            raise Broken(f"believed what nobody said: {word!r}")


# Enrolment.


async def enrolling(world: World, data: bytes) -> None:
    """One message to a member that enrols, without a certificate and with one."""
    enrolled = world.people[2].record
    for line in (Line(_NoStream()), Line(_NoStream(), enrolled.peer_id, enrolled.chain[0])):
        socket = _Pipe(data)
        try:
            await serve_enrolment(cast("WebSocket", socket), _FakeOffice(world), line)
        except (WireError, ConnectionLost):
            continue
        answers = [ENROL.decode(sent) for sent in socket.sent]
        if not isinstance(answers[0], Authority) or len(answers) != 2:
            raise Broken(f"answered out of turn: {answers!r}")


class _Pipe:
    """The member's end of a websocket on which the other side said one thing."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def receive(self) -> bytes:
        if self._data is None:
            raise ConnectionLost("closed", orderly=True)
        data, self._data = self._data, None
        return data

    async def close(self, reason: str) -> None:
        """Nothing more comes."""


class _FakeOffice:
    """Lets in who knows the secret."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.authority = world.authority

    async def admit(self, secret: bytes, key: Ed25519PublicKey) -> Chain:
        if secret != bytes(16):
            raise Denied("unknown", "the ticket is not known")
        return self._world.newcomer.record.chain

    async def renew(
        self, chain: Chain, key: Ed25519PublicKey, revocation: Revocation | None
    ) -> Chain:
        member = check_chain(chain, self.authority, time.time())
        if member.peer_id != self._world.people[2].record.peer_id:
            raise Broken("renewed for somebody else")
        return self._world.people[2].record.chain


class _NoStream(trio.abc.Stream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise Broken("wrote past the websocket")

    async def wait_send_all_might_not_block(self) -> None:
        raise Broken("wrote past the websocket")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise Broken("read past the websocket")

    async def aclose(self) -> None:
        """Nothing to close."""
