import dataclasses
import time

import pytest
import trio

from daemon import office as office_module
from daemon.credentials import Credentials
from daemon.office import MAX_TTL_S, MAX_USES, REMEMBERED_S, InvitationRefused, Office
from daemon.store import Store
from overlay.certificates import BadCertificate, check_chain, read_chain
from overlay.enrolment import Denied, Enrolled
from overlay.keys import key_id, new_key
from overlay.notary import Signing
from overlay.records import SIGNATURE_BYTES
from overlay.revocation import Revocation, Revocations
from overlay.tickets import read_ticket
from tests.overlay.signed_network import forge

ADDRESSES = ("wss://192.0.2.7:7400",)


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody who comes to renew a certificate."""

    key: object
    chain: tuple
    authority: bytes

    @property
    def peer_id(self):
        return key_id(self.key)

    def gives_up(self):
        return Signing(self.key, self.chain, self.authority).revocation(self.peer_id, "")


class Roll:
    """Who is out; `known` are no strangers, `told` who gave itself up."""

    def __init__(self, credentials):
        self._credentials = credentials
        self._revocations = Revocations()
        self.known, self.told = set(), []

    def revoke(self, peer):
        """The authority says so."""
        self._revocations.add(Revocation(peer, 0, "", (), bytes(SIGNATURE_BYTES)))

    def is_revoked(self, peer):
        return peer in self._revocations

    def is_out(self, member):
        known = member.peer_id in self.known
        return self._revocations.against(member, known=known) is not None

    async def give_up(self, revocation):
        if not self._credentials.signing().may_revoke(revocation):
            return False
        self.told.append(revocation)
        return True


class Desk:
    """A member's office, with its parts."""

    def __init__(self, folder):
        folder.mkdir()
        self.credentials = Credentials(folder)
        self.store = Store(folder / "state.db")
        self.roll = Roll(self.credentials)
        self.reports = []
        self.office = Office(
            self.credentials,
            self.store,
            self.roll,
            lambda kind, data: self.reports.append((kind, data)),
        )

    async def invite(self, ttl_s=60.0, uses=1, role="member"):
        text, ticket = await self.office.invite(ADDRESSES, ttl_s=ttl_s, uses=uses, role=role)
        assert read_ticket(text) == ticket
        return ticket

    def person(self, role="member"):
        """Somebody whom this member certified."""
        key, mine = new_key(), self.credentials
        return Person(key, mine.certify(key.public_key(), role), mine.authority)

    async def renew(self, member, key=None, revocation=None):
        """What `member` gets for its own key, or another."""
        key = (key or member.key).public_key()
        return await self.office.renew(member.chain, key, revocation)


@pytest.fixture
def desks(tmp_path):
    """desks(name): one with a data directory of its own."""
    made = []

    def make(name):
        made.append(Desk(tmp_path / name))
        return made[-1]

    yield make
    for desk in made:
        desk.store.close()


@pytest.fixture
def founder(desks):
    desk = desks("founder")
    desk.credentials.found()
    return desk


@pytest.fixture
def enrolled(desks, founder):
    """enrolled(role): another member's desk."""

    def make(role):
        desk = desks(role)
        chain = founder.credentials.certify(desk.credentials.key.public_key(), role)
        desk.credentials.take(Enrolled(founder.credentials.authority, chain))
        return desk

    return make


@pytest.fixture
def at(monkeypatch):
    """at(Unix time): what the office's clock shows from now on."""
    return lambda moment: monkeypatch.setattr(office_module.time, "time", lambda: moment)


async def denied(desk, secret, key=None):
    """The refusal of an application: (kind, words)."""
    with pytest.raises(Denied) as caught:
        await desk.office.admit(secret, (key or new_key()).public_key())
    return caught.value.kind, str(caught.value)


async def not_renewed(desk, member, key=None, revocation=None, *, kind):
    """The words for who gets no newer certificate."""
    with pytest.raises(Denied) as caught:
        await desk.renew(member, key, revocation)
    assert caught.value.kind == kind
    return str(caught.value)


# Inviting.


