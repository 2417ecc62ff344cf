"""Each way into a network, and what is said to who cannot enter."""

import dataclasses
import re
import time

import pytest
import trio

from daemon import entering
from daemon.config import Config
from daemon.credentials import Credentials
from daemon.entering import PATIENCE_S, CannotEnter, enter, seeds, take_ticket
from daemon.store import Store
from overlay.enrolment import Denied, Enrolled, Unreachable
from overlay.identity import is_id, short
from overlay.keys import key_id, new_key
from overlay.tickets import SECRET_BYTES, Ticket, write_ticket

ADDRESS = "wss://192.0.2.7:7400"


class World:
    """A founder elsewhere, and a data directory here; `answers` are raised, one an application."""

    def __init__(self, folder):
        for name in ("founder", "peer"):
            (folder / name).mkdir()
        self._folder = folder / "peer"
        self.founder = Credentials(folder / "founder")
        self.founder.found()
        self.store = Store(folder / "peer" / "state.db")
        self.answers, self.asked = [], []
        self.lifetime_s = 1000.0
        self.restart()

    def restart(self):
        self.credentials = Credentials(self._folder, lifetime_s=self.lifetime_s)

    def ticket(self, by=None):
        network = (by or self.founder).network
        return write_ticket(Ticket(network, (ADDRESS,), bytes(SECRET_BYTES), 2**40))

    async def enrol(self, tcp, ticket, key):
        await trio.lowlevel.checkpoint()
        self.asked.append(ticket.secret)
        if self.answers:
            raise self.answers.pop(0)
        return Enrolled(self.founder.authority, self.founder.certify(key.public_key(), "member"))

    async def enter(self, *join, **more):
        overlay = dataclasses.replace(Config().overlay, join=join, **more)
        config = dataclasses.replace(Config(), overlay=overlay)
        return await enter(config, self.store, self.credentials, None)

    async def refused(self, *join, **more):
        """The words for who cannot enter."""
        with pytest.raises(CannotEnter) as caught:
            await self.enter(*join, **more)
        return str(caught.value)

    def identity(self):
        """This peer's key and certificate, as they are on disk."""
        return (self._folder / "identity.pem").read_bytes()

    def lose_certificate(self):
        (self._folder / "network.crt").unlink()

    def know_somebody(self):
        self.store.put_members([("p", {"name": "p"})], [])

    def revoke_me(self):
        self.store.put_revocations([(self.credentials.peer_id, b"x")])


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path)
    monkeypatch.setattr(entering, "enrol", made.enrol)
    yield made
    made.store.close()


# Founding.


async def test_who_is_told_nothing_founds_a_network_and_stays_in_it(world):
    network = await world.enter()
    assert is_id(network)
    assert world.credentials.certified.role == "founder"
    world.restart()
    assert await world.enter() == network


async def test_who_is_told_to_join_without_a_ticket_is_told_how(world):
    words = await world.refused(ADDRESS)
    assert "this peer needs a ticket" in words
    assert "gossipctl invite" in words
    assert "--join TICKET" in words
    assert "--insecure" in words
    assert world.credentials.network == ""


async def test_a_member_may_be_told_an_address(world):
    network = await world.enter(world.ticket())
    assert await world.enter(ADDRESS) == network


async def test_a_founder_whose_certificate_expired_renews_it_itself(world, monkeypatch):
    network = await world.enter()
    late = world.credentials.certified.expires_at + 1
    monkeypatch.setattr(time, "time", lambda: late)
    world.restart()
    old = world.credentials.chain
    assert await world.enter() == network
    assert world.credentials.chain != old


# With a ticket.


async def test_a_ticket_is_redeemed_once_and_is_an_address_from_then_on(world):
    ticket = world.ticket()
    assert await world.enter(ticket) == world.founder.network
    assert len(world.asked) == 1
    assert world.store.get("network") == world.founder.network
    world.restart()
    assert await world.enter(ticket) == world.founder.network
    assert len(world.asked) == 1
    assert seeds([ticket], world.store) == (ADDRESS,)


