"""What is fuzzed: everything that decodes, believes or answers what others say.

Rules kept here:
- a target takes bytes and raises `Broken`, or whatever else, when it does what it must not: only
  the errors that its callers expect are quiet;
- a target knows nothing of where bytes come from: a seeded mutator (`benchmarks.fuzz`) or
  hypothesis (`tests/fuzz`);
- everything runs inside trio and never waits.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from daemon.access import Access, Tokens, access_over_tcp
from daemon.events import EventLog
from daemon.jsonrpc import Handler, Method, RpcError, answer
from daemon.server import ControlApp
from overlay.certificates import Chain, certify, check_chain, found_authority, request
from overlay.codec import Codec, WireError
from overlay.credence import believed
from overlay.enrolment import (
    ENROL,
    Apply,
    Authority,
    Denied,
    Granted,
    Refused,
    Renew,
    serve_enrolment,
)
from overlay.identity import id_of_key
from overlay.keys import key_id, public_bytes
from overlay.membership import BUCKETS, Membership
from overlay.notary import Forged, Notary, Signing, seal
from overlay.records import Fate, Record, State
from overlay.revocation import Revocation
from overlay.transport import ConnectionLost, Line, WebSocket
from overlay.wire import (
    CONTROL,
    DATA,
    PROTOCOL_VERSION,
    Accept,
    Again,
    Chunk,
    DataHello,
    DataWelcome,
    Decline,
    Evidence,
    Finish,
    Heartbeat,
    Hello,
    LinkMessage,
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

TOKEN = "a-token"


class Broken(Exception):
    """A target did what it must not do."""


@dataclass(frozen=True, slots=True)
class Target:
    """`check(data)` raises for a finding. `corpus` are valid inputs; `form` is what they are made
    of: 'msgpack' or 'json'."""

    name: str
    check: Callable[[bytes], Awaitable[None]]
    corpus: tuple[bytes, ...]
    form: str


def targets(seed: int = 1) -> tuple[Target, ...]:
    """All of them; the same for the same seed but for the times in certificates."""
    world = World(seed)
    control = tuple(CONTROL.encode(message) for message in world.control_messages())
    words = tuple(CONTROL.encode(message) for message in world.words())
    data = tuple(DATA.encode(message) for message in DATA_MESSAGES)
    enrol = tuple(ENROL.encode(message) for message in world.enrol_messages())
    return (
        Target("control", _decoding(CONTROL), control, "msgpack"),
        Target("data", _decoding(DATA), data, "msgpack"),
        Target("enrol", _decoding(ENROL), enrol, "msgpack"),
        Target("enrolment", world.enrolling, enrol, "msgpack"),
        Target("credence", world.believing, words, "msgpack"),
        Target("rpc", _answering, tuple(json.dumps(r).encode() for r in REQUESTS), "json"),
        Target("http", _serving(), tuple(json.dumps(s).encode() for s in SCOPES), "json"),
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


# A network, its members, and what they truly said.


@dataclass(frozen=True, slots=True)
class _Person:
    key: Ed25519PrivateKey
    notary: Signing
    record: Record


class World:
    """A founder, an issuer and three members; one more is known to nobody yet."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        keys = [Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)) for _ in range(7)]
        self._authority_key, *people = keys
        self.authority = found_authority(self._authority_key)
        self.network = id_of_key(public_bytes(self._authority_key))
        roles = ("founder", "issuer", "member", "member", "member", "member")
        chains = [
            certify(
                key.public_key(), role,  # type: ignore[arg-type]
                issuer_key=self._authority_key, issuer=(), authority=self.authority,
            )
            for key, role in zip(people, roles, strict=True)
        ]  # fmt: skip
        self.people = [
            self._person(key, chain, number)
            for number, (key, chain) in enumerate(zip(people, chains, strict=True))
        ]
        self.table = Membership(self.people[0].record, notary=self.people[0].notary)
        for person in self.people[1:-1]:
            self.table.merge(person.record, 0.0)
        self.newcomer = self.people[-1]
        self._true = self._said()
        self.judge: Notary = self.people[0].notary

    def _person(self, key: Ed25519PrivateKey, chain: Chain, number: int) -> _Person:
        notary = Signing(key, chain, self.authority)
        plain = Record(
            key_id(key), f"p{number}", (f"wss://127.0.0.1:{4000 + number}",), 1, False, -1
        )
        return _Person(key, notary, notary.record(plain))

    # Messages.

    def words(self) -> list[LinkMessage]:
        """Signed and true: what may be believed."""
        _, issuer, one, two, three, _ = self.people
        renewed = one.notary.record(dataclasses.replace(one.record, incarnation=2, name="again"))
        dead = Fate(
            two.record.peer_id, 1, State.DEAD,
            tuple(self._testimony(person, two).vote for person in (one, three, issuer)),
        )  # fmt: skip
        left = Fate(three.record.peer_id, 1, State.LEFT, three.notary.goodbye(1))
        doubt = Fate(one.record.peer_id, 1, State.SUSPECT)
        evidence = tuple(self._testimony(person, two) for person in (one, three))
        return [
            News((renewed, self.newcomer.record), (dead, left, doubt), evidence),
            News((self.newcomer.record,), (), (self._testimony(one, three, hard=False),)),
            SyncPage((renewed, self.newcomer.record, two.record), (dead, left)),
            Revoked(
                (
                    issuer.notary.revocation(two.record.peer_id, "a test", two.record.chain),
                    self._by_authority(),
                )
            ),
        ]

    def control_messages(self) -> list[Any]:
        """One of each kind at least."""
        record, token = self.newcomer.record, bytes(16)
        return [
            *self.words(),
            Hello(PROTOCOL_VERSION, self.network, record, token, token, 5, None),
            Welcome(self.network, record, token, 5),
            Refuse("revoked", "out", None, self._by_authority()),
            Heartbeat(2**64 - 1),
            SyncRequest(tuple(range(BUCKETS))),
            Note(b"a note"),
        ]

    def enrol_messages(self) -> list[Any]:
        """One of each kind."""
        signing_request = request(self.newcomer.key)
        return [
            Authority(self.authority), Apply(bytes(16), signing_request),
            Renew(self.people[2].record.chain, signing_request, None),
            Granted(self.newcomer.record.chain), Refused("used", "the ticket was used"),
        ]  # fmt: skip

    def _testimony(self, observer: _Person, subject: _Person, *, hard: bool = True) -> Evidence:
        peer = subject.record.peer_id
        signature = observer.notary.testimony(peer, 1, hard)
        return Evidence(peer, 1, observer.record.peer_id, hard, signature)

    def _by_authority(self) -> Revocation:
        unsigned = Revocation(self.people[3].record.peer_id, 1, "", (), bytes(64))
        return seal(unsigned, self._authority_key, self.network, chain=())

    # Belief.

    async def believing(self, data: bytes) -> None:
        """Nothing is believed but what somebody said."""
        try:
            message = CONTROL.decode(data)
        except WireError:
            return
        if isinstance(message, (Hello, Welcome, Refuse, Note)):
            return
        try:
            result = believed(message, self.judge, self.table)
        except Forged:
            return
        for word in _words_in(result):
            if word not in self._true:
                raise Broken(f"believed what nobody said: {word!r}")

    def _said(self) -> set[Any]:
        said = {word for message in self.words() for word in _words_in(message)}
        return said | {person.record for person in self.people}

    # Enrolment.

    async def enrolling(self, data: bytes) -> None:
        """One message to a member that enrols, without a certificate and with one."""
        for line in (Line(_NoStream()), Line(_NoStream(), *self._certified())):
            socket = _Pipe(data)
            try:
                await serve_enrolment(cast("WebSocket", socket), _FakeOffice(self), line)
            except (WireError, ConnectionLost):
                continue
            answers = [ENROL.decode(sent) for sent in socket.sent]
            if not isinstance(answers[0], Authority) or len(answers) != 2:
                raise Broken(f"answered out of turn: {answers!r}")

    def _certified(self) -> tuple[str, bytes]:
        return self.people[2].record.peer_id, self.people[2].record.chain[0]


