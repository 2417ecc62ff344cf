"""Certificates that are renewed in time, whoever gives them, in virtual time."""

import datetime
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from daemon import renewal
from daemon.credentials import Credentials
from daemon.renewal import NotRenewed, due_at, issuers, keep_certificate, renew, rotate
from daemon.store import StoreFull
from overlay import certificates
from overlay.certificates import Certified, read_chain
from overlay.enrolment import Denied, Enrolled, Unreachable
from overlay.enrolment import renew as renew_at
from overlay.identity import new_id
from overlay.records import Record
from overlay.tls import Tls
from overlay.transport import Tcp

LIFETIME_S = 90.0


class Peer:
    """A node's part in it; `others` are (credentials, address), `answers` what issuers say."""

    def __init__(self, credentials):
        self.credentials = credentials
        self.notary = credentials.signing()
        self.transport = Tls(Tcp(), credentials.contexts())
        self.certificate_lock = trio.Lock()
        self.wants_restart = False
        self.revoked = set()
        self.is_revoked = self.revoked.__contains__
        self.reports, self.used, self.order = [], [], []
        self.session = SimpleNamespace(report=lambda kind, data: self.reports.append((kind, data)))
        self.records = [self.record(credentials, "wss://me:1")]
        table = SimpleNamespace(live=lambda: self.records, my_id=credentials.peer_id)
        self.overlay = SimpleNamespace(machine=SimpleNamespace(table=table), revoke=self.tell)
        self.keeper = SimpleNamespace(remember_revocations=self.remember)
        self.told, self.heard = [], []
        self.revocations = []
        self.full = False

    @staticmethod
    def record(credentials, *addresses):
        return Record(credentials.peer_id, "x", addresses, 1, True, -1, credentials.chain)

    async def remember(self, revocations):
        if self.full:
            raise StoreFull("no space left")
        self.revocations += revocations
        self.order.append("remembered")

    def tell(self, revocation):
        self.told.append(revocation)
        self.order.append("told")

    def inherited(self, author):
        return [heard for heard in self.heard if heard.author == author]

    def use_certificate(self):
        self.used.append(self.credentials.chain)

    def restart(self):
        self.wants_restart = True
        self.order.append("restarted")


@pytest.fixture
def certified(tmp_path):
    """certified(name, role, by=): a peer of one network, with a certificate of LIFETIME_S."""
    made = {}

    def make(name, role="member", *, by="founder"):
        (tmp_path / name).mkdir()
        credentials = made[name] = Credentials(tmp_path / name, lifetime_s=LIFETIME_S)
        if role == "founder":
            credentials.found()
            return Peer(credentials)
        if "founder" not in made:
            make("founder", "founder")
        founder = made["founder"]
        chain = made[by].certify(credentials.key.public_key(), role)
        credentials.take(Enrolled(founder.authority, chain))
        return Peer(credentials)

    make.made = made
    return make


@pytest.fixture
def asked(monkeypatch, certified):
    """The issuers' addresses that were asked; what they answer is in `asked.answers`, and what
    members gave up in `asked.given_up`."""

    class Asked(list):
        def __init__(self):
            super().__init__()
            self.answers, self.given_up = {}, []

    asked = Asked()

    async def fake(network, address, *, chain, key, authority, revocation=None):
        await trio.lowlevel.checkpoint()
        asked.append(address)
        if (error := asked.answers.get(address)) is not None:
            raise error
        asked.given_up.append(revocation)
        return certified.made["founder"].certify(key.public_key(), "member")

    monkeypatch.setattr(renewal.enrolment, "renew", fake)
    return asked


