"""The control API's methods about membership, at the founder, an issuer, a member, a plain peer."""

import functools
from types import SimpleNamespace

import pytest

from daemon import network_api
from daemon.config import Config
from daemon.credentials import Credentials
from daemon.methods import build
from daemon.network_api import NetworkApi
from daemon.office import Office
from daemon.overlay_api import OverlayApi
from daemon.refusals import (
    BAD_ADDRESS,
    JOIN_FAILED,
    NETWORK_REFUSED,
    STORE_FAILED,
    UNKNOWN_PEER,
    RpcError,
)
from daemon.renewal import NotRenewed
from daemon.running import Node
from daemon.store import Store, StoreFull
from overlay.enrolment import Denied, Enrolled, Unreachable
from overlay.identity import spelled
from overlay.notary import seal
from overlay.records import Record
from overlay.revocation import MAX_REASON, Revocations
from overlay.tickets import SECRET_BYTES, Ticket, read_ticket, write_ticket

ADDRESS = "wss://192.0.2.7:7400"


class World:
    """A founder f, issuers i and j, members m and n, who all know each other as f1, i1, … (no id
    holds a 1)."""

    def __init__(self, folder):
        self._folder = folder
        self.members, self.stores = {}, []
        self.founder = self._credentials("f")
        self.founder.found()
        for name, role in (("i", "issuer"), ("j", "issuer"), ("m", "member"), ("n", "member")):
            one = self._credentials(name)
            chain = self.founder.certify(one.key.public_key(), role)
            one.take(Enrolled(self.founder.authority, chain))

    def _credentials(self, name):
        (self._folder / name).mkdir()
        made = self.members[name] = Credentials(self._folder / name)
        return made

    def node(self, name, *, plain=False):
        """A member's node, as far as these methods see it."""
        mine = self.members[name]
        records = {
            one.peer_id: Record(one.peer_id, f"{who}1", (ADDRESS,), 1, True, -1, one.chain)
            for who, one in self.members.items()
        }
        table = SimpleNamespace(
            me=records[mine.peer_id],
            records=lambda: list(records.values()),
            get=records.get,
            revocations=Revocations(),
        )
        store = Store(self._folder / name / "state.db")
        self.stores.append(store)
        node = SimpleNamespace(credentials=mine, told=[], remembered=[], error=None, store=store)

        async def remember(revocations):
            if node.error:
                raise node.error
            node.remembered += revocations

        node.overlay = SimpleNamespace(
            my_id=mine.peer_id, machine=SimpleNamespace(table=table), revoke=node.told.append
        )
        node.keeper = SimpleNamespace(remember_revocations=remember)
        node.inherited = functools.partial(Node.inherited, node)
        node.put_out = functools.partial(Node.put_out, node)
        node.notary = None if plain else mine.signing()
        office = Office(mine, store, SimpleNamespace(), lambda kind, data: None)
        node.office = None if plain else office
        return node

    def id(self, name):
        return self.members[name].peer_id


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    for store in made.stores:
        store.close()


async def refused(call, kind="network_refused", code=NETWORK_REFUSED):
    """The words of a refusal."""
    with pytest.raises(RpcError) as caught:
        await call
    assert (caught.value.kind, caught.value.code) == (kind, code)
    return str(caught.value)


# Inviting.


@pytest.mark.parametrize("name", ["f", "i"])
async def test_an_invitation_says_what_its_ticket_says(world, name):
    answer = await NetworkApi(world.node(name)).invite(ttl_s=60.0, uses=3)
    ticket = read_ticket(answer["ticket"])
    assert answer == {
        "ticket": answer["ticket"], "network": world.founder.network, "addresses": [ADDRESS],
        "expires_at": ticket.expires_at, "uses": 3, "role": "member",
    }  # fmt: skip
    assert (ticket.network, ticket.addresses) == (world.founder.network, (ADDRESS,))


async def test_what_is_no_invitation_is_refused_with_words(world):
    founder = NetworkApi(world.node("f"))
    assert "'boss' is no role: member or issuer" in await refused(founder.invite(role="boss"))
    long = await refused(founder.invite(role="x" * 1000))
    assert len(long) < 100
    assert "1 second to 30 days" in await refused(founder.invite(ttl_s=0))
    assert "1 to 10,000 uses" in await refused(founder.invite(uses=0))
    issuer, member = NetworkApi(world.node("i")), NetworkApi(world.node("m"))
    assert "only the network's founder appoints" in await refused(issuer.invite(role="issuer"))
    assert "this peer is no issuer" in await refused(member.invite())


