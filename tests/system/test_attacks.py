"""Attacks on the peer port of real daemons, by strangers and by members. Each ends with: the
daemons serve, believe in each other, hold their links and little memory, and met no bug."""

import itertools
import secrets
import socket
import ssl
import subprocess
import sys
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace

import pytest
import trio

from benchmarks.processes import rss_mb
from cli.local_peers import local_peer, wait_until
from daemon.authorship import PURPOSE
from daemon.notes import NOTES, JobOffer, JobRequest, Proof
from learner.job import Job
from overlay import tls
from overlay.certificates import request
from overlay.digests import BUCKETS
from overlay.enrolment import ENROL, Authority, Denied, Renew, enrol
from overlay.keys import new_key
from overlay.membership import MAX_HEARD_INCARNATION
from overlay.notary import seal
from overlay.records import Fate, State, Vote
from overlay.revocation import Revocation
from overlay.tickets import read_ticket, write_ticket
from overlay.transport import Tcp
from overlay.wire import (
    CONTROL,
    CONTROL_PATH,
    DATA_PATH,
    ENROL_PATH,
    Evidence,
    Heartbeat,
    News,
    Note,
    Revoked,
    SyncPage,
    SyncRequest,
)
from tests.system.attacker import (
    Cut,
    Refused,
    Rejected,
    Saboteur,
    certified_by,
    enrolled,
    frame,
    of_another_network,
    on_trio,
    open_line,
    open_tcp,
    open_tls,
    sign_as,
    until,
    upgrade,
)
from tests.system.swarm import (
    assert_sound,
    declared_dead,
    incarnation,
    is_whole,
    links,
    open_swarm,
    standing,
)

GROWTH_MB = 30
HEALED_S = 10.0


class Web:
    """Daemons under attack, and what an attacker needs."""

    def __init__(self, peers, folder):
        self.peers = peers
        self.folder = folder
        self.founder = peers[0]
        self.ids = {peer.peer_id for peer in peers}
        self.began = time.time()
        self._rss_mb = {peer.name: rss_mb(peer.process.pid) for peer in peers}
        self._numbers = itertools.count()
        self._members = []

    def new_folder(self):
        folder = self.folder / f"mallory{next(self._numbers)}"
        folder.mkdir()
        return folder

    async def member(self, **more):
        return self.note(await enrolled(self.new_folder(), self.founder.ticket, **more))

    def note(self, member):
        """One more who will have to go."""
        self._members.append(member)
        return member

    async def bury(self):
        """The attackers say goodbye, for the next test wants the graph to itself: through one that
        is not refused yet."""
        fates = [Fate(m.id, 100, State.LEFT, m.notary.goodbye(100)) for m in self._members]
        last = await enrolled(self.new_folder(), self.founder.ticket)
        fates.append(Fate(last.id, 100, State.LEFT, last.notary.goodbye(100)))
        async with last.linked(self.founder.address) as link:
            await link.say(News((), tuple(fates), ()))
        await until(lambda: not standing(self.founder).keys() - self.ids, 5, "only we are left")

    def held(self, peer):
        """What a daemon believes of the honest ones."""
        return {p: state for p, (state, _) in standing(peer).items() if p in self.ids}

    def is_well(self):
        return all(
            self.held(peer) == dict.fromkeys(self.ids, "alive")
            and links(peer) >= self.ids - {peer.peer_id}
            for peer in self.peers
        )

    def assert_light(self):
        for peer in self.peers:
            assert rss_mb(peer.process.pid) - self._rss_mb[peer.name] < GROWTH_MB

    def assert_sound(self):
        assert_sound(self.peers)
        honest = {peer.name for peer in self.peers}
        assert not declared_dead(self.peers, since=self.began) & honest
        self.assert_light()


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    with open_swarm(tmp_path_factory.mktemp("a")) as swarm:
        swarm.found(4)
        yield swarm


@pytest.fixture
def web(daemons, tmp_path):
    web = Web([daemons[f"p{number}"] for number in range(4)], tmp_path)
    yield web
    trio.run(web.bury)
    wait_until(web.is_well, HEALED_S, "the honest are alive to each other, and linked")
    web.assert_sound()


# Certificates.


