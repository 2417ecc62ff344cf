"""Attacks on the peer port of real daemons, by strangers and by members. Each ends with: the
daemons serve, believe in each other, hold their links and little memory, and met no bug."""

import itertools
import secrets
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import msgpack
import pytest
import trio

from benchmarks.processes import rss_mb
from cli.local_peers import local_peer, wait_until
from overlay import tls
from overlay.enrolment import ENROL, Authority, Denied, Renew, enrol
from overlay.certificates import request
from overlay.keys import new_key
from overlay.membership import MAX_HEARD_INCARNATION
from overlay.notary import seal
from overlay.records import Fate, State, Vote
from overlay.revocation import Revocation
from overlay.tickets import read_ticket, write_ticket
from overlay.transport import Tcp, split_address
from overlay.wire import (
    CONTROL_PATH,
    DATA_PATH,
    ENROL_PATH,
    DataHello,
    Evidence,
    News,
    Note,
    Revoked,
    SyncPage,
)
from tests.system.attacker import (
    Attacker,
    Cut,
    Refused,
    Rejected,
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
        return self.folder / f"mallory{next(self._numbers)}"

    async def member(self, **more):
        return self.note(await enrolled(self.new_folder(), self.founder.ticket, **more))

    def note(self, member):
        """One more who will have to go."""
        self._members.append(member)
        return member

    async def _bury(self):
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

    def assert_unharmed(self, growth_mb=GROWTH_MB):
        trio.run(self._bury)
        wait_until(self.is_well, HEALED_S, "the honest are alive to each other, and linked")
        assert_sound(self.peers)
        honest = {peer.name for peer in self.peers}
        assert not declared_dead(self.peers, since=self.began) & honest
        for peer in self.peers:
            assert rss_mb(peer.process.pid) - self._rss_mb[peer.name] < growth_mb


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    with open_swarm(tmp_path_factory.mktemp("a")) as swarm:
        swarm.found(4)
        yield swarm


@pytest.fixture
def web(daemons, tmp_path):
    web = Web([daemons[f"p{number}"] for number in range(4)], tmp_path)
    yield web
    web.assert_unharmed()


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
        await line.send(ENROL.encode(Renew(request(new_key()))))
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
        await line.send(ENROL.encode(Renew(request(new_key()))))
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
        await until(lambda: all(mallory.id in standing(p) for p in web.peers), 5, "it is a member")
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


# Floods.


async def flood(mallory, address, message, *, seconds, per_second=10_000):
    """Pour messages on whatever link there is to be had; how many went out, and what was said."""
    batch, told, sent = frame(message) * (per_second // 20), [], 0
    with trio.move_on_after(seconds):
        while True:
            with suppress(Cut):
                try:
                    async with mallory.linked(address) as link:
                        with suppress(Cut):
                            while not link.ended.is_set():
                                await link.line.pour(batch)
                                sent += per_second // 20
                                await trio.sleep(0.05)
                        told.append(await link.until_cut())
                except Refused as refused:
                    told.append(str(refused))
            await trio.sleep(0.05)
    return sent, told
