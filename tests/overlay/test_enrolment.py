"""Newcomers with tickets, members that renew, and what neither may do: on streams in memory."""

import dataclasses
import random
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from overlay import enrolment
from overlay.certificates import BadCertificate, check_chain, read_chain, request
from overlay.codec import WireError
from overlay.enrolment import (
    ENROL,
    LIMIT_S,
    Apply,
    Denied,
    Granted,
    Refused,
    Renew,
    Unreachable,
    enrol,
    serve_enrolment,
)
from overlay.keys import key_id, new_key
from overlay.notary import Signing
from overlay.tickets import SECRET_BYTES, Ticket
from overlay.tls import Tls, shake_hands, stranger
from overlay.transport import (
    ConnectionLost,
    DialRefused,
    HandshakeFailed,
    Line,
    open_client,
    open_server,
)
from overlay.wire import ENROL_PATH
from tests.overlay.authorities import Authority

SECRET = bytes(range(SECRET_BYTES))
DESK = "wss://desk:1"


class Streams:
    """A Tcp in memory: who answers at which address."""

    def __init__(self, nursery):
        self.serving = {}
        self._nursery = nursery

    async def connect(self, address):
        await trio.lowlevel.checkpoint()
        if address not in self.serving:
            raise DialRefused(f"connection refused by {address}")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.serving[address], theirs)
        return Line(ours)


class Desk:
    """A member that certifies whoever knows the secret, and notes who asked."""

    def __init__(self, authority, member):
        self.authority = authority.certificate
        self.member = member
        self.asked, self.ended = [], []
        self.denial = None
        self.grant = lambda key: authority.certify(key)

    async def admit(self, secret, key):
        self.asked.append((secret, key_id(key)))
        return self._answer(key)

    async def renew(self, chain, key, revocation):
        self.asked.append((chain, key_id(key), revocation))
        return self._answer(key)

    def _answer(self, key):
        if self.denial is not None:
            raise self.denial
        return self.grant(key)

    async def serve(self, stream):
        """One connection, as the overlay serves it."""
        try:
            line = await shake_hands(stream, self.member.contexts.server, server_side=True)
            async with open_server(
                line.stream, paths=(ENROL_PATH,), max_message_bytes=enrolment.MAX_ENROL_BYTES
            ) as socket:
                await serve_enrolment(socket, self, line)
        except (HandshakeFailed, ConnectionLost, WireError) as error:
            self.ended.append(error)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path):
    return Authority(tmp_path / "other")


@pytest.fixture
def desk(authority):
    return Desk(authority, authority.member("founder"))


@pytest.fixture
def ticket(authority):
    return Ticket(authority.network, (DESK,), SECRET, 2**33)


@pytest.fixture
def play(run, desk):
    """play(story): runs `async def story(streams)` where the desk is open."""

    def play(story):
        async def main():
            async with trio.open_nursery() as nursery:
                streams = Streams(nursery)
                streams.serving[DESK] = desk.serve
                await story(streams)
                nursery.cancel_scope.cancel()

        run(main)

    return play


@asynccontextmanager
async def caller(streams, context):
    """A websocket to the desk on which the test says what it likes; the desk spoke first."""
    plain = await streams.connect(DESK)
    line = await shake_hands(plain.stream, context, server_side=False)
    async with open_client(
        line.stream, host="x", path=ENROL_PATH, max_message_bytes=enrolment.MAX_ENROL_BYTES
    ) as socket:
        assert isinstance(ENROL.decode(await socket.receive()), enrolment.Authority)
        yield socket


async def said(socket):
    """All that the desk says until it closes."""
    messages = []
    try:
        while True:
            messages.append(ENROL.decode(await socket.receive()))
    except ConnectionLost:
        return messages


# With a ticket.


def test_a_ticket_makes_a_member(play, authority, desk, ticket):
    async def story(streams):
        key = new_key()
        enrolled = await enrol(streams, ticket, key)
        assert enrolled.authority == authority.certificate
        assert enrolled.network == authority.network
        made = read_chain(enrolled.chain)
        assert made.peer_id == key_id(key)
        check_chain(enrolled.chain, authority.certificate, made.expires_at - 1)
        assert desk.asked == [(SECRET, key_id(key))]

    play(story)


def test_an_issuer_that_a_founder_certified_enrols_too(play, authority, desk, ticket):
    issuer = authority.member("issuer")
    desk.member = issuer
    desk.grant = lambda key: authority.certify(key, by=issuer)

    async def story(streams):
        enrolled = await enrol(streams, ticket, new_key())
        assert read_chain(enrolled.chain).issuers == (issuer.peer_id,)

    play(story)