def _words_in(message: object) -> set[Any]:
    """What somebody signed, each with what it is about. Of a suspicion nobody signs anything."""
    words: set[Any] = set()
    match message:
        case News() | SyncPage():
            words |= set(message.records)
            for fate in message.fates:
                words |= {(fate.peer_id, fate.state is State.LEFT, vote) for vote in fate.votes}
            if isinstance(message, News):
                words |= {(e.subject, False, e.vote) for e in message.evidence}
        case Revoked():
            words |= set(message.revocations)
    return words


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


# The control API.


async def _subtract(minuend: int, subtrahend: int) -> int:
    """Subtract."""
    return minuend - subtrahend


async def _total(numbers: list[int], scale: float = 1.0) -> float:
    """Add up."""
    return scale * len(numbers)


async def _greet(name: str | None = None, words: dict[str, Any] | None = None) -> str:
    """Greet."""
    return f"hello {name}"


async def _refuse() -> None:
    """Refuse."""
    raise RpcError(-32099, "unwilling", "not today")


async def _change() -> str:
    """Changes something: not for readers."""
    raise Broken("a reader changed something")


HANDLERS: dict[str, Handler] = {
    "subtract": _subtract,
    "total": _total,
    "greet": _greet,
    "refuse": _refuse,
    "change": _change,
}
METHODS: Mapping[str, Method] = {
    name: Method(name, "", handler, name != "change") for name, handler in HANDLERS.items()
}
REQUESTS: tuple[Any, ...] = (
    {"jsonrpc": "2.0", "id": 1, "method": "subtract", "params": [42, 23]},
    {"jsonrpc": "2.0", "id": "a", "method": "subtract", "params": {"minuend": 1, "subtrahend": 2}},
    {"jsonrpc": "2.0", "id": 1, "method": "total", "params": [[1, 2], 0.5]},
    {"jsonrpc": "2.0", "method": "greet", "params": {"name": None, "words": {"a": [1]}}},
    {"jsonrpc": "2.0", "id": None, "method": "refuse"},
    {"jsonrpc": "2.0", "id": 1.5, "method": "change"},
    [{"jsonrpc": "2.0", "id": 1, "method": "refuse"}, 1, {}],
)