@pytest.fixture
def wall(monkeypatch, clock):
    """The wall clock goes with the virtual one, from the second in which a test begins."""
    began = time.time()

    def now():
        return began + trio.current_time()

    class Virtual(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(now(), tz)

    virtual = SimpleNamespace(datetime=Virtual, UTC=datetime.UTC, timedelta=datetime.timedelta)
    monkeypatch.setattr(certificates, "datetime", virtual)
    monkeypatch.setattr(renewal.time, "time", now)
    return clock


@pytest.mark.parametrize(
    ("begins_at", "expires_at", "due"),
    [
        (0, 3600 + 90, 3600 + 60),
        (1000, 1000 + 3600 + 3, 1000 + 3600 + 2),
        (0, 3600 + 90 * 86400, 3600 + 60 * 86400),
        (0, 3600, 3600),
    ],
)
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(begins_at, expires_at, due):
    found = Certified(new_id(), bytes(32), "member", begins_at, expires_at, ())
    assert due_at(found) == due


# In time.


async def keep_for(peer, seconds):
    with trio.move_on_after(seconds):
        await keep_certificate(peer)


async def test_a_founder_renews_its_own_certificate_at_two_thirds(certified, wall, asked):
    peer = certified("founder", "founder")
    first = peer.credentials.chain
    await keep_for(peer, LIFETIME_S * 2 / 3 - 2)
    assert (peer.used, peer.reports) == ([], [])
    await keep_for(peer, 4)
    assert peer.used[0] == peer.credentials.chain != first
    kind, data = peer.reports[0]
    assert (kind, data) == (
        "certificate.renewed", {"expires_at": peer.credentials.certified.expires_at},
    )  # fmt: skip
    assert asked == []


async def test_a_member_asks_the_issuers_that_are_there(certified, wall, asked):
    peer, founder = certified("m"), Peer(certified.made["founder"])
    peer.records.append(founder.record(founder.credentials, "wss://founder:1", "wss://founder:2"))
    await keep_for(peer, LIFETIME_S * 2 / 3 + 2)
    assert asked[0] == "wss://founder:1"
    assert peer.credentials.certified.peer_id == read_chain(peer.used[0]).peer_id
    assert peer.reports[0][0] == "certificate.renewed"


async def test_what_was_not_renewed_is_said_and_tried_again(certified, wall, asked):
    peer, founder = certified("m"), Peer(certified.made["founder"])
    peer.records.append(founder.record(founder.credentials, "wss://founder:1"))
    asked.answers["wss://founder:1"] = Unreachable("wss://founder:1: no answer in time")
    await keep_for(peer, LIFETIME_S * 2 / 3 + 2)
    assert peer.reports
    assert set(map(str, peer.reports)) == {
        str(("certificate.not_renewed", {"reason": "wss://founder:1: no answer in time"}))
    }
    tries = len(asked)
    await keep_for(peer, 5.5)
    assert 2 <= len(asked) - tries <= 5  # every 1.8 s, a fiftieth of its life
    asked.answers.clear()
    await keep_for(peer, 4)
    assert peer.reports[-1][0] == "certificate.renewed"
    assert len(peer.used) == 1


@pytest.mark.parametrize("nonsense", ["nonsense", "wss://a..b:1"])
async def test_an_issuer_whose_address_is_nonsense_is_passed_over(
    certified, asked, monkeypatch, nonsense
):
    peer, fake = certified("m"), renewal.enrolment.renew

    async def ask(network, address, **what):
        return await (renew_at if address == nonsense else fake)(network, address, **what)

    monkeypatch.setattr(renewal.enrolment, "renew", ask)
    peer.records.append(Peer.record(certified("i", "issuer").credentials, nonsense))
    with pytest.raises(NotRenewed, match=nonsense):
        await renew(peer)
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    await renew(peer)
    assert (asked, len(peer.used)) == (["wss://founder:1"], 1)


@pytest.fixture
def full_disk(monkeypatch):
    """Within `with full_disk():` nothing can be written."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    @contextmanager
    def fill():
        with monkeypatch.context() as disk:
            disk.setattr("overlay.keys.os.fsync", full)
            yield

    return fill


async def test_a_full_disk_is_said_and_ends_nothing(certified, wall, asked, full_disk):
    peer = certified("m")
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    with full_disk():
        await keep_for(peer, LIFETIME_S * 2 / 3 + 2)
    assert (peer.reports[0][0], peer.used) == ("certificate.not_renewed", [])
    assert "No space left" in peer.reports[0][1]["reason"]


async def test_when_a_full_disk_has_room_again_the_certificate_is_renewed(
    certified, wall, asked, full_disk
):
    peer = certified("m")
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    with full_disk():
        await keep_for(peer, LIFETIME_S * 2 / 3 + 2)
    await keep_for(peer, 4)
    assert (peer.reports[-1][0], len(peer.used)) == ("certificate.renewed", 1)


async def test_who_lost_its_issuer_renews_at_once(certified, wall, asked):
    issuer = certified("i", "issuer").credentials
    peer = certified("m", by="i")
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    await keep_for(peer, 5)
    assert asked == []
    peer.revoked.add(issuer.peer_id)
    await keep_for(peer, 5)
    assert (asked, len(peer.used)) == (["wss://founder:1"], 1)
    assert peer.credentials.certified.issuers == ()


async def test_a_certificate_that_is_hardly_valid_is_not_renewed_all_the_time(tmp_path, clock):
    credentials = Credentials(tmp_path, lifetime_s=1e-6)
    credentials.found()
    peer = Peer(credentials)
    await keep_for(peer, 10)
    assert 5 <= len(peer.used) <= 12


async def test_with_no_issuer_around_it_is_said(certified):
    with pytest.raises(NotRenewed, match="no issuer is a member now"):
        await renew(certified("m"))


async def test_what_every_issuer_said_is_told(certified, asked):
    peer = certified("m")
    for name, role in (("i", "issuer"), ("j", "issuer")):
        peer.records.append(Peer.record(certified(name, role).credentials, f"wss://{name}:1"))
    asked.answers = {
        "wss://i:1": Unreachable("wss://i:1: refused"),
        "wss://j:1": Denied("revoked", "this peer was revoked"),
    }
    with pytest.raises(NotRenewed) as caught:
        await renew(peer)
    assert str(caught.value) == "wss://i:1: refused; this peer was revoked"
    del asked.answers["wss://j:1"]
    await renew(peer)
    assert asked == ["wss://i:1", "wss://j:1"] * 2


def test_issuers_are_renewed_by_the_founder_and_members_by_all_of_them(certified):
    issuer, member = certified("i", "issuer"), certified("m")
    founder = certified.made["founder"]
    everybody = [
        Peer.record(founder, "wss://founder:1"),
        Peer.record(issuer.credentials, "wss://i:1"),
        Peer.record(certified("j", "issuer").credentials, "wss://j:1"),
        Peer.record(certified("n").credentials, "wss://n:1"),
        Record(new_id(), "without a certificate", ("wss://x:1",), 1, True, -1),
    ]
    issuer.records = member.records = everybody
    assert issuers(issuer) == ["wss://founder:1"]
    assert issuers(member) == ["wss://founder:1", "wss://i:1", "wss://j:1"]


# A new key.


async def test_a_founder_changes_its_key_by_itself(certified, asked):
    peer = certified("founder", "founder")
    before = peer.credentials.peer_id
    after = await rotate(peer)
    assert after == peer.credentials.peer_id != before
    assert peer.credentials.certified.role == "founder"
    assert peer.order == ["remembered", "told", "restarted"]
    (out,) = peer.revocations
    assert (out.peer_id, out.reason) == (before, "its owner changed the key")
    assert peer.notary.may_revoke(out)
    assert asked == []


async def test_a_member_is_certified_under_its_new_key_by_its_old_certificate(certified, asked):
    peer, network = certified("m"), certified.made["founder"].network
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    before = peer.credentials.peer_id
    after = await rotate(peer)
    assert after == peer.credentials.peer_id != before
    assert (peer.credentials.network, peer.credentials.certified.role) == (network, "member")
    assert asked == ["wss://founder:1"]
    assert [out.peer_id for out in peer.revocations] == [before]
    assert asked.given_up == peer.revocations
    assert peer.notary.may_revoke(asked.given_up[0])


async def test_what_goes_with_an_old_id_is_said_again_before_it_ends(certified, asked):
    peer, member = certified("founder", "founder"), certified("m").credentials
    peer.heard = [peer.notary.revocation(member.peer_id, "it left", member.chain)]
    before = peer.credentials.peer_id
    await rotate(peer)
    assert [one.peer_id for one in peer.told] == [member.peer_id, before]
    assert peer.revocations == peer.told


async def test_a_renewal_waits_for_a_change_of_key_and_leaves_the_new_one_alone(certified, asked):
    peer = certified("m")
    peer.records.append(Peer.record(certified.made["founder"], "wss://founder:1"))
    async with trio.open_nursery() as nursery, peer.certificate_lock:
        nursery.start_soon(renew, peer)
        await trio.testing.wait_all_tasks_blocked()
        peer.restart()
    assert asked == peer.used == []


async def test_a_key_that_nobody_certifies_is_not_changed_to(certified, asked):
    peer = certified("m")
    before = peer.credentials.peer_id
    with pytest.raises(NotRenewed):
        await rotate(peer)
    assert (peer.credentials.peer_id, peer.order) == (before, [])


async def test_a_full_disk_changes_no_key(certified):
    peer = certified("founder", "founder")
    before, peer.full = peer.credentials.peer_id, True
    with pytest.raises(StoreFull):
        await rotate(peer)
    assert (peer.credentials.peer_id, peer.order) == (before, [])