@on_trio()
async def test_without_a_certificate_only_enrolment_is_reached(web):
    address = web.founder.address
    stranger = tls.stranger(None)
    for path in (CONTROL_PATH, DATA_PATH, "/"):
        with pytest.raises(Rejected, match="404"):
            async with open_line(address, stranger, path):
                pass
    async with open_line(address, stranger, ENROL_PATH) as line:
        assert isinstance(ENROL.decode(await line.receive()), Authority)
        # Not even there for what only a member may ask.
        await line.send(ENROL.encode(Renew((b"none",), request(new_key()), None)))
        await line.until_cut()
    for path in (CONTROL_PATH, ENROL_PATH):  # no TLS at all
        with pytest.raises(Cut):
            async with open_line(address, None, path):
                pass


@on_trio()
async def test_a_certificate_of_another_authority_is_refused(web):
    other = of_another_network(web.new_folder())
    for peer in web.peers:
        with pytest.raises(Cut, match="another network"):
            async with other.linked(peer.address):
                pass


@on_trio()
async def test_an_expired_certificate_is_refused(web):
    late = certified_by(web.founder.data_dir, web.new_folder(), lifetime_s=-60)
    for peer in web.peers:
        with pytest.raises(Cut, match="expired"):
            async with late.linked(peer.address):
                pass
    in_time = web.note(certified_by(web.founder.data_dir, web.new_folder(), lifetime_s=60))
    async with in_time.linked(web.founder.address):
        pass


@on_trio()
async def test_a_revoked_peer_is_told_dropped_and_refused_everywhere(web):
    mallory = await web.member()
    first, *others = web.peers
    async with mallory.linked(others[0].address) as link:
        await until(lambda: mallory.id in standing(first), 5, "the founder knows the member")
        first.call("network.revoke", peer=mallory.id, reason="a test")
        assert await link.until_cut() == "revoked"
        assert [revocation.peer_id for revocation in link.revoked] == [mallory.id]
    for peer in web.peers:
        await until(lambda peer=peer: mallory.id not in standing(peer), 5, "all know")
        with pytest.raises(Refused, match="a test") as caught:
            async with mallory.linked(peer.address):
                pass
        assert caught.value.answer.kind == "revoked"
    async with mallory.open(first.address, ENROL_PATH) as line:
        await line.receive()
        await line.send(ENROL.encode(Renew(mallory.credentials.chain, request(new_key()), None)))
        assert ENROL.decode(await line.receive()).kind == "revoked"
    with pytest.raises(Denied) as denied:
        await enrol(Tcp(), read_ticket(first.ticket), mallory.credentials.key)
    assert denied.value.kind == "revoked"


@on_trio()
async def test_nobody_speaks_under_a_stolen_id(web):
    """With a right certificate and another key: somebody else's record is none of the speaker's."""
    mallory = await web.member()
    victim = web.peers[2]
    async with mallory.linked(web.founder.address) as link:
        (record,) = await link.learn(victim.peer_id)
    for stolen in (record, replace(record, chain=mallory.record().chain), sign_as(mallory, record)):
        async with mallory.open(web.founder.address) as line:
            await line.say(mallory.hello(record=stolen))
            with pytest.raises(Cut):
                await line.receive()
    renamed = sign_as(mallory, replace(mallory.record(), peer_id=victim.peer_id))
    async with mallory.open(web.founder.address) as line:
        await line.say(mallory.hello(record=renamed))
        with pytest.raises(Cut):
            await line.receive()


@on_trio()
async def test_a_data_link_belongs_to_whoever_holds_its_control_link(web):
    owner, thief = await web.member(), await web.member()
    address = web.founder.address
    async with owner.linked(address) as link:
        with pytest.raises(Cut):
            async with thief.data_link(address, link.hello.link_id):
                pass
        with pytest.raises(Cut):
            async with owner.data_link(address, secrets.token_bytes(16)):
                pass
        async with owner.data_link(address, link.hello.link_id):
            assert not link.ended.is_set()


# Tickets.


@on_trio()
async def test_a_used_ticket_lets_nobody_else_in(web):
    ticket = read_ticket(web.founder.call("network.invite", uses=1)["ticket"])
    key = new_key()
    await enrol(Tcp(), ticket, key)
    await enrol(Tcp(), ticket, key)  # the same key, should the answer have been lost
    with pytest.raises(Denied, match="used already") as denied:
        await enrol(Tcp(), ticket, new_key())
    assert denied.value.kind == "used"