async def test_an_invitation_that_cannot_be_remembered_is_none(world):
    node = world.node("f")

    def full(invitation):
        raise StoreFull("no space left for the database")

    node.store.add_invitation = full
    assert "no space" in await refused(NetworkApi(node).invite(), "disk_full", STORE_FAILED)


# Revoking.


@pytest.mark.parametrize(("by", "whom"), [("f", "m"), ("f", "i"), ("i", "m")])
async def test_who_may_revoke_does_by_name_or_id(world, by, whom):
    for word in (f"{whom}1", world.id(whom), spelled(world.id(whom)), world.id(whom)[:12]):
        node = world.node(by)
        answer = await NetworkApi(node).revoke(word, "lost laptop")
        out = world.id(whom)
        assert answer == {"revoked": out, "name": f"{whom}1", "reason": "lost laptop"}
        (revocation,) = node.told
        assert node.remembered == node.told
        assert (revocation.peer_id, revocation.reason) == (out, "lost laptop")
        # Whoever hears of it agrees; the authority's word needs no certificate, an issuer shows
        # its own and whom it means.
        assert world.members["n"].signing().may_revoke(revocation)
        shown = ((), ()) if by == "f" else (world.members[by].chain, world.members[whom].chain)
        assert (revocation.chain, revocation.subject) == shown


@pytest.mark.parametrize(
    ("by", "whom", "words"),
    [
        ("m", "n", "only the founder and issuers revoke: ask one of them"),
        ("m", "m", "only the founder and issuers revoke"),
        ("i", "j", "only the network's founder revokes issuers"),
        ("i", "f", "only the network's founder revokes issuers"),
        ("i", "i", "to put this peer itself out, end it: gossipctl leave"),
        ("f", "f", "to put this peer itself out, end it: gossipctl leave"),
    ],
)
async def test_who_may_not_revoke_is_told_so(world, by, whom, words):
    node = world.node(by)
    assert words in await refused(NetworkApi(node).revoke(f"{whom}1"))
    assert node.told == node.remembered == []


@pytest.mark.parametrize("reason", ["x" * (MAX_REASON + 1), "two\nlines", "\x1b[2J"])
async def test_a_reason_is_short_and_printable(world, reason):
    node = world.node("f")
    assert "the reason must be printable" in await refused(NetworkApi(node).revoke("m1", reason))
    assert node.told == []
    await NetworkApi(node).revoke("m1", "x" * MAX_REASON)


async def test_nobody_is_revoked_by_a_word_that_names_nobody(world):
    words = await refused(NetworkApi(world.node("f")).revoke("zz1"), "unknown_peer", UNKNOWN_PEER)
    assert "no known peer is called 'zz1'" in words


async def test_who_puts_an_issuer_out_says_again_whom_it_put_out(world):
    node, members = world.node("f"), world.members
    known = node.overlay.machine.table.revocations
    for name, by in (("m", "i"), ("n", "j")):
        gone = members[name]
        known.add(members[by].signing().revocation(gone.peer_id, "it left", gone.chain))
    await NetworkApi(node).revoke("i1", "its key was lost")
    again, out = node.told
    assert node.remembered == node.told
    assert (out.peer_id, out.reason) == (world.id("i"), "its key was lost")
    assert (again.peer_id, again.reason, again.author) == (world.id("m"), "it left", "")
    assert members["n"].signing().may_revoke(again)


async def test_who_is_out_already_by_a_weightier_word_stays_out_by_that(world):
    node, gone = world.node("i"), world.members["m"]
    known = node.overlay.machine.table.revocations
    strong = seal(
        world.members["n"].signing().revocation(gone.peer_id, "x"),
        world.founder.authority_key,
        world.founder.network,
        chain=(),
    )
    known.add(strong)
    await NetworkApi(node).revoke("m1")
    assert node.told == node.remembered == []


async def test_a_revocation_that_cannot_be_remembered_is_not_told(world):
    node = world.node("f")
    node.error = StoreFull("no space left for the database")
    await refused(NetworkApi(node).revoke("m1"), "disk_full", STORE_FAILED)
    assert node.told == []


# Joining by the control API.


class Joins(Exception):
    """The overlay was asked to link to an address."""


def joining(world, name, *, out=False, alone=False, plain=False):
    """The overlay's methods at a node that may be revoked, or alone."""
    node = world.node(name, plain=plain)
    node.restarted = []

    async def join(address):
        raise Joins(address)

    node.overlay.join = join
    node.is_revoked = lambda peer: out
    node.session = SimpleNamespace(may_adopt_network=lambda: alone)
    node.config = Config()
    node.restart = lambda: node.restarted.append(True)
    return node, OverlayApi(node)