async def test_an_invitation_is_a_ticket_of_the_network(founder):
    began = time.time()
    ticket = await founder.invite(ttl_s=60)
    assert (ticket.network, ticket.addresses) == (founder.credentials.network, ADDRESSES)
    assert began + 59 <= ticket.expires_at <= began + 62
    assert (await founder.invite()).secret != ticket.secret
    kind, data = founder.reports[0]
    assert kind == "invitation.made"
    assert data == {"role": "member", "uses": 1, "expires_at": ticket.expires_at}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ttl_s": 0.5}, "valid for 1 second to 30 days"),
        ({"ttl_s": -5}, "valid for 1 second to 30 days"),
        ({"ttl_s": MAX_TTL_S + 1}, "valid for 1 second to 30 days"),
        ({"ttl_s": float("nan")}, "valid for 1 second to 30 days"),
        ({"ttl_s": float("inf")}, "valid for 1 second to 30 days"),
        ({"uses": 0}, "has 1 to 10,000 uses"),
        ({"uses": MAX_USES + 1}, "has 1 to 10,000 uses"),
        ({"role": "founder"}, "'founder' is no role: member or issuer"),
    ],
)
async def test_an_invitation_of_the_wrong_form_is_refused(founder, wrong, words):
    with pytest.raises(InvitationRefused, match=words):
        await founder.invite(**wrong)
    assert founder.reports == []


async def test_the_bounds_themselves_are_fine(founder):
    for ttl_s, uses in ((1, 1), (MAX_TTL_S, MAX_USES)):
        assert await founder.invite(ttl_s=ttl_s, uses=uses)


async def test_a_plain_member_invites_nobody(enrolled):
    with pytest.raises(InvitationRefused, match="this peer is no issuer: ask the founder"):
        await enrolled("member").invite()


async def test_an_issuer_invites_members_and_no_issuers(enrolled):
    issuer = enrolled("issuer")
    with pytest.raises(InvitationRefused, match="only the network's founder appoints issuers"):
        await issuer.invite(role="issuer")
    ticket, key = await issuer.invite(), new_key()
    chain = await issuer.office.admit(ticket.secret, key.public_key())
    made = check_chain(chain, issuer.credentials.authority, time.time())
    assert (made.peer_id, made.role) == (key_id(key), "member")
    assert made.issuers == (issuer.credentials.peer_id,)


async def test_the_database_holds_no_secret(founder, tmp_path):
    ticket = await founder.invite(uses=2)
    await founder.office.admit(ticket.secret, new_key().public_key())
    founder.store.close()
    for file in (tmp_path / "founder").iterdir():
        data = file.read_bytes()
        assert ticket.secret not in data
        assert ticket.secret.hex().encode() not in data


# Admitting.


@pytest.mark.parametrize("role", ["member", "issuer"])
async def test_a_tickets_holder_gets_a_certificate_in_its_role(founder, role):
    ticket, key = await founder.invite(role=role), new_key()
    chain = await founder.office.admit(ticket.secret, key.public_key())
    made = check_chain(chain, founder.credentials.authority, time.time())
    assert (made.peer_id, made.role) == (key_id(key), role)
    assert founder.reports[-1] == ("member.enrolled", {"peer": key_id(key), "role": role})


async def test_a_used_ticket_is_refused_and_its_user_may_ask_again(founder):
    ticket, key = await founder.invite(uses=2), new_key()
    for _ in range(3):  # the answer was lost on the way
        assert await founder.office.admit(ticket.secret, key.public_key())
    assert await founder.office.admit(ticket.secret, new_key().public_key())
    assert await denied(founder, ticket.secret) == (
        "used", "the ticket was used already: ask for a new one",
    )  # fmt: skip
    assert await founder.office.admit(ticket.secret, key.public_key())


async def test_uses_are_counted_when_all_come_at_once(founder):
    ticket, admitted, refused = await founder.invite(uses=3), [], []

    async def apply():
        try:
            admitted.append(await founder.office.admit(ticket.secret, new_key().public_key()))
        except Denied as error:
            refused.append(error.kind)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(apply)
    assert len(admitted) == 3
    assert refused == ["used"] * 17


async def test_an_expired_ticket_is_refused_and_remembered_for_a_week(founder, at):
    ticket = await founder.invite(ttl_s=60)
    at(ticket.expires_at - 1)
    assert await founder.office.admit(ticket.secret, new_key().public_key())
    for late_s in (0, 1, REMEMBERED_S - 1):
        at(ticket.expires_at + late_s)
        kind, words = await denied(founder, ticket.secret)
        assert (kind, words) == ("expired", "the ticket has expired: ask for a new one")
    at(ticket.expires_at + REMEMBERED_S + 2)
    assert (await denied(founder, ticket.secret))[0] == "unknown"


async def test_a_secret_that_nobody_was_given_is_unknown(founder):
    ticket = await founder.invite()
    altered = bytes([ticket.secret[0] ^ 1]) + ticket.secret[1:]
    kind, words = await denied(founder, altered)
    assert kind == "unknown"
    assert "it was altered, or made by another member" in words


