"""Who proves what to whom: handshakes in memory, and overlays that link over TLS on loopback."""

import logging
import random
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from overlay import tls
from overlay.addresses import split_address
from overlay.driver import JoinFailed, open_overlay
from overlay.identity import short
from overlay.notary import Signing
from overlay.profile import PROFILES
from overlay.records import Member, Record, State
from overlay.tls import Tls, shake_hands, stranger
from overlay.transfer import FetchFailed
from overlay.transport import HANDSHAKE_S, HandshakeFailed, Tcp, open_client
from overlay.wire import CONTROL_PATH, DATA_PATH, ENROL_PATH, MAX_CONTROL_BYTES
from tests.overlay.authorities import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path):
    return Authority(tmp_path / "other")


async def both(client, server):
    """What a handshake gives each end: a Line, or the HandshakeFailed; bytes crossed both ways."""
    near, far = trio.testing.memory_stream_pair()
    ends = {}

    async def shake(name, stream, context, *, server_side):
        try:
            line = await shake_hands(stream, context, server_side=server_side)
            await line.stream.send_all(b"hello")
            if await line.stream.receive_some() != b"hello":
                # The other side turned this one away after this one's part of the handshake.
                raise HandshakeFailed("closed")
            assert line.stream.version() == "TLSv1.3"
            assert line.stream.session_reused is False
            ends[name] = line
        except HandshakeFailed as error:
            ends[name] = error
        except trio.BrokenResourceError:
            ends[name] = HandshakeFailed("closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: shake("client", near, client, server_side=False))
        nursery.start_soon(lambda: shake("server", far, server, server_side=True))
    return ends["client"], ends["server"]


def test_both_ends_prove_their_ids_under_tls_1_3(run, authority):
    one, two = authority.member(), authority.member("issuer")

    async def main():
        here, there = await both(one.contexts.client, two.contexts.server)
        assert (here.peer_id, there.peer_id) == (two.peer_id, one.peer_id)
        assert (here.certificate, there.certificate) == (two.chain[0], one.chain[0])

    run(main)


def test_a_member_that_an_issuer_certified_proves_itself_with_its_chain(run, authority):
    issuer = authority.member("issuer")
    one, two = authority.member(by=issuer), authority.member(by=issuer)

    async def main():
        here, there = await both(one.contexts.client, two.contexts.server)
        assert (here.peer_id, there.peer_id) == (two.peer_id, one.peer_id)

    run(main)


def test_who_shows_no_certificate_is_nobody(run, authority):
    two = authority.member()

    async def main():
        here, there = await both(stranger(authority.certificate), two.contexts.server)
        assert here.peer_id == two.peer_id
        assert (there.peer_id, there.certificate) == ("", b"")

    run(main)


def test_a_certificate_of_another_authority_ends_the_handshake_on_either_side(
    run, authority, other
):
    ours, theirs = authority.member(), other.member()

    async def main():
        here, _ = await both(ours.contexts.client, theirs.contexts.server)
        assert isinstance(here, HandshakeFailed)
        assert "that peer's certificate is not of this network" in str(here)
        # Who trusts any server, and shows a certificate of another network.
        theirs.contexts.client.verify_mode = tls.ssl.CERT_NONE
        here, there = await both(theirs.contexts.client, ours.contexts.server)
        assert isinstance(there, HandshakeFailed)
        assert "that peer's certificate is not of this network" in str(there)
        assert isinstance(here, HandshakeFailed)

    run(main)


def test_an_expired_certificate_ends_the_handshake_with_words(run, authority):
    late, fresh = authority.member(lifetime_s=-10), authority.member()

    async def main():
        here, _ = await both(fresh.contexts.client, late.contexts.server)
        assert str(here) == "that peer's certificate has expired"
        _, there = await both(late.contexts.client, fresh.contexts.server)
        assert str(there) == "that peer's certificate has expired"

    run(main)


def test_a_member_that_may_not_certify_makes_nobody_a_member(run, authority):
    member, fresh = authority.member(), authority.member()
    made = authority.member(by=member)

    async def main():
        here, _ = await both(fresh.contexts.client, made.contexts.server)
        assert isinstance(here, HandshakeFailed)
        _, there = await both(made.contexts.client, fresh.contexts.server)
        assert isinstance(there, HandshakeFailed)

    run(main)


@pytest.mark.parametrize("server_side", [False, True])
def test_a_handshake_ends_in_time_whatever_the_other_side_does(run, authority, server_side):
    one = authority.member().contexts
    context = one.server if server_side else one.client

    async def main():
        near, far = trio.testing.memory_stream_pair()
        with pytest.raises(HandshakeFailed, match="no TLS handshake in time"):
            await shake_hands(near, context, server_side=server_side)
        assert trio.current_time() == HANDSHAKE_S
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
        with pytest.raises(HandshakeFailed):
            await shake_hands(near, context, server_side=server_side)
        near, far = trio.testing.memory_stream_pair()
        await far.aclose()
        with pytest.raises(HandshakeFailed, match=r"broke off the TLS handshake|unexpected eof"):
            await shake_hands(near, context, server_side=server_side)

    run(main)


# Overlays on loopback.


class Quiet:
    """The room above, which writes down what happens."""

    def __init__(self):
        self.reports = []

    def report(self, kind, data):
        self.reports.append((kind, data))

    def note(self, peer, body):
        pass

    def linked(self, peer):
        pass

    def network_adopted(self, network_id):
        pass

    async def provide(self, peer, want):
        raise FetchFailed("there is nothing here")


@asynccontextmanager
async def peer(authority, owner, *, remembered=(), office=None):
    """An overlay of `owner`, and what its room heard."""
    heard = Quiet()
    async with open_overlay(
        Record(owner.peer_id, "somebody", (), 1, False, -1),
        network_id=authority.network,
        listen="127.0.0.1:0",
        advertise=(),
        network=Tls(Tcp(loopback_only=True), owner.contexts),
        profile=PROFILES["local"],
        listener=heard,
        may_adopt=lambda: False,
        rng=random.Random(1),
        remembered=remembered,
        notary=Signing(owner.key, owner.chain, authority.certificate),
        office=office,
    ) as overlay:
        overlay.heard = heard
        yield overlay


async def until(condition, limit_s=8.0):
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 — of any part
            await trio.sleep(0.01)


def test_members_link_over_tls_and_know_each_other(run, authority):
    one, two = authority.member("founder"), authority.member()

    async def main():
        async with peer(authority, one) as first, peer(authority, two) as second:
            assert first.address.startswith("wss://127.0.0.1:")
            assert await second.join(first.address) == one.peer_id
            ids = {one.peer_id, two.peer_id}
            await until(lambda: all(
                {r.peer_id for r in p.machine.table.live()} == ids for p in (first, second)
            ))  # fmt: skip
            assert first.links.keys() == {two.peer_id}

    run(main, jump=False, limit_s=20)


def test_a_member_of_another_network_gets_no_link_and_is_told_why(run, authority, other):
    one, two = authority.member("founder"), other.member("founder")

    async def main():
        async with peer(authority, one) as first, peer(other, two) as second:
            with pytest.raises(JoinFailed, match="not of this network") as failure:
                await second.join(first.address)
            assert failure.value.kind == "unreachable"
            assert not first.links

    run(main, jump=False, limit_s=20)


def test_who_has_no_certificate_reaches_neither_control_nor_data(run, authority):
    one = authority.member("founder")

    async def ask(address, path):
        host, port = split_address(address)
        stream = await trio.open_tcp_stream(host, port)
        line = await shake_hands(stream, stranger(authority.certificate), server_side=False)
        async with open_client(
            line.stream, host="x", path=path, max_message_bytes=MAX_CONTROL_BYTES
        ):
            pass

    async def main():
        async with peer(authority, one) as first:
            for path in (CONTROL_PATH, DATA_PATH, ENROL_PATH, "/"):
                with pytest.raises(HandshakeFailed, match=r"404|reject"):
                    await ask(first.address, path)
        async with peer(authority, one, office=object()) as issuer:
            for path in (CONTROL_PATH, DATA_PATH, "/"):
                with pytest.raises(HandshakeFailed, match=r"404|reject"):
                    await ask(issuer.address, path)

    run(main, jump=False, limit_s=20)


def test_who_answers_under_another_id_than_was_dialled_is_no_neighbour(run, authority, caplog):
    caplog.set_level(logging.DEBUG, "gossipd.overlay")
    one, two, away = authority.member("founder"), authority.member(), authority.member()

    async def main():
        async with peer(authority, two) as second:
            notary = Signing(away.key, away.chain, authority.certificate)
            record = notary.record(Record(away.peer_id, "a", (second.address,), 1, False, -1))
            known = [Member(record, State.ALIVE)]
            async with peer(authority, one, remembered=known) as first:
                words = f"{short(two.peer_id)} answers there, another peer"
                await until(lambda: words in caplog.text)
                assert not first.links

    run(main, jump=False, limit_s=20)