@pytest.mark.parametrize("kind", ["unknown", "used", "expired", "revoked", "role"])
def test_a_refusal_arrives_with_its_kind_and_its_words(play, desk, ticket, kind):
    desk.denial = Denied(kind, "the words for a person")

    async def story(streams):
        with pytest.raises(Denied, match="the words for a person") as denied:
            await enrol(streams, ticket, new_key())
        assert denied.value.kind == kind

    play(story)


def test_the_secret_is_not_said_to_who_shows_another_authority(play, desk, ticket, other):
    desk.authority = other.certificate

    async def story(streams):
        with pytest.raises(Denied, match=f"{DESK} is not of the ticket's network") as denied:
            await enrol(streams, ticket, new_key())
        assert denied.value.kind == "authority"

    play(story)
    assert desk.asked == []


@pytest.mark.parametrize("shown", [b"", b"nonsense", bytes(1000)])
def test_the_secret_is_not_said_to_who_shows_no_authority(play, desk, ticket, shown):
    desk.authority = shown

    async def story(streams):
        with pytest.raises(Denied, match="not of the ticket's network"):
            await enrol(streams, ticket, new_key())

    play(story)
    assert desk.asked == []


def test_the_secret_is_not_said_to_who_borrows_the_right_authority(play, desk, ticket, other):
    """It shows the ticket's authority, which is no secret, and cannot prove to be certified."""
    desk.member = other.member("founder")

    async def story(streams):
        with pytest.raises(Unreachable, match="that peer's certificate is not of this network"):
            await enrol(streams, ticket, new_key())

    play(story)
    assert desk.asked == []


def test_the_other_addresses_are_tried_and_all_failures_named(play, desk, ticket):
    async def story(streams):
        both = dataclasses.replace(ticket, addresses=("wss://gone:1", DESK))
        assert (await enrol(streams, both, new_key())).chain
        nobody = dataclasses.replace(ticket, addresses=("wss://gone:1", "wss://away:1"))
        with pytest.raises(Unreachable) as failed:
            await enrol(streams, nobody, new_key())
        assert "wss://gone:1: connection refused" in str(failed.value)
        assert "wss://away:1: connection refused" in str(failed.value)

    play(story)


def test_who_does_not_answer_is_given_up_in_time(play, ticket):
    async def silent(stream):
        await trio.sleep_forever()

    async def story(streams):
        streams.serving[DESK] = silent
        began = trio.current_time()
        with pytest.raises(Unreachable, match="in time"):
            await enrol(streams, ticket, new_key())
        assert trio.current_time() - began <= LIMIT_S

    play(story)


def test_a_certificate_for_another_key_is_not_taken(play, authority, desk, ticket):
    desk.grant = lambda key: authority.certify(new_key().public_key())

    async def story(streams):
        with pytest.raises(Unreachable, match="gave a certificate for another key"):
            await enrol(streams, ticket, new_key())

    play(story)


def test_a_certificate_of_another_authority_is_not_taken(play, other, desk, ticket):
    desk.grant = lambda key: other.certify(key)

    async def story(streams):
        with pytest.raises(Unreachable, match="gave a useless certificate"):
            await enrol(streams, ticket, new_key())

    play(story)


# Renewing.


async def renew(streams, member, authority, *, at=DESK, key=None, revocation=None):
    """What the desk gives a member for its own key, or another."""
    return await enrolment.renew(
        Tls(streams, member.contexts),
        at,
        chain=member.chain,
        key=key or member.key,
        authority=authority.certificate,
        revocation=revocation,
    )


@pytest.mark.parametrize("by", ["the authority", "an issuer"])
def test_a_member_renews_for_its_own_key_or_a_new_one(play, authority, desk, by):
    member = authority.member(by=authority.member("issuer") if by == "an issuer" else None)
    notary = Signing(member.key, member.chain, authority.certificate)
    out = notary.revocation(member.peer_id, "a new key")

    async def story(streams):
        for key, gives_up in ((member.key, None), (new_key(), out)):
            chain = await renew(streams, member, authority, key=key, revocation=gives_up)
            assert read_chain(chain).peer_id == key_id(key)
            assert desk.asked[-1] == (member.chain, key_id(key), gives_up)

    play(story)


def test_a_renewal_that_is_refused_or_not_answered_says_why(play, authority, desk):
    member = authority.member()

    async def story(streams):
        with pytest.raises(Unreachable, match="wss://gone:1: connection refused"):
            await renew(streams, member, authority, at="wss://gone:1")
        desk.denial = Denied("revoked", "this peer was revoked")
        with pytest.raises(Denied, match="this peer was revoked"):
            await renew(streams, member, authority)

    play(story)