@on_trio()
async def test_an_altered_ticket_is_refused(web):
    text = web.founder.call("network.invite")["ticket"]
    whole = read_ticket(text)
    for place in range(len("gossipd-ticket-"), len(text), 7):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(ValueError, match="damaged"):
            read_ticket(text[:place] + other + text[place + 1 :])
    guessed = bytes([whole.secret[0] ^ 1]) + whole.secret[1:]
    elsewhere = of_another_network(web.new_folder()).credentials.network
    # Mended by somebody who knows how tickets are made.
    for changes, kind in (
        ({"secret": guessed}, "unknown"),
        ({"network": elsewhere}, "authority"),
        ({"addresses": (web.peers[1].address,)}, "unknown"),
        ({"addresses": (web.peers[2].address,)}, "role"),
    ):
        altered = read_ticket(write_ticket(replace(whole, **changes)))
        with pytest.raises(Denied) as denied:
            await enrol(Tcp(), altered, new_key())
        assert denied.value.kind == kind


@on_trio()
async def test_an_expired_ticket_is_refused_whatever_it_says_itself(web):
    short = read_ticket(web.founder.call("network.invite", ttl_s=1.0)["ticket"])
    await until(lambda: time.time() >= short.expires_at, 3, "it has expired")
    for ticket in (short, replace(short, expires_at=short.expires_at + 3600)):
        with pytest.raises(Denied) as denied:
            await enrol(Tcp(), ticket, new_key())
        assert denied.value.kind == "expired"


def test_a_daemon_with_a_damaged_ticket_says_so_and_does_not_start(web):
    text = web.founder.ticket
    damaged = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]
    command = [sys.executable, "-m", "cli.gossipd", "start", "--no-learner"]
    command += ["--data-dir", str(web.new_folder()), "--join", damaged]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "ticket is damaged" in done.stderr
    assert damaged not in done.stderr


# Words in another's name.


def forgeries(mallory, victim):
    """(what it is, the message, what the daemon says), all about `victim` (a record)."""
    mine, notary = mallory.record(incarnation=9), mallory.notary
    newer = replace(victim, incarnation=victim.incarnation + 1)
    vote = Vote(victim.peer_id, 1, True, bytes(64))
    out = Revocation(victim.peer_id, int(time.time()), "", (), bytes(64))
    yield "no signature", News((replace(mine, signature=b""),), (), ()), "not its own word"
    yield "wrong signature", News((replace(mine, signature=bytes(64)),), (), ()), "not its own word"
    yield "another's, changed", News((newer,), (), ()), "not its own word"
    yield "another's, renamed", News((replace(newer, name="x"),), (), ()), "not its own word"
    yield "another's, signed by me", News((sign_as(mallory, newer),), (), ()), "not its own word"
    yield (
        "another's, with my chain",
        News((sign_as(mallory, replace(newer, chain=mine.chain)),), (), ()),
        "not its own word",
    )
    yield "without a chain", News((replace(newer, chain=()),), (), ()), "one or two certificates"
    yield "a table", SyncPage((newer,), ()), "not its own word"
    yield (
        "a goodbye",
        News((), (Fate(victim.peer_id, victim.incarnation, State.LEFT, (vote,)),), ()),
        "did not say",
    )
    yield (
        "a goodbye that I signed",
        News((), (Fate(victim.peer_id, victim.incarnation, State.LEFT, notary.goodbye(1)),), ()),
        "did not say",
    )
    yield (
        "a death with another's vote",
        News((), (Fate(mallory.id, 1, State.DEAD, (vote,)),), ()),
        "did not give",
    )
    yield (
        "another's testimony",
        News((), (), (Evidence(mallory.id, 1, victim.peer_id, True, bytes(64)),)),
        "did not give",
    )
    yield (
        "a revocation as a fate",
        News((), (Fate(victim.peer_id, victim.incarnation, State.REVOKED),), ()),
        "nobody signed",
    )
    yield "a revocation", Revoked((out,)), "by nobody who may"
    mine_out = seal(out, mallory.credentials.key, notary.network, chain=notary.chain)
    yield "a revocation by a member", Revoked((mine_out,)), "by nobody who may"