async def test_tickets_of_different_networks_are_refused(world, tmp_path):
    (tmp_path / "other").mkdir()
    other = Credentials(tmp_path / "other")
    other.found()
    words = await world.refused(world.ticket(), world.ticket(other))
    assert words == "the tickets are of different networks: join one of them"
    assert world.asked == []


async def test_a_refused_ticket_is_not_tried_again(world):
    world.answers = [Denied("used", "the ticket was used already: ask for a new one")]
    words = await world.refused(world.ticket())
    assert words == ("the ticket is refused: the ticket was used already: ask for a new one")
    assert len(world.asked) == 1
    assert world.credentials.network == ""


async def test_an_issuer_that_comes_up_later_is_waited_for(world, clock):
    world.answers = [Unreachable("nobody answers")] * 5
    assert await world.enter(world.ticket()) == world.founder.network
    assert 4 <= trio.current_time() <= 10


async def test_an_issuer_that_never_comes_is_given_up(world, clock):
    world.answers = [Unreachable("nobody answers who could enrol this peer")] * 1000
    words = await world.refused(world.ticket())
    assert words == "nobody answers who could enrol this peer"
    assert PATIENCE_S <= trio.current_time() <= PATIENCE_S + 5


async def test_who_is_alone_may_leave_its_network_for_another(world):
    own = await world.enter()
    world.store.put_revocations([("somebody", b"x")])
    world.restart()
    assert await world.enter(world.ticket()) == world.founder.network != own
    assert not world.credentials.is_founder
    assert world.store.revocations() == []


@pytest.mark.parametrize("company", ["members", "job"])
async def test_who_has_company_or_a_job_stays_in_its_network(world, company):
    own = await world.enter()
    if company == "members":
        world.know_somebody()
    else:
        world.store.put({"job_offer": "{}"})
    words = await world.refused(world.ticket())
    assert words == (
        f"this data directory belongs to network {short(own)}, not to the ticket's: use another"
        " --data-dir"
    )
    assert (world.asked, world.credentials.network) == ([], own)


async def test_a_member_whose_certificate_expired_needs_a_ticket(world, monkeypatch):
    await world.enter(world.ticket())
    late = world.credentials.certified.expires_at + 1
    monkeypatch.setattr(time, "time", lambda: late)
    words = await world.refused()
    assert "this peer's certificate has expired: ask an issuer for a ticket" in words
    before = world.credentials.peer_id
    assert await world.enter(world.ticket()) == world.founder.network
    assert (len(world.asked), world.credentials.peer_id) == (2, before)


async def test_taking_a_ticket_keeps_what_is_known_of_the_same_network(world):
    await world.enter(world.ticket())
    world.know_somebody()
    text = world.ticket()
    await take_ticket(entering.read_ticket(text), world.store, world.credentials, None)
    assert len(world.store.members()) == 1


async def test_a_ticket_of_the_network_that_is_remembered_is_of_no_other(world):
    network = await world.enter(world.ticket())
    world.know_somebody()
    world.lose_certificate()
    world.restart()
    assert world.credentials.network == ""
    assert await world.enter(world.ticket()) == network
    assert len(world.store.members()) == 1


# Revoked.


async def test_a_revoked_peer_starts_without_links(world, caplog):
    network = await world.enter(world.ticket())
    world.revoke_me()
    before = world.credentials.peer_id
    assert await world.enter() == network
    assert world.credentials.peer_id == before
    assert "this peer was revoked: it has no links; ask for a new ticket" in caplog.text


async def test_a_revoked_peer_with_a_new_ticket_comes_back_under_a_new_key(world):
    network = await world.enter(world.ticket())
    world.revoke_me()
    before = world.credentials.peer_id
    assert await world.enter(world.ticket()) == network
    assert world.credentials.peer_id != before
    after = world.credentials.peer_id
    world.restart()
    assert await world.enter(world.ticket()) == network
    assert world.credentials.peer_id == after