def test_a_chain_that_the_office_does_not_believe_is_refused_with_words(play, authority, desk):
    desk.denial = BadCertificate("foreign", "an issuer appointed by an issuer")

    async def story(streams):
        with pytest.raises(Denied, match="an issuer appointed by an issuer") as denied:
            await renew(streams, authority.member(), authority)
        assert denied.value.kind == "malformed"

    play(story)


def test_nobody_renews_by_somebody_elses_chain(play, authority, desk):
    member, other = authority.member(), authority.member()

    async def story(streams):
        mixed = dataclasses.replace(member, chain=other.chain)
        with pytest.raises(Unreachable, match=DESK):
            await renew(streams, mixed, authority)

    play(story)
    assert desk.asked == []
    assert [str(error) for error in desk.ended] == ["spoke out of turn"]


def test_who_has_no_certificate_cannot_renew(play, authority, desk):
    chain = authority.member().chain

    async def story(streams):
        async with caller(streams, stranger(authority.certificate)) as socket:
            await socket.send(ENROL.encode(Renew(chain, request(new_key()), None)))
            assert await said(socket) == []

    play(story)
    assert desk.asked == []
    assert [str(error) for error in desk.ended] == ["spoke out of turn"]


# What strangers say.


def test_one_connection_is_one_application(play, authority, desk):
    async def story(streams):
        async with caller(streams, stranger(authority.certificate)) as socket:
            apply = ENROL.encode(Apply(SECRET, request(new_key())))
            await socket.send(apply)
            await socket.send(apply)
            (answer,) = await said(socket)
            assert isinstance(answer, Granted)

    play(story)
    assert len(desk.asked) == 1


@pytest.mark.parametrize("der", [b"", b"x", bytes(2000), random.Random(3).randbytes(300)])
def test_a_request_that_is_none_is_refused_with_words(play, authority, desk, der):
    async def story(streams):
        async with caller(streams, stranger(authority.certificate)) as socket:
            await socket.send(ENROL.encode(Apply(SECRET, der)))
            (answer,) = await said(socket)
            assert isinstance(answer, Refused)
            assert (answer.kind, "no signing request" in answer.reason) == ("malformed", True)

    play(story)
    assert desk.asked == []


def test_a_request_whose_signature_was_changed_is_refused(play, authority, desk):
    der = bytearray(request(new_key()))
    der[-1] ^= 1

    async def story(streams):
        async with caller(streams, stranger(authority.certificate)) as socket:
            await socket.send(ENROL.encode(Apply(SECRET, bytes(der))))
            (answer,) = await said(socket)
            assert answer.kind == "malformed"

    play(story)
    assert desk.asked == []


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\xc1",
        random.Random(4).randbytes(1000),
        ENROL.encode(Granted((b"x",))),
        ENROL.encode(Refused("used", "no")),
        ENROL.encode(enrolment.Authority(b"mine")),
        bytes(enrolment.MAX_ENROL_BYTES + 1),
    ],
)
def test_nonsense_ends_the_connection_without_an_answer(play, authority, desk, nonsense):
    async def story(streams):
        async with caller(streams, stranger(authority.certificate)) as socket:
            await socket.send(nonsense)
            assert await said(socket) == []

    play(story)
    assert desk.asked == []
    assert len(desk.ended) == 1


def test_a_member_that_answers_nonsense_is_passed_over(play, authority, desk, ticket):
    def answering(message):
        async def serve(stream):
            try:
                line = await shake_hands(stream, desk.member.contexts.server, server_side=True)
                async with open_server(
                    line.stream, paths=(ENROL_PATH,), max_message_bytes=enrolment.MAX_ENROL_BYTES
                ) as socket:
                    await socket.send(ENROL.encode(enrolment.Authority(authority.certificate)))
                    await socket.receive()
                    await socket.send(message)
                    await socket.receive()
            except ConnectionLost:
                pass

        return serve

    async def story(streams):
        for message in (b"", b"\xc1", ENROL.encode(enrolment.Authority(b"x")), bytes(50_000)):
            streams.serving[DESK] = answering(message)
            with pytest.raises(Unreachable, match=DESK):
                await enrol(streams, ticket, new_key())

    play(story)


def test_the_secret_is_not_shown(ticket):
    assert "secret" not in repr(Apply(SECRET, b"request"))
    with pytest.raises(ValueError, match="secret of the wrong form") as caught:
        Apply(b"too short, and said to nobody", b"")
    assert "too short" not in str(caught.value)