async def _answering(data: bytes) -> None:
    """Every answer is JSON, and none is an internal error."""
    text = await answer(data, METHODS, read_only=True)
    check_answer(text)


def check_answer(text: str) -> None:
    """Raises Broken for an answer that JSON-RPC does not know."""
    if not text:
        return
    parsed = json.loads(text, parse_constant=_no_constant)
    for one in parsed if isinstance(parsed, list) else [parsed]:
        if one["jsonrpc"] != "2.0" or not ("result" in one) ^ ("error" in one):
            raise Broken(f"no answer: {text[:200]}")
        if "error" in one and (
            one["error"]["code"] == -32603 or "kind" not in one["error"]["data"]
        ):
            raise Broken(f"an error of ours: {text[:200]}")


def _no_constant(word: str) -> None:
    raise Broken(f"{word} in an answer")


AUTHORISED = [["host", "localhost:1"], ["authorization", f"Bearer {TOKEN}"]]
SCOPES: tuple[Any, ...] = (
    {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/rpc",
        "headers": [*AUTHORISED, ["content-type", "application/json"]],
        "body": ['{"jsonrpc": "2.0", "id": 1,', ' "method": "refuse"}'],
    },
    {
        "type": "http", "http_version": "1.0", "method": "GET", "path": "/metrics",
        "headers": AUTHORISED, "body": [],
    },
    {
        "type": "websocket", "http_version": "1.1", "method": "GET", "path": "/rpc",
        "headers": AUTHORISED, "body": ['{"jsonrpc": "2.0", "id": 1, "method": "total"}', "[]"],
    },
    {
        "type": "websocket", "http_version": "1.1", "method": "GET", "path": "/rpc",
        "headers": [*AUTHORISED, ["origin", "https://evil.example"]],
        "body": ['{"jsonrpc": "2.0", "id": 1, "method": "greet"}'],
    },
)  # fmt: skip


def _serving() -> Callable[[bytes], Awaitable[None]]:
    tokens = Tokens("the-admins-token", TOKEN)
    apps = [
        ControlApp(METHODS, EventLog(), access=access, prometheus=lambda: "up 1\n")
        for access in (
            access_over_tcp("127.0.0.1", names=(), tokens=tokens),
            Access(tokens, frozenset({"localhost"})),
        )
    ]

    async def check(data: bytes) -> None:
        try:
            wanted = json.loads(data)
        except (ValueError, RecursionError):
            wanted = {"body": [data.decode("latin-1")]}
        for app in apps:
            await serve_scope(app, wanted)

    return check


async def serve_scope(app: ControlApp, wanted: Any) -> None:
    """One request, as a scope of ASGI that a server can hand in: its fields' types are the
    server's word, their contents anybody's. Raises Broken for an answer that ASGI does not know."""
    found = wanted if isinstance(wanted, dict) else {}
    is_http = found.get("type") != "websocket"
    scope = {
        "type": "http" if is_http else "websocket",
        "http_version": _text(found.get("http_version"), "1.1"),
        "method": _text(found.get("method"), "POST"),
        "path": _text(found.get("path"), "/rpc"),
        "headers": [
            (_text(pair[0], "x").encode("utf-8", "replace"),
             _text(pair[1], "y").encode("utf-8", "replace"))
            for pair in _list(found.get("headers")) if isinstance(pair, list) and len(pair) == 2
        ],
        "state": {"clock": SimpleNamespace(start=_nothing, stop=_nothing, cut=_nothing)},
    }  # fmt: skip
    bodies = [_text(part, "") for part in _list(found.get("body"))]
    messages = _messages(bodies, is_http=is_http)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    for message in sent:
        status = message.get("status")
        if status is not None and not (200 <= status < 500 or status == 503):
            raise Broken(f"status {status}")
        if message["type"] == "websocket.send":
            check_answer(message["text"])


def _messages(bodies: list[str], *, is_http: bool) -> Any:
    kind = "http.request" if is_http else "websocket.receive"
    if not is_http:
        yield {"type": "websocket.connect"}
    for number, text in enumerate(bodies):
        data = text.encode("utf-8", "surrogatepass")
        more = number + 1 < len(bodies)
        yield {"type": kind, "body": data, "more_body": more} if is_http else {
            "type": kind, "bytes": data, "text": None,
        }  # fmt: skip
    if is_http and not bodies:
        yield {"type": kind, "body": b""}
    while True:
        yield {"type": "http.disconnect" if is_http else "websocket.disconnect"}


def _text(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _nothing() -> None:
    pass
