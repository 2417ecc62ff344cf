"""Members that are revoked, in worlds of members that sign."""

import dataclasses

import pytest

from overlay.digests import BUCKETS, part_of
from overlay.effects import CloseLink, Received, Send, Wake
from overlay.notary import say_again
from overlay.records import State
from overlay.wire import Revoked, SyncRequest
from tests.overlay.one_machine import link, linked, of, sent
from tests.overlay.words import told


def revoke(world, by, about):
    """The authority's revocation, at the peer `by`."""
    peer = world.peers[by]
    revocation = world.network.revocation(world.peers[about].id, "why")
    peer.machine.revoke(revocation, world.now)
    world._handle(peer, Wake())


def is_out(world, about):
    """Whether everybody knows that a member is revoked and has no link to it."""
    subject = world.peers[about].id
    others = [p for p in world.up() if p.id != subject]
    return all(
        p.machine.table.state(subject) is State.REVOKED and subject not in p.machine.links
        for p in others
    )


def test_a_revocation_floods_and_the_links_are_dropped_everywhere(grown_signed):
    world = grown_signed(12)
    out = world.peers[5]
    far = next(p.number for p in world.up() if p is not out and out.id not in p.machine.links)
    revoke(world, far, 5)
    assert world.run_until(lambda: is_out(world, 5), 1.0) is not None, world
    world.run(10.0)
    assert is_out(world, 5), world
    assert world.forgers == []
    assert len({p.machine.table.digest for p in world.up() if p is not out}) == 1
    assert len(world.heard("member.revoked", about=5)) == 11
    assert world.heard("member.dead", "member.suspect") == []


def test_the_revoked_peer_hears_it_and_is_alone_and_still(grown_signed):
    world = grown_signed(12)
    neighbour = world.peer(min(world.peers[5].machine.links))
    revoke(world, neighbour.number, 5)
    assert world.run_until(lambda: world.heard("network.revoked", about=5), 1.0) is not None, world
    world.run(2.0)
    assert world.peers[5].machine.links == frozenset()
    world.forget_what_was_said()
    world.run(30.0)
    assert [dial for _, number, dial in world.dialled if number == 5] == []
    assert world.sent_by[5] == 0


def test_a_peer_that_was_cut_off_learns_a_revocation_from_the_tables(grown_signed):
    world = grown_signed(12)
    world.cut_off(7)
    world.run(1.0)
    revoke(world, 0, 5)
    world.run(30.0)
    assert world.state(7, 5) is not State.REVOKED
    world.restore(7)
    assert world.run_until(lambda: is_out(world, 5), 60.0) is not None, world
    assert world.forgers == []


def test_a_newcomer_learns_who_was_revoked_before(grown_signed):
    world = grown_signed(8)
    revoke(world, 0, 5)
    world.run(2.0)
    world.start(9, seeds=(0,))
    world.run(10.0)
    assert world.peers[5].id in world.peers[9].machine.table.revocations
    assert not world.peers[9].machine.table.is_live(world.peers[5].id)


@pytest.mark.parametrize("known", [True, False])
def test_a_revoked_peer_that_links_up_is_told_why_and_turned_away(member, network, known):
    machine, out = linked(member, count=3), member(5)
    if known:
        machine.handle(Received(member(1).peer_id, told(out)), 0.2)
    revocation = network.revocation(out.peer_id, "why")
    machine.revoke(revocation, 0.3)
    machine.handle(Wake(), 1.0)
    effects = link(machine, dataclasses.replace(out, incarnation=2), 2.0)
    assert [e.message for e in of(Send, effects) if e.peer == out.peer_id] == [
        Revoked((revocation,))
    ]
    assert of(CloseLink, effects) == [CloseLink(out.peer_id, "revoked")]
    assert out.peer_id not in machine.links
    assert not machine.table.is_live(out.peer_id)


def test_revocations_are_sent_in_the_parts_that_differ(member, network):
    machine = linked(member, count=3)
    revoked = [network.revocation(member(number).peer_id) for number in range(10, 160)]
    for revocation in revoked:
        machine.revoke(revocation, 0.3)
    machine.handle(Wake(), 1.0)
    digests = list(machine.table.digests)
    part = part_of(revoked[0].peer_id)
    digests[part] ^= 1
    asked = Received(member(1).peer_id, SyncRequest(tuple(digests)))
    told_of = [r for m in sent(Revoked, machine.handle(asked, 2.0)) for r in m.revocations]
    assert told_of == [r for r in revoked if part_of(r.peer_id) == part]
    newcomer = Received(member(1).peer_id, SyncRequest((0,) * BUCKETS))
    told_of = [r for m in sent(Revoked, machine.handle(newcomer, 3.0)) for r in m.revocations]
    assert told_of == revoked


def test_a_revocation_by_a_member_that_may_not_costs_its_link_and_revokes_nobody(grown_signed):
    world = grown_signed(8)
    revocation = world.person(3).notary.revocation(world.peers[5].id, "envy")
    listener = world.peer(min(world.peers[3].machine.links - {world.peers[5].id}))
    world.inject(listener.number, 3, Revoked((revocation,)))
    assert world.forgers == [3]
    world.run(5.0)
    assert world.converged(), world


# Revocations of an issuer that is out itself.


@pytest.fixture
def issuer(network):
    """An issuer that is not there."""
    return network.person("issuer", "issuer")


def take_in(world, number, *revocations):
    """A peer learns of revocations by itself."""
    for revocation in revocations:
        world.peers[number].machine.revoke(revocation, world.now)
    world._handle(world.peers[number], Wake())


def test_an_issuers_word_and_its_own_end_that_cross_leave_all_of_one_mind(
    grown_signed, network, issuer
):
    """Each half of a cut network heard one of them first; the member was put out in one."""
    world = grown_signed(12)
    out = world.person(5)
    world.partition(range(6, 12), range(6))
    take_in(world, 0, issuer.notary.revocation(out.id, "spite", out.chain))
    take_in(world, 6, network.revocation(issuer.id))
    world.run(30.0)
    assert world.state(1, 5) is State.REVOKED
    assert world.state(7, 5) is not State.REVOKED
    world.heal()
    assert world.run_until(world.converged, 60.0) is not None, world
    assert world.forgers == []
    assert all(p.machine.table.is_live(out.id) for p in world.up())
    assert [*world.peers[0].machine.table.revocations.by_peer] == [issuer.id]
    assert world.heard("network.reinstated", about=5)


def test_whom_the_founder_puts_out_besides_stays_out_all_the_while(grown_signed, network, issuer):
    """First its own word, then the issuer's end: nobody sees a moment in between."""
    world = grown_signed(10)
    out = world.person(5)
    take_in(world, 0, issuer.notary.revocation(out.id, "it left", out.chain))
    assert world.run_until(lambda: is_out(world, 5), 2.0) is not None, world
    world.forget_what_was_said()
    said = world.peers[3].machine.table.revocations.said_by(issuer.id)
    again = say_again(said, network.key, network.id)
    take_in(world, 3, *again, network.revocation(issuer.id))
    world.run(5.0)
    assert is_out(world, 5), world
    others = [p for p in world.up() if p.id != out.id]
    assert {p.machine.table.revocations.by_peer[out.id] for p in others} == set(again)
    assert len({p.machine.table.digest for p in others}) == 1
    assert world.heard("member.returned", "network.reinstated", "link.up", about=5) == []
    assert world.forgers == []