@on_trio()
async def test_a_forged_word_costs_the_link_and_changes_nothing(web):
    victim = web.peers[2]
    before = {peer.name: incarnation(peer, victim) for peer in web.peers}
    mallory = await web.member()
    async with mallory.linked(web.founder.address) as link:
        (record,) = await link.learn(victim.peer_id)
    kinds = [kind for kind, _, _ in forgeries(mallory, record)]
    for number, kind in enumerate(kinds):
        mallory = await web.member()  # a new one, for the last is refused for a while
        _, message, reason = list(forgeries(mallory, record))[number]
        async with mallory.linked(web.founder.address) as link:
            await link.say(message)
            assert reason in await link.until_cut(), kind
        with pytest.raises(Refused, match="broke a limit"):
            async with mallory.linked(web.founder.address):
                pass
    told = [event["data"]["peer"] for event in web.founder.events("peer.misbehaved")]
    assert len(set(told)) >= len(kinds)
    assert {peer.name: incarnation(peer, victim) for peer in web.peers} == before


@on_trio()
async def test_a_replayed_record_is_no_news(web):
    """The record of an earlier life, true and signed, takes nobody back."""
    mallory = await web.member()
    victim = web.peers[2]
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(mallory.linked(p.address)) for p in web.peers]
        (old,) = await held[0].learn(victim.peer_id)
        doubt = Fate(victim.peer_id, old.incarnation, State.SUSPECT)
        await held[0].say(News((), (doubt,), ()))
        await until(
            lambda: all(incarnation(p, victim) > old.incarnation for p in web.peers),
            5, "the victim has risen above a doubt",
        )  # fmt: skip
        risen = incarnation(web.founder, victim)
        for _ in range(20):
            for link in held:
                await link.say(News((old,), (doubt,), ()))
                await link.say(SyncPage((old,), (doubt,)))
            await trio.sleep(0.02)
            assert all(incarnation(p, victim) >= risen for p in web.peers)
        assert not any(link.ended.is_set() for link in held)  # an old word is nobody's crime
    assert all(web.held(p)[victim.peer_id] == "alive" for p in web.peers)


@on_trio()
async def test_what_was_said_in_another_network_does_not_count_in_this_one(web):
    mallory = await web.member()
    other = of_another_network(web.new_folder())
    stranger = other.record()
    async with mallory.linked(web.founder.address) as link:
        await link.say(News((stranger,), (), ()))
        assert "another network" in await link.until_cut()
    # The same key in both networks: its word there, under its certificate of here.
    mallory = await web.member()
    there = other.notary
    there.__init__(mallory.credentials.key, mallory.credentials.chain, other.credentials.authority)
    async with mallory.linked(web.founder.address) as link:
        await link.say(News((there.record(mallory.record(incarnation=5)),), (), ()))
        assert "not its own word" in await link.until_cut()
    mallory = await web.member()
    with pytest.raises(Refused) as refused:
        async with mallory.linked(web.founder.address, network=other.credentials.network):
            pass
    assert refused.value.answer.kind == "network"
    for peer in web.peers:
        assert other.id not in standing(peer)


# Lies about others.


async def lie_about(web, mallory, victim, held, seconds):
    """Signed hard testimony and verdicts, and tables that hold them, on every link over and over,
    always about the life that the victim lives now."""
    ends = trio.current_time() + seconds
    for number in itertools.count():
        if trio.current_time() >= ends:
            return number
        now = max(link.records[victim.peer_id].incarnation for link in held)
        for ahead in (0, 1):  # the next life too, in advance
            signature = mallory.notary.testimony(victim.peer_id, now + ahead, True)
            testimony = Evidence(victim.peer_id, now + ahead, mallory.id, True, signature)
            vote = testimony.vote
            fates = tuple(
                Fate(victim.peer_id, now + ahead, State.DEAD, votes)
                for votes in ((vote,), (vote,) * 6)
            )
            for link in held:
                await link.say(News((), fates, (testimony,)))
                await link.say(SyncPage((), fates))
        await trio.sleep(0.05)
    raise AssertionError


@on_trio()
async def test_a_single_lying_observer_evicts_nobody(web):
    mallory = await web.member()
    victim = web.peers[2]
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(mallory.linked(p.address)) for p in web.peers]
        await until(lambda: all(mallory.id in standing(p) for p in web.peers), 20, "it is a member")
        for link in held:
            await link.learn(victim.peer_id)
        lies = await lie_about(web, mallory, victim, held, 5)
        assert lies > 20
        assert not any(link.ended.is_set() for link in held), [link.reason for link in held]
        for peer in web.peers:
            assert web.held(peer)[victim.peer_id] in ("alive", "suspect")
    assert victim.name not in declared_dead(web.peers, since=web.began)