@pytest.mark.parametrize(
    "error", [Denied("used", "the ticket was used already"), Unreachable("nobody answers")]
)
async def test_a_revoked_peer_whose_ticket_does_not_help_stays_what_it_is(world, error, caplog):
    network = await world.enter(world.ticket())
    world.revoke_me()
    before, identity = world.credentials.peer_id, world.identity()
    world.answers = [error]
    assert await world.enter(world.ticket()) == network
    assert world.credentials.peer_id == before
    assert f"this peer was revoked, and its ticket does not help: {error}" in caplog.text
    world.restart()
    assert (world.credentials.peer_id, world.credentials.network) == (before, network)
    assert world.identity() == identity


async def test_a_come_back_that_the_disk_has_no_room_for_changes_nothing_on_it(world, monkeypatch):
    await world.enter(world.ticket())
    world.revoke_me()
    identity = world.identity()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("overlay.keys.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        await world.enter(world.ticket())
    assert world.identity() == identity


async def test_a_founder_that_gave_its_id_up_needs_nobody_to_come_back(world):
    """It revoked the old id, and the key that was prepared is lost."""
    network = await world.enter()
    before, authority = world.credentials.peer_id, world.credentials.authority
    world.revoke_me()
    assert await world.enter() == network
    world.restart()
    mine = world.credentials
    assert mine.peer_id != before
    assert (mine.authority, mine.certified.role, mine.is_founder) == (authority, "founder", True)
    assert world.asked == []
    assert world.store.is_revoked(before)


async def test_a_peer_that_was_killed_while_it_changed_its_key_changes_it_now(world):
    """It revoked the old id and did not get to the new one, which is prepared."""
    network = await world.enter()
    key = new_key()
    world.credentials.prepare(key, world.credentials.certify(key.public_key(), "founder"))
    world.revoke_me()
    world.restart()
    assert await world.enter() == network
    assert world.credentials.peer_id == key_id(key)
    assert world.credentials.certified.role == "founder"
    world.restart()
    assert world.credentials.peer_id == key_id(key)


async def test_a_key_that_was_prepared_is_not_used_before_the_old_id_is_out(world):
    network = await world.enter()
    before, key = world.credentials.peer_id, new_key()
    world.credentials.prepare(key, world.credentials.certify(key.public_key(), "founder"))
    world.restart()
    assert await world.enter() == network
    assert world.credentials.peer_id == before


# Plain links.


async def test_plain_links_make_a_network_without_certificates(world):
    network = await world.enter(insecure=True)
    assert is_id(network)
    assert world.credentials.network == ""
    assert await world.enter("ws://127.0.0.1:7400", insecure=True) == ""


async def test_a_plain_data_directory_stays_plain(world):
    world.store.put({"network": "n" * 52})
    assert await world.enter(insecure=True) == "n" * 52
    words = await world.refused()
    assert re.search("if its links were plain, add --insecure; else ask for a ticket", words)


async def test_a_member_does_not_become_plain(world):
    network = await world.enter()
    words = await world.refused(insecure=True)
    assert f"belongs to network {short(network)}, whose links are encrypted" in words
    assert "leave --insecure out, or use another --data-dir" in words


# Whom to dial first.


async def test_seeds_are_addresses_and_those_in_tickets_each_once(world):
    words = ["wss://a:1", world.ticket(), ADDRESS, "wss://a:1"]
    assert seeds(words, world.store) == ("wss://a:1", ADDRESS)
    assert seeds([], world.store) == ()


async def test_while_nobody_is_known_the_last_tickets_addresses_are_dialled_again(world):
    await world.enter(world.ticket())
    assert seeds([], world.store) == (ADDRESS,)
    world.know_somebody()
    assert seeds([], world.store) == ()
