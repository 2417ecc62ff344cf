"""One certified member that lies, in worlds of members that sign; and what is said truly."""

import dataclasses

import pytest

from overlay.doubts import MOST
from overlay.effects import Wake
from overlay.records import Fate, State, Vote
from overlay.wire import Evidence, SyncPage
from tests.overlay.words import fated, subject_and_liar, told, witnessed


def lies(world, liar, subject):
    """Everything that a member can say in its own name against another, in its newest life."""
    life, person = subject.machine.table.me.incarnation, world.person(liar.number)
    votes = tuple(person.vote(subject.id, incarnation=life, hard=hard) for hard in (True, False))
    dead = Fate(subject.id, life, State.DEAD, votes)
    yield witnessed(person.testimony(subject.id, incarnation=life, hard=True))
    yield witnessed(person.testimony(subject.id, incarnation=life, hard=False))
    yield fated(dead)
    yield fated(Fate(subject.id, life, State.DEAD))
    yield fated(Fate(subject.id, life, State.SUSPECT, votes))
    yield SyncPage((), (dead,))
    yield fated(Fate(subject.id, life + 5, State.DEAD, votes))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_member_that_lies_for_a_minute_evicts_nobody(grown_signed, seed):
    world = grown_signed(14, seed=seed)
    subject, liar, _ = subject_and_liar(world)
    end = world.now + 60.0
    while world.now < end:
        for lie in lies(world, liar, subject):
            for peer in [p for p in world.up() if liar.id in p.machine.links]:
                world.inject(peer.number, liar.number, lie)
            world.run(0.1)
    assert world.heard("member.dead") == [], world
    assert world.forgers == []
    assert world.run_until(world.converged, 10.0) is not None, world


def doubt_everybody(world, liar, links, *, by_table=False):
    """The liar says on some of its links that everybody is suspect, each in its newest life."""
    records = [r for r in liar.machine.table.live() if r.peer_id != liar.id]
    fates = tuple(Fate(r.peer_id, r.incarnation, State.SUSPECT) for r in records)
    for peer in links:
        lie = SyncPage((), fates) if by_table else fated(*fates)
        world.inject(world.peer(peer).number, liar.number, lie)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("by_table", [False, True])
def test_a_member_that_doubts_everybody_has_nobody_refute_more_than_a_few_times(
    make_world, by_table, in_turn
):
    """Each refutation is a record that floods: the liar would say little, and all others much. On
    one link after the other it uses up what each of them allows."""
    world = make_world(seed=3).settled(24)
    liar = world.peers[0]
    for number in range(150):
        links = sorted(liar.machine.links)
        chosen = [links[number % len(links)]] if in_turn else links
        doubt_everybody(world, liar, chosen, by_table=by_table)
        world.run(0.2)
    assert world.heard("member.suspect", "member.dead") == [], world
    refuted = [p.machine.table.me.incarnation - 1 for p in world.up() if p is not liar]
    assert min(refuted) > 0, "nobody heard the liar"
    assert max(refuted) <= len(liar.machine.links) * MOST < 150 / 4
    assert world.run_until(world.converged, 5.0) is not None, world


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_member_that_calls_everybody_dead_in_its_tables_evicts_nobody(make_world, seed):
    """Without a vote, again and again, on one link after the other: whoever is not heard of is
    looked for."""
    world = make_world(seed=seed).settled(24)
    liar = world.peers[0]
    for number in range(300):
        links = sorted(liar.machine.links)
        listener = world.peer(links[number % len(links)])
        doubt_everybody(world, liar, [links[number // 7 % len(links)]])
        records = [r for r in liar.machine.table.live() if r.peer_id != liar.id]
        dead = tuple(Fate(r.peer_id, r.incarnation, State.DEAD) for r in records)
        world.inject(listener.number, liar.number, SyncPage((), dead))
        world.run(0.2)
    assert world.heard("member.dead") == [], world
    assert world.run_until(world.converged, 5.0) is not None, world


def test_a_silent_member_is_found_while_another_doubts_everybody(make_world):
    """The liar keeps it, like all the others, at refuting for as long as it can."""
    world = make_world(seed=3).settled(24)
    liar, victim = world.peers[0], world.peers[9]
    for number in range(100):
        if number == 50:
            world.stop(victim.number)
        doubt_everybody(world, liar, sorted(liar.machine.links))
        world.run(0.2)
    assert {said.about for said in world.heard("member.dead")} == {victim.id}, world
    assert world.believed(victim.number, State.DEAD)


def test_a_member_that_says_what_others_did_not_loses_its_links_and_evicts_nobody(grown_signed):
    world = grown_signed(10)
    subject, liar, listener = subject_and_liar(world)
    observers = sorted(listener.machine.graph.observers(subject.id) - {liar.id})[:2]
    signature = world.person(liar.number).notary.testimony(subject.id, 1, True)
    votes = tuple(Vote(observer, 1, True, signature) for observer in observers)
    for lie in (
        fated(Fate(subject.id, 1, State.DEAD, votes)),
        SyncPage((), (Fate(subject.id, 1, State.DEAD, votes),)),
        fated(Fate(subject.id, 1, State.LEFT, votes[:1])),
        fated(Fate(subject.id, 1, State.REVOKED)),
        witnessed(Evidence(subject.id, 1, observers[0], True, signature)),
        told(dataclasses.replace(subject.machine.table.me, incarnation=9)),
    ):
        world.forgers.clear()
        world.inject(listener.number, liar.number, lie)
        assert world.forgers == [liar.number], lie
        assert listener.machine.table.state(subject.id) is State.ALIVE


def test_a_death_is_believed_by_everybody_when_everything_is_signed(grown_signed):
    world = grown_signed(14)
    world.kill(4)
    assert world.run_until(lambda: world.believed(4, State.DEAD), 3.0) is not None, world
    assert world.run_until(world.converged, 10.0) is not None, world
    for peer in world.up():
        assert len(peer.machine.table.fate(world.peers[4].id).votes) >= 2
    assert world.forgers == []


def test_a_goodbye_is_believed_by_everybody_when_everything_is_signed(grown_signed):
    world = grown_signed(10)
    world.leave(4)
    assert world.run_until(lambda: world.believed(4, State.LEFT), 2.0) is not None, world
    world.run(5.0)
    assert world.forgers == []


def test_a_goodbye_is_passed_on_in_tables_with_its_word(grown_signed):
    """From an old member to a newcomer, and from that one to the next."""
    world = grown_signed(8)
    world.leave(4)
    world.run(5.0)
    world.start(20, seeds=(0,))
    world.run(5.0)
    world.start(21, seeds=(20,))
    world.run(5.0)
    assert world.forgers == []
    gone = world.peers[4].id
    for number in (20, 21):
        assert world.peers[number].machine.table.fate(gone).votes == world.person(4).goodbye().votes


def test_a_goodbye_whose_word_was_not_kept_is_told_to_nobody(grown_signed):
    """A peer that restarts remembers who left, and cannot prove it."""
    world = grown_signed(8)
    world.leave(4)
    world.run(5.0)
    table = world.peers[0].machine.table
    remembered = [row for row in table.members() if row.record.peer_id != table.my_id]
    world.kill(0)
    world.start(0, incarnation=table.me.incarnation + 1)
    world.peers[0].machine.remember(remembered, world.now)
    world._handle(world.peers[0], Wake())
    world.run(5.0)
    world.start(20, seeds=(0,))
    world.run(10.0)
    assert world.forgers == []
    assert world.run_until(world.converged, 10.0) is not None, world