@on_trio(40)
async def test_a_lie_about_a_life_far_ahead_does_not_lock_a_member_out(web, daemons):
    """A member rises above every doubt, up to a bound, and nobody believes what is beyond: a doubt
    at the bound must not take it there."""
    mallory = await web.member()
    victim = web.peers[3]
    before = incarnation(web.founder, victim)
    last = MAX_HEARD_INCARNATION - 1
    signature = mallory.notary.testimony(victim.peer_id, last, True)
    evidence = Evidence(victim.peer_id, last, mallory.id, True, signature)
    fates = tuple(
        Fate(victim.peer_id, last, state, (evidence.vote,)) for state in (State.SUSPECT, State.DEAD)
    )
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(mallory.linked(p.address)) for p in web.peers]
        for link in held:
            await link.learn(victim.peer_id)
        for _ in range(10):
            for link, fate in itertools.product(held, fates):
                await link.say(News((), (fate,), (evidence,)))
                await link.say(SyncPage((), (fate,)))
            await trio.sleep(0.05)
    for peer in web.peers:
        assert incarnation(peer, victim) < before + 100


# Nonsense.


def nested(size_bytes):
    """Lists within lists, one byte a level."""
    return b"\x91" * (size_bytes - 1) + b"\x90"


BOMBS = {
    "nested lists of 1 MiB": frame(nested(2**20)),
    "nested lists, as long as allowed": frame(nested(60_000)),
    "wide lists": frame(b"\xdc\xff\xff" + b"\x90" * 60_000),
    "lists that claim 2^32 items": frame(b"\xdd\xff\xff\xff\xff" * 1000),
    "a map that claims 2^32 keys": frame(b"\xdf\xff\xff\xff\xff"),
    "bytes that claim 4 GiB": frame(b"\x92\xa4note\xc6\xff\xff\xff\xff"),
    "text that claims 4 GiB": frame(b"\x92\xdb\xff\xff\xff\xff"),
    "a frame that claims 1 TB": frame(b"\x92" * 2**20, claims=2**40),
    "a frame that claims 2^63": frame(b"\x92" * 2**20, claims=2**63 - 1),
    "fragments without an end": frame(bytes(1000), last=False)
    + frame(bytes(1000), opcode=0, last=False) * 6000,
    "empty fragments": frame(b"", last=False) + frame(b"", opcode=0, last=False) * 10**6,
    "pings": frame(b"", opcode=9) * 10**6,
    "text": frame(b"hello", opcode=1),
    "no frame at all": b"\xff" * 10_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@on_trio()
async def test_a_bomb_on_a_control_link_costs_that_link(web, bomb):
    mallory = await web.member()
    async with mallory.linked(web.founder.address) as link:
        with suppress(Cut):
            await link.line.pour(bomb)
        await link.until_cut()
    web.assert_light()


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@on_trio()
async def test_a_bomb_on_a_data_link_or_at_enrolment_costs_that_connection(web, bomb):
    mallory = await web.member()
    address = web.founder.address
    async with (
        mallory.linked(address) as link,
        mallory.data_link(address, link.hello.link_id) as data,
    ):
        await data.pour_until_cut(bomb)
    async with open_line(address, tls.stranger(None), ENROL_PATH) as line:
        await line.pour_until_cut(bomb)
    web.assert_light()


@on_trio()
async def test_greetings_out_of_turn_cost_the_connection(web):
    mallory = await web.member()
    address = web.founder.address
    async with mallory.open(address) as line:
        await line.say(Note(b"before the greeting"))
        await line.until_cut()
    async with mallory.open(address, DATA_PATH) as line:
        await line.send(b"\x90")
        await line.until_cut()
    async with mallory.linked(address) as link:
        await link.say(mallory.hello())
        assert "greeted twice" in await link.until_cut()
    mallory = await web.member()
    async with mallory.linked(address) as link:
        await link.say(Note(b"no note of ours"))
        assert "not a message" in await link.until_cut()


# Floods, of connections and of messages.


async def dribble(stream, data):
    """A byte now and then."""
    with suppress(trio.BrokenResourceError):
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.5)
        await trio.sleep_forever()