@pytest.fixture
def elsewhere(world):
    """A ticket of another network, and `take_ticket`s errors."""
    other = world._credentials("other")
    other.found()
    return write_ticket(Ticket(other.network, (ADDRESS,), bytes(SECRET_BYTES), 2**40))


@pytest.fixture
def taken(monkeypatch):
    """The tickets that were redeemed; the error that is raised instead, if there is one."""
    seen = SimpleNamespace(tickets=[], error=None)

    async def take(ticket, store, credentials, tcp):
        if seen.error is not None:
            raise seen.error
        seen.tickets.append(ticket)

    monkeypatch.setattr("daemon.overlay_api.take_ticket", take)
    return seen


async def test_a_ticket_of_this_network_is_an_address(world, taken):
    ticket = (await NetworkApi(world.node("f")).invite())["ticket"]
    _, api = joining(world, "m")
    with pytest.raises(Joins, match=ADDRESS):
        await api.join(ticket)
    assert taken.tickets == []


async def test_who_is_alone_joins_another_network_in_the_same_process(world, elsewhere, taken):
    node, api = joining(world, "f", alone=True)
    network = read_ticket(elsewhere).network
    assert await api.join(elsewhere) == {"peer": None, "network": network, "restarting": True}
    assert (node.restarted, taken.tickets) == ([True], [read_ticket(elsewhere)])


@pytest.mark.parametrize(
    ("how", "words"),
    [({}, "this daemon belongs to network"), ({"plain": True}, "this daemon has plain links")],
)
async def test_who_has_company_or_plain_links_redeems_no_ticket(
    world, elsewhere, taken, how, words
):
    node, api = joining(world, "m", **how)
    assert words in await refused(api.join(elsewhere), "join_failed", JOIN_FAILED)
    assert taken.tickets == node.restarted == []


@pytest.mark.parametrize(
    ("error", "words", "kind", "code"),
    [
        (Denied("used", "used already"), "ticket is refused: used already", "join_failed",
         JOIN_FAILED),
        (Unreachable("nobody answers"), "nobody answers", "join_failed", JOIN_FAILED),
        (StoreFull("no space left"), "no space left", "disk_full", STORE_FAILED),
    ],
)  # fmt: skip
async def test_a_ticket_that_does_not_help_says_why(
    world, elsewhere, taken, error, words, kind, code
):
    node, api = joining(world, "f", alone=True)
    taken.error = error
    assert words in await refused(api.join(elsewhere), kind, code)
    assert node.restarted == []


async def test_a_damaged_ticket_is_not_quoted(world, elsewhere):
    _, api = joining(world, "f", alone=True)
    words = await refused(api.join(elsewhere[:-2]), "bad_address", BAD_ADDRESS)
    assert "the ticket is damaged" in words
    assert elsewhere[20:40] not in words


async def test_a_revoked_peer_is_told_how_it_comes_back(world):
    ticket = (await NetworkApi(world.node("f")).invite())["ticket"]
    _, api = joining(world, "m", out=True)
    for word in (ADDRESS, ticket):
        words = await refused(api.join(word), "join_failed", JOIN_FAILED)
        assert "this peer was revoked: end it, and start it again with --join" in words


# Rotating.


async def test_a_rotation_says_the_old_id_and_the_new_one(world, monkeypatch):
    async def rotate(node):
        return world.id("n")

    monkeypatch.setattr(network_api, "rotate", rotate)
    assert await NetworkApi(world.node("m")).rotate() == {
        "before": world.id("m"), "peer": world.id("n"), "spelled": spelled(world.id("n")),
        "restarting": True,
    }  # fmt: skip


async def test_a_rotation_that_comes_to_nothing_says_why(world, monkeypatch):
    async def fail(node):
        raise error

    monkeypatch.setattr(network_api, "rotate", fail)
    api = NetworkApi(world.node("m"))
    error = NotRenewed("no issuer is a member now")
    assert await refused(api.rotate()) == (
        "nobody certifies the new key: no issuer is a member now"
    )
    error = OSError(28, "No space left on device")
    assert "No space left on device" in await refused(api.rotate())
    error = StoreFull("no space left")
    await refused(api.rotate(), "disk_full", STORE_FAILED)


# Plain links.


async def test_a_plain_network_has_no_membership(world):
    api = NetworkApi(world.node("f", plain=True))
    for call in (api.invite(), api.revoke("m1"), api.rotate()):
        assert "plain links (--insecure), which anybody on this machine can join" in await refused(
            call
        )


def test_membership_is_changed_by_admins_only():
    table = build(SimpleNamespace(events=None))
    for name in ("network.invite", "network.revoke", "network.rotate"):
        assert not table[name].read_only