async def test_a_revoked_key_is_refused_and_its_ticket_stays_good(founder):
    ticket, key = await founder.invite(), new_key()
    founder.roll.revoke(key_id(key))
    kind, words = await denied(founder, ticket.secret, key)
    assert (kind, "start with a new data directory" in words) == ("revoked", True)
    assert await founder.office.admit(ticket.secret, new_key().public_key())


async def test_who_is_no_issuer_any_more_admits_nobody(enrolled, founder):
    issuer = enrolled("issuer")
    ticket = await issuer.invite()
    mine = issuer.credentials
    mine.renew(founder.credentials.certify(mine.key.public_key(), "member"))
    assert (await denied(issuer, ticket.secret))[0] == "role"


# Renewing.


@pytest.mark.parametrize("role", ["member", "issuer", "founder"])
async def test_a_member_renews_in_its_role_for_its_own_key_or_a_new_one(founder, role):
    member, key = founder.person(role), new_key()
    made = read_chain(await founder.renew(member))
    assert (made.peer_id, made.role, founder.roll.told) == (member.peer_id, role, [])
    out = member.gives_up()
    made = read_chain(await founder.renew(member, key, out))
    assert (made.peer_id, made.role, founder.roll.told) == (key_id(key), role, [out])


async def test_an_issuer_renews_members_and_no_issuers(enrolled, founder):
    issuer = enrolled("issuer")
    assert await issuer.renew(founder.person())
    assert await issuer.renew(issuer.person())
    words = await not_renewed(issuer, founder.person("issuer"), kind="role")
    assert words == "only the network's founder appoints issuers"


@pytest.mark.parametrize("role", ["issuer", "founder"])
async def test_nobody_renews_whom_an_issuer_certified_as_more_than_a_member(
    enrolled, founder, role
):
    """A leaf does not count in a path length, so that TLS lets it in."""
    issuer = enrolled("issuer")
    key, mine = new_key(), issuer.credentials
    leaf = forge(
        key.public_key(), by_key=mine.key, by=mine.chain[0], role=role, ca=True, path_length=0
    )
    member = Person(key, (leaf, *mine.chain), mine.authority)
    assert read_chain(member.chain).role == role
    for desk in (issuer, founder):
        with pytest.raises(BadCertificate, match="an issuer appointed by an issuer"):
            await desk.renew(member)


async def test_a_chain_without_its_issuer_is_refused(enrolled, founder):
    member = enrolled("issuer").person()
    for chain in (member.chain[:1], (member.chain[0], founder.person("issuer").chain[0])):
        with pytest.raises(BadCertificate, match="certified by another network's authority"):
            await founder.renew(Person(member.key, chain, member.authority))


async def test_nobody_renews_who_is_revoked_under_its_old_key_or_the_new_one(founder):
    for who in ("old", "new"):
        member, key = founder.person(), new_key()
        founder.roll.revoke(member.peer_id if who == "old" else key_id(key))
        words = await not_renewed(founder, member, key, member.gives_up(), kind="revoked")
        assert words == "this peer was revoked"
    await not_renewed(founder, member, key, kind="revoked")
    assert founder.roll.told == []


async def test_nobody_renews_a_stranger_whose_issuer_was_revoked(enrolled, founder):
    issuer = enrolled("issuer")
    stranger, known = issuer.person(), issuer.person()
    founder.roll.known.add(known.peer_id)
    founder.roll.revoke(issuer.credentials.peer_id)
    assert await not_renewed(founder, stranger, kind="revoked") == "this peer was revoked"
    assert await founder.renew(known)


@pytest.mark.parametrize("whose", ["nobody", "a stranger", "another member", "the new key"])
async def test_a_new_key_comes_with_its_owners_word_that_the_old_id_is_out(founder, whose):
    member, other, key = founder.person(), founder.person(), new_key()
    new = Person(key, founder.credentials.certify(key.public_key(), "member"), member.authority)
    out = {
        "nobody": None,
        "a stranger": dataclasses.replace(member.gives_up(), signature=bytes(SIGNATURE_BYTES)),
        "another member": other.gives_up(),
        "the new key": new.gives_up(),
    }[whose]
    words = await not_renewed(founder, member, key, out, kind="malformed")
    assert words == "a new key comes with the end of the old id"
    assert founder.roll.told == []


async def test_the_same_key_gives_nothing_up(founder):
    member = founder.person()
    assert await founder.renew(member, member.key, member.gives_up())
    assert founder.roll.told == []


async def test_a_plain_member_renews_nobody(enrolled, founder):
    desk = enrolled("member")
    words = await not_renewed(desk, founder.person(), new_key(), kind="role")
    assert words == "that member is no issuer"