@on_trio(40)
async def test_while_200_connections_stall_an_honest_peer_joins(web, tmp_path_factory):
    address = web.founder.address
    hello = ssl_hello()
    folder = tmp_path_factory.mktemp("late")
    flags = ["--no-learner", "--profile", "local", "--join", web.founder.ticket]

    def join():
        began = time.monotonic()
        with local_peer("late", folder, flags) as late:
            wait_until(lambda: late.peer_id in standing(web.founder), 10, "the honest peer is in")
            took = time.monotonic() - began
            late.call("overlay.leave")
            return took

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(70):
            stream = await stack.enter_async_context(open_tcp(address))
            nursery.start_soon(dribble, stream, b"\x16")
        for _ in range(70):
            stream = await stack.enter_async_context(open_tcp(address))
            nursery.start_soon(dribble, stream, hello)
        for _ in range(60):
            with suppress(Cut):
                secure = await stack.enter_async_context(open_tls(address, tls.stranger(None)))
                nursery.start_soon(dribble, secure, upgrade(ENROL_PATH))
        took = await trio.to_thread.run_sync(join)
        assert took < 5
        nursery.cancel_scope.cancel()
    web.assert_light()


def ssl_hello():
    """The first message of a TLS handshake."""
    outgoing = ssl.MemoryBIO()
    half = tls.stranger(None).wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    return outgoing.read()


PER_SECOND = 10_000


async def flood(mallory, address, message, told, *, seconds):
    """Pour messages on whatever link there is to be had; what the daemon says goes to `told`."""
    batch = frame(CONTROL.encode(message)) * (PER_SECOND // 20)
    with trio.move_on_after(seconds):
        while True:
            with suppress(Cut):
                try:
                    async with mallory.linked(address) as link:
                        with suppress(Cut):
                            while not link.ended.is_set():
                                await link.line.pour(batch)
                                await trio.sleep(0.05)
                        told.append(await link.until_cut())
                except Refused as refused:
                    told.append(str(refused))
            await trio.sleep(0.05)


def hears_of_floods_only(told, kind):
    """Whether a flooder heard of nothing that it did not do. A reason can be lost with the bytes
    that were still under way; and a daemon that has too little of the processor to be told more
    than its limit holds the flood back, and with it the flooder's own beats."""
    why = (f"more than {kind} a second", "busy: you broke a limit")
    rest = ("silent", "not a neighbour", "duplicate: there is a link already", "")
    return all(words.startswith(why) or words in rest for words in told)


def takers(mallory, peers):
    """Those who take a link with a member, for the graph wants it; the first peer is left out, to
    which the member is linked already."""
    wanted = set()

    def is_placed():
        for one, other, _ in peers[0].call("overlay.topology")["edges_list"]:
            if mallory.id in (one, other):
                wanted.update((one, other))
        return wanted

    wait_until(is_placed, 5, "the member has a place in the graph")
    return [peer for peer in peers[1:] if peer.peer_id in wanted]


@on_trio(120)  # twenty start
async def test_twenty_stay_alive_and_linked_while_a_member_floods_10000_messages_a_second(
    tmp_path_factory, tmp_path
):
    with open_swarm(tmp_path_factory.mktemp("f")) as swarm, ExitStack() as stack:
        peers = await trio.to_thread.run_sync(lambda: swarm.found(20))
        web = Web(peers, tmp_path)
        mallory = await web.member()
        neighbours = {peer.name: links(peer) for peer in peers}
        kinds = {
            "50 Heartbeat": Heartbeat(1),
            "20 SyncRequest": SyncRequest((1,) * BUCKETS),
            "1000 Note": Note(NOTES.encode(JobRequest())),
            "200 News": News((), (), ()),
        }
        told = {kind: [] for kind in kinds}
        # Somewhere to look for it, or its neighbours would have it dead before it begins.
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        mallory.address = f"wss://127.0.0.1:{port}"
        async with mallory.linked(peers[0].address), trio.open_nursery() as nursery:
            victims = await trio.to_thread.run_sync(takers, mallory, peers)
            for peer, (kind, message) in zip(victims, kinds.items(), strict=False):
                nursery.start_soon(
                    lambda *a: flood(*a, seconds=4), mallory, peer.address, message, told[kind]
                )
        for kind, words in told.items():
            assert hears_of_floods_only(words, kind), (kind, words)
        assert any("you broke a limit" in word for words in told.values() for word in words), told
        for peer in peers:
            assert len(links(peer) & neighbours[peer.name]) >= 3
        await web.bury()
        wait_until(lambda: is_whole(peers), HEALED_S, "the graph is whole")
        web.assert_sound()


# Training.

JOB = """
name = "sabotaged"
seed = 3
[model]
name = "linear"
[partition]
parts = 4
[optimizer]
lr = 0.05
[training]
rounds = 100000
local_steps = 40
min_peers = 2
"""


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    (folder / "job.toml").write_text(JOB)
    flags = ["--profile", "local"]
    job = ["--job", str(folder / "job.toml")]
    with (
        local_peer("l0", folder / "l0", [*flags, *job]) as first,
        local_peer("l1", folder / "l1", [*flags, "--join", first.ticket]) as second,
    ):
        wait_until(lambda: round_of(first) > 2, 40, "training")
        yield first, second


def round_of(peer):
    return peer.call("train.status")["round"]


@pytest.fixture
def training(learners, tmp_path):
    web = Web(list(learners), tmp_path)
    yield web
    trio.run(web.bury)
    wait_until(web.is_well, HEALED_S, "the honest are alive to each other, and linked")
    web.assert_sound()


@on_trio(40)
async def test_rubbish_offered_as_a_round_is_refused_and_counted_and_rounds_go_on(training):
    """Offers of 2^40 - 1 bytes, of another layout, of an old round, and NaN."""
    victim, other = training.peers
    mallory = await training.member(learner=True)

    def refused():
        return victim.call("train.status")["trust"]["refused"].get(mallory.id, {})

    async with (
        mallory.linked(victim.address) as link,
        mallory.data_link(victim.address, link.hello.link_id) as data,
        trio.open_nursery() as nursery,
    ):
        saboteur = Saboteur(link, data, victim.peer_id)
        nursery.start_soon(saboteur.run)
        await until(
            lambda: set(refused()) == set(Saboteur.KINDS), 20, "every kind of rubbish is refused"
        )
        before = round_of(victim), round_of(other)
        await until(
            lambda: round_of(victim) > before[0] + 3 and round_of(other) > before[1] + 3,
            10, "rounds go on",
        )  # fmt: skip
        assert not link.ended.is_set(), link.reason
        assert set(refused()) == set(Saboteur.KINDS)
        nursery.cancel_scope.cancel()
    assert other.call("train.status")["trust"]["refused"] == {}
    for peer in training.peers:
        assert peer.call("train.status")["state"] == "training"


@on_trio(40)
async def test_rounds_go_on_while_a_member_floods(training):
    victim, other = training.peers
    mallory = await training.member()
    before, told = (round_of(victim), round_of(other)), []
    await flood(mallory, victim.address, Heartbeat(1), told, seconds=3)
    assert hears_of_floods_only(told, "50 Heartbeat")
    assert any("you broke a limit" in words for words in told)
    assert round_of(victim) > before[0] + 3
    assert round_of(other) > before[1] + 3


@on_trio(40)
async def test_a_plain_members_job_is_nobodys(training):
    victim = training.founder
    mallory = await training.member()
    text = Job(name="without robust rules").to_json()
    in_force = victim.call("job.show")["digest"]
    at = int(time.time())
    chain, signature = mallory.notary.word(PURPOSE, (99, text, at))
    async with mallory.linked(victim.address) as link:
        founders = link.welcome.record.chain
        for proof in (Proof(), Proof(at, chain, signature), Proof(at, founders, signature)):
            await link.say(Note(NOTES.encode(JobOffer(99, text, proof))))
        await until(lambda: len(victim.events("job.unauthorised")) == 3, 5, "it is reported")
    reasons = [event["data"]["reason"] for event in victim.events("job.unauthorised")]
    assert reasons[0].startswith("the author of this job: ")
    assert reasons[1].startswith(f"{mallory.id[:8]} is a plain member")
    assert reasons[2] == f"this job is not the word of {victim.peer_id[:8]}"
    for peer in training.peers:
        assert peer.call("job.show")["digest"] == in_force
        assert peer.call("train.status")["state"] == "training"
