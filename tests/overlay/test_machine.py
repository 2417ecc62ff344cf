"""The overlay's decisions: worlds of machines under a simulated clock, and single machines."""

import dataclasses
import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.effects import (
    CloseLink,
    Dial,
    DialFailed,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    Received,
    Report,
    Send,
    Wake,
)
from overlay.machine import OverlayMachine
from overlay.profile import PROFILES
from overlay.records import Fate, Member, State
from overlay.topology import Choice
from overlay.wire import CONTROL, Evidence, Heartbeat, News, SyncRequest

LAN = PROFILES["lan"]
GONE = (State.DEAD, State.LEFT)


def told(*records):
    """A message with these records."""
    return News(records, (), ())


def fated(*fates):
    """A message with these fates."""
    return News((), fates, ())


def witnessed(*evidence):
    """A message with these testimonies."""
    return News((), (), evidence)


@pytest.fixture
def grown(make_world):
    """grown(count, **options): a world that has settled, with nothing said yet."""

    def grow(count, *, seed=0, **options):
        world = make_world(seed=seed)
        world.grow(count, **options)
        assert world.run_until(world.converged, 30.0) is not None, world
        world.run(LAN.drain_s)
        assert world.converged(), world
        world.forget_what_was_said()
        return world

    return grow


# Joining.


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (7, 2), (8, 3), (20, 4), (32, 5)])
def test_joiners_through_one_seed_all_know_each_other_and_have_the_wanted_links(
    make_world, count, seed
):
    world = make_world(seed=seed)
    peers = world.grow(count)
    assert world.run_until(world.converged, 10.0) is not None, world
    assert max(len(peer.machine.links) for peer in peers) <= max(6, count - 1 if count < 8 else 0)
    assert world.heard("member.suspect", "member.dead") == []


def test_all_may_join_at_the_same_moment(make_world):
    world = make_world(seed=7)
    world.grow(20, spacing_s=0.0)
    assert world.run_until(world.converged, 15.0) is not None, world
    assert world.heard("member.suspect", "member.dead") == []


def test_a_seed_that_comes_up_late_is_found(make_world):
    world = make_world(seed=8)
    world.start(0)
    world.kill(0)
    for number in range(1, 4):
        world.start(number, seeds=(0,))
    world.run(20.0)
    world.start(0, incarnation=2)
    assert world.run_until(world.converged, 15.0) is not None, world


def test_members_of_which_only_one_side_can_dial_are_linked(make_world):
    world = make_world(seed=9)
    world.start(0)
    for number in range(1, 6):
        world.start(number, seeds=(0,), addresses=())
    world.run(10.0)
    for number in range(1, 6):
        peer = world.peers[number]
        assert len(peer.machine.table.live()) == 6
        assert peer.machine.links == {world.peers[0].id}


def test_the_links_form_the_graph_that_everybody_computes(grown):
    world = grown(20)
    peers = world.up()
    links = nx.Graph((peer.id, other) for peer in peers for other in peer.machine.links)
    computed = peers[3].machine.graph
    wanted = nx.Graph((p.id, other) for p in peers for other in computed.observers(p.id))
    assert nx.utils.graphs_equal(links, wanted)


def test_unwanted_links_are_drained(make_world):
    world = make_world(seed=11)
    world.grow(20)
    world.run(0.2)
    first = world.peers[0].machine
    assert first.links - first.graph.wanted
    assert world.run_until(world.converged, 3 * LAN.drain_s) is not None, world
    assert world.heard("member.suspect") == []


def test_trackers_are_linked_and_take_no_place_among_the_learners(make_world):
    world = make_world(seed=12)
    for number in range(18):
        world.start(number, seeds=() if number == 0 else (0,), learner=number % 3 != 0)
    assert world.run_until(world.converged, 15.0) is not None, world
    learners = [p for p in world.up() if p.machine.table.me.learner]
    alone = make_world(seed=12)
    for peer in learners:
        alone.start(peer.number, seeds=(1,) if peer.number != 1 else ())
    assert alone.run_until(alone.converged, 15.0) is not None, alone
    ids = {peer.id for peer in learners}
    for peer in learners:
        assert peer.machine.links & ids == alone.peers[peer.number].machine.links


def test_after_convergence_a_quiet_minute_holds_nothing_but_heartbeats(grown):
    world = grown(12)
    world.run(60.0)
    links = sum(len(peer.machine.links) for peer in world.up())
    assert set(world.sent_kinds) == {"Heartbeat"}
    assert 59 * links <= world.sent_kinds["Heartbeat"] <= 61 * links
    assert world.said == []


def test_a_change_of_topology_is_followed_by_the_links(grown):
    world = grown(12)
    for peer in world.up():
        world._perform(peer, peer.machine.set_topology(Choice("star"), world.now))
    assert world.run_until(world.converged, 20.0) is not None, world
    assert max(len(peer.machine.links) for peer in world.up()) == 11
    assert min(len(peer.machine.links) for peer in world.up()) <= 7
    assert world.heard("member.suspect", "member.dead") == []


# Crashes.


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (4, 2), (8, 3), (16, 4), (30, 5)])
def test_a_kill_is_known_to_every_survivor_within_a_second(grown, count, seed):
    world = grown(count, seed=seed)
    world.kill(count // 2)
    assert world.run_until(lambda: world.believed(count // 2, State.DEAD), 1.0) is not None, world
    assert world.run_until(world.converged, 10.0) is not None, world
    world.run(20.0)
    assert {said.about for said in world.heard("member.dead")} == {world.peers[count // 2].id}


def test_a_peer_killed_right_after_it_joined_is_known_within_a_second(grown):
    world = grown(10)
    world.start(10, seeds=(0,))
    newcomer = world.peers[10]
    world.run_until(lambda: len(newcomer.machine.links) >= 6, 5.0)
    world.kill(10)
    assert world.run_until(lambda: world.believed(10, State.DEAD), 1.5) is not None, world


def test_half_of_all_killed_at_once_are_known_and_the_rest_is_linked(grown):
    world = grown(16, seed=13)
    world.kill(*range(0, 16, 2))
    assert world.run_until(world.converged, 15.0) is not None, world


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (8, 2), (20, 3)])
def test_silence_is_found_within_five_seconds(grown, count, seed):
    world = grown(count, seed=seed)
    world.stop(1)
    assert world.run_until(lambda: world.believed(1, State.DEAD), 5.0) is not None, world
    assert {said.about for said in world.heard("member.dead")} == {world.peers[1].id}


def test_a_leaver_is_reported_as_left_and_never_as_dead(grown):
    world = grown(12)
    world.leave(5)
    assert world.run_until(lambda: world.believed(5, State.LEFT), 1.0) is not None, world
    assert world.run_until(world.converged, 5.0) is not None, world
    world.run(30.0)
    assert world.believed(5, State.LEFT)
    assert world.heard("member.dead", "member.suspect", about=5) == []
    assert len(world.heard("member.left", about=5)) == 12
    assert world.heard("link.down", about=5)


def test_a_leaver_does_not_spin_while_its_goodbyes_are_written(grown):
    world = grown(4)
    machine = world.peers[1].machine
    now = world.now
    machine.handle(Leave(), now)
    for _ in range(20):
        now = machine.wake_at()
        assert not any(isinstance(e, Dial) for e in machine.handle(Wake(), now))
        assert machine.wake_at() > now


def test_a_resumed_peer_refutes_and_comes_back_by_itself(grown):
    world = grown(12)
    before = world.peers[4].machine.table.me
    world.stop(4)
    world.run(15.0)
    assert world.believed(4, State.DEAD)
    world.resume(4)
    assert world.run_until(world.converged, 10.0) is not None, world
    after = world.peers[0].machine.table.get(world.peers[4].id)
    assert after.incarnation > before.incarnation
    assert after.addresses == before.addresses
    assert world.heard("member.returned", about=4)
    assert [said.about for said in world.heard("member.dead") if said.by == 4] == []


@pytest.mark.parametrize("pause_s", [0.5, 1.5, 3.0, 4.0])
def test_a_short_pause_kills_nobody(grown, pause_s):
    world = grown(12, seed=3)
    world.stop(4)
    world.run(pause_s)
    world.resume(4)
    assert world.run_until(world.converged, 10.0) is not None, world
    world.run(10.0)
    assert world.converged()
    if pause_s < LAN.silence_shortest_s - LAN.heartbeat_s:
        assert world.heard("member.suspect", "member.dead") == []
    assert {said.about for said in world.heard("member.dead")} <= {world.peers[4].id}


def test_a_restarted_peer_is_alive_again_everywhere_at_its_new_address(grown):
    world = grown(12)
    world.kill(4)
    world.run(5.0)
    world.start(4, seeds=(2,), incarnation=2, addresses=("ws://elsewhere:1",))
    assert world.run_until(world.converged, 10.0) is not None, world
    for peer in world.up():
        assert peer.machine.table.get(world.peers[4].id).addresses == ("ws://elsewhere:1",)
    world.run(30.0)
    assert world.converged()


def test_a_restart_quicker_than_the_verdict_ends_well(grown):
    world = grown(12, seed=5)
    world.kill(4)
    world.run(0.05)
    world.start(4, seeds=(2,), incarnation=2, addresses=("ws://elsewhere:1",))
    assert world.run_until(world.converged, 10.0) is not None, world


def test_a_peer_that_forgot_its_incarnation_outlives_its_older_life(grown):
    world = grown(8)
    for _ in range(3):
        world.peers[4].machine.describe_me(world.now, name="renamed")
    world.run(1.0)
    world.kill(4)
    world.run(3.0)
    world.start(4, seeds=(2,), incarnation=0)
    assert world.run_until(world.converged, 20.0) is not None, world
    assert world.peers[0].machine.table.get(world.peers[4].id).name == "peer4"


# Partitions.


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (6, 1), (16, 2)])
def test_halves_that_were_cut_for_a_minute_become_one_again(grown, count, seed):
    world = grown(count, seed=seed)
    left, right = range(count // 2), range(count // 2, count)
    world.partition(left, right)
    world.run(60.0)
    for half in (left, right):
        ids = {world.peers[n].id for n in half}
        for number in half:
            live = {record.peer_id for record in world.peers[number].machine.table.live()}
            assert live == ids, world
    world.heal()
    assert world.run_until(world.converged, 30.0) is not None, world
    links = nx.Graph((peer.id, other) for peer in world.up() for other in peer.machine.links)
    assert nx.is_connected(links)


def test_a_cut_too_short_to_notice_changes_nothing(grown):
    world = grown(8)
    world.partition(range(4), range(4, 8))
    world.run(0.5)
    world.heal()
    world.run(20.0)
    assert world.heard("member.suspect", "member.dead", "link.down") == []


# Liars.


def subject_and_liar(world):
    """A member, and one of its observers that is linked to a third, who listens."""
    subject = world.peers[1]
    liar = next(p for p in world.up() if p.id in subject.machine.links)
    listener = next(
        p for p in world.up() if p.id in liar.machine.links and p not in (subject, liar)
    )
    return subject, liar, listener


def test_one_lying_observer_makes_nobody_even_doubt(grown):
    world = grown(16)
    subject, liar, listener = subject_and_liar(world)
    for _ in range(20):
        record = listener.machine.table.get(subject.id)
        lie = Evidence(subject.id, record.incarnation, liar.id, True)
        world.inject(listener.number, liar.number, witnessed(lie))
        world.run(0.3)
    assert world.converged(), world
    assert world.heard("member.suspect", "member.dead", "link.down") == []


def test_one_repeated_hard_word_is_no_verdict_even_where_no_refutation_arrives(grown):
    world = grown(16)
    subject, liar, listener = subject_and_liar(world)
    record = listener.machine.table.get(subject.id)
    lie = Evidence(subject.id, record.incarnation, liar.id, True)
    for _ in range(10):
        listener.machine.handle(Received(liar.id, witnessed(lie)), world.now)
    assert listener.machine.table.state(subject.id) is State.ALIVE


@pytest.mark.parametrize("hard", [True, False])
def test_who_is_no_observer_is_not_heard(grown, hard):
    world = grown(20)
    subject = world.peers[1]
    observers = subject.machine.graph.observers(subject.id)
    stranger = next(p for p in world.up() if p.id not in observers and p is not subject)
    listener = next(p for p in world.up() if p.id in stranger.machine.links and p is not subject)
    before = listener.machine.table.members()
    lie = Evidence(subject.id, 10**9, stranger.id, hard)
    effects = listener.machine.handle(Received(stranger.id, witnessed(lie)), world.now)
    assert listener.machine.table.members() == before
    assert effects == []


def test_evidence_about_an_old_incarnation_or_a_stranger_is_no_news(grown, id_of):
    world = grown(16)
    subject, liar, listener = subject_and_liar(world)
    subject.machine.describe_me(world.now, part=3)
    listener.machine.handle(Received(liar.id, told(subject.machine.table.me)), world.now)
    for about in (subject.id, id_of("nobody")):
        old = Evidence(about, subject.machine.table.me.incarnation - 1, liar.id, True)
        assert listener.machine.handle(Received(liar.id, witnessed(old)), world.now) == []
    assert listener.machine.table.state(subject.id) is State.ALIVE


def test_a_false_word_of_a_death_is_refuted(grown):
    world = grown(16)
    subject, liar, listener = subject_and_liar(world)
    for state in (State.SUSPECT, State.DEAD, State.LEFT):
        lie = Fate(subject.id, subject.machine.table.me.incarnation, state)
        world.inject(listener.number, liar.number, fated(lie))
        assert world.run_until(world.converged, 10.0) is not None, world


@given(data=st.data())
def test_no_message_of_a_neighbour_makes_the_machine_fail(member, data):
    me, machine = member(0), make_machine(member)
    link(machine, member(1), 0.0)
    incarnations = st.sampled_from([0, 1, 2, 2**52, 2**53 - 2, 2**53 - 1])
    records = st.builds(member, st.integers(0, 3), incarnation=incarnations, learner=st.booleans())
    ids = st.integers(0, 3).map(lambda n: member(n).peer_id)
    grave = st.sampled_from([State.SUSPECT, State.DEAD, State.LEFT])
    news = st.builds(
        News,
        st.lists(records, max_size=3).map(tuple),
        st.lists(st.builds(Fate, ids, incarnations, grave), max_size=3).map(tuple),
        st.lists(st.builds(Evidence, ids, incarnations, ids, st.booleans()), max_size=3).map(tuple),
    )
    digests = st.integers(0, 2**64 - 1)
    messages = st.one_of(
        st.builds(Heartbeat, digests),
        news,
        st.builds(SyncRequest, st.lists(digests, min_size=64, max_size=64).map(tuple)),
    )
    now = 0.0
    for message in data.draw(st.lists(messages, max_size=12)):
        now += data.draw(st.floats(0.0, 0.4))
        effects = machine.handle(Received(member(1).peer_id, message), now)
        assert effects or machine.wake_at() > now
        assert all(CONTROL.encode(e.message) for e in effects if isinstance(e, Send))
    assert not machine.table.has_left
    assert machine.table.me.peer_id == me.peer_id


# One machine.


def make_machine(member, *, profile=LAN, **changes):
    return OverlayMachine(
        member(0, **changes),
        network_id=member("network").peer_id,
        profile=profile,
        rng=random.Random(1),
        now=0.0,
    )


def link(machine, record, now):
    return machine.handle(LinkUp(record, machine.table.digest, ""), now)


def linked(member, count=4):
    machine = make_machine(member)
    for number in range(1, count):
        link(machine, member(number), 0.0)
    for number in range(1, count):
        machine.handle(Received(member(number).peer_id, Heartbeat(machine.table.digest)), 0.0)
    machine.handle(Wake(), 1.5 * LAN.flush_s)  # the last of the news about them goes out
    return machine


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(kind, effects):
    """What was sent of a kind of message; of a part of the news, one entry a link."""
    messages = [e.message for e in of(Send, effects)]
    parts = {Evidence: "evidence", Fate: "fates"}
    if kind in parts:
        return [item for m in messages if isinstance(m, News) for item in getattr(m, parts[kind])]
    return [message for message in messages if isinstance(message, kind)]


def reported(effects):
    return [effect.kind for effect in of(Report, effects)]


def test_a_machine_that_stood_still_suspects_nobody(member):
    machine = linked(member)
    effects = machine.handle(Wake(), 30.0)
    assert of(CloseLink, effects) == []
    assert sent(Evidence, effects) == []
    assert len(machine.links) == 3
    assert len(sent(Heartbeat, effects)) == 3


def test_a_stall_does_not_run_down_an_open_suspicion(member):
    machine = linked(member, count=8)
    subject = min(machine.graph.watched)
    observers = sorted(machine.graph.observers(subject) & machine.links)[:2]
    for observer in observers:
        doubt = Evidence(subject, 1, observer, False)
        machine.handle(Received(observer, witnessed(doubt)), 0.1)
    machine.handle(Wake(), 60.0)
    assert machine.table.state(subject) is State.SUSPECT


def test_silence_closes_the_link_and_is_told_to_the_others(member):
    machine = linked(member)
    silent, others = member(1).peer_id, [member(2).peer_id, member(3).peer_id]
    now, effects = 0.0, []
    while not of(CloseLink, effects):
        for peer in others:
            machine.handle(Received(peer, Heartbeat(machine.table.digest)), now)
        now += 0.25
        effects = machine.handle(Wake(), now)
        assert now < LAN.silence_longest_s + 0.5
    assert now >= LAN.silence_shortest_s
    assert [close.peer for close in of(CloseLink, effects)] == [silent]
    assert [dial.target for dial in of(Dial, effects)] == [silent]
    assert sent(Evidence, effects) == [Evidence(silent, 1, machine.table.my_id, False)] * 2
    assert reported(effects).count("link.down") == 1


def test_a_lost_link_is_redialled_at_once_and_a_refusal_is_hard_evidence(member):
    machine = linked(member)
    lost = member(1).peer_id
    effects = machine.handle(LinkDown(lost, orderly=False), 20.0)
    assert [dial.target for dial in of(Dial, effects)] == [lost]
    assert sent(Evidence, effects) == []
    effects = machine.handle(DialFailed(lost, "refused", "nobody there"), 20.1)
    assert sent(Evidence, effects) == [Evidence(lost, 1, machine.table.my_id, True)] * 2


@pytest.mark.parametrize(
    ("outcome", "hard"), [("refused", [True]), ("unreachable", [False]), ("declined", [])]
)
def test_what_a_failed_dial_proves(member, outcome, hard):
    machine = linked(member, count=3)
    gone = member(1).peer_id
    machine.handle(LinkDown(gone, orderly=True), 1.0)
    machine.handle(Wake(), 2.0)
    effects = machine.handle(DialFailed(gone, outcome, "why"), 2.1)
    assert [evidence.hard for evidence in sent(Evidence, effects)] == hard


def test_a_link_that_breaks_as_soon_as_it_is_up_is_not_redialled_in_a_hot_loop(member):
    machine = make_machine(member)
    other, now, dials = member(1), 0.0, 0
    machine.handle(LinkUp(other, 0, ""), now)
    while now < 10.0:
        effects = machine.handle(LinkDown(other.peer_id, orderly=False), now)
        while not of(Dial, effects):
            now = machine.wake_at()
            effects = machine.handle(Wake(), now)
        dials += 1
        now += 0.01
        machine.handle(LinkUp(other, machine.table.digest, other.peer_id), now)
        now += 0.01
    assert dials < 60


def test_an_address_at_which_another_member_answers_is_not_dialled_in_a_hot_loop(member):
    machine = linked(member, count=3)
    gone, other = member(1), member(2)
    now, dials = 20.0, 0
    effects = machine.handle(LinkDown(gone.peer_id, orderly=False), now)
    while now < 30.0 and dials < 1000:
        machine.handle(Received(other.peer_id, Heartbeat(machine.table.digest)), now)
        for dial in of(Dial, effects):
            dials += 1
            now += 0.01
            effects = machine.handle(LinkUp(other, machine.table.digest, dial.target), now)
            break
        else:
            now = min(now + 0.5, machine.wake_at())
            effects = machine.handle(Wake(), now)
    assert dials < 30


def test_a_link_is_drained_at_the_very_moment_it_asks_to_be_woken_for(member):
    for start in (0.3, 5.7):  # (5.7 + 3.0) - 5.7 < 3.0 in floating point
        machine = make_machine(member)
        for number in range(1, 12):
            machine.handle(LinkUp(member(number), 0, ""), start)
        now = start
        while len(machine.links) > 6 and now < start + 10:
            for peer in machine.links:
                machine.handle(Received(peer, Heartbeat(machine.table.digest)), now)
            now = machine.wake_at()
            effects = machine.handle(Wake(), now)
            assert effects or machine.wake_at() > now
        assert machine.links == machine.graph.wanted


def test_a_member_in_doubt_that_links_up_is_told_what_is_said_of_it(member):
    machine = linked(member, count=3)
    returner = member(5)
    death = Fate(returner.peer_id, 1, State.DEAD)
    machine.handle(Received(member(1).peer_id, News((returner,), (death,), ())), 0.1)
    effects = link(machine, returner, 1.0)
    heard = [e.message for e in of(Send, effects) if e.peer == returner.peer_id]
    assert fated(death) in heard
    risen = dataclasses.replace(returner, incarnation=2)
    effects = machine.handle(Received(returner.peer_id, told(risen)), 1.1)
    assert "member.returned" in reported(effects)
    assert {e.peer for e in of(Send, effects)} == {member(1).peer_id, member(2).peer_id}


def test_news_goes_to_every_link_but_the_one_it_came_from(member):
    machine = linked(member)
    effects = machine.handle(Received(member(1).peer_id, told(member(9))), 0.3)
    hearers = {e.peer for e in of(Send, effects) if isinstance(e.message, News)}
    assert hearers == {member(2).peer_id, member(3).peer_id}
    assert machine.handle(Received(member(2).peer_id, told(member(9))), 0.4) == []


def test_a_digest_that_stays_different_is_repaired_and_news_under_way_is_not(member):
    machine, other = linked(member, count=2), member(1).peer_id

    def beat(digest, now):
        return sent(SyncRequest, machine.handle(Received(other, Heartbeat(digest)), now))

    assert beat(1, 1.0) == []
    assert beat(1, 1.1) == []  # an answer to a doubt, not the next heartbeat
    assert beat(1, 2.0) == [SyncRequest(machine.table.digests)]
    assert beat(1, 3.0) == []
    changing = [beat(2 + n, 4.0 + n) for n in range(10)]
    assert sum(map(len, changing)) == 1  # after five heartbeats all the same


def test_a_message_on_a_link_that_is_gone_is_ignored(member):
    machine = linked(member, count=2)
    assert machine.handle(Received(member(7).peer_id, told(member(8))), 0.1) == []
    assert machine.handle(LinkDown(member(7).peer_id, orderly=False), 0.1) == []
    assert machine.table.get(member(8).peer_id) is None


def test_a_failed_dial_of_a_seed_is_reported(member):
    machine = make_machine(member)
    (dial,) = of(Dial, machine.handle(Join(("ws://seed:1",)), 0.0))
    assert dial == Dial("ws://seed:1", ("ws://seed:1",), LAN.dial_timeout_s)
    effects = machine.handle(DialFailed("ws://seed:1", "refused", "nobody"), 0.1)
    assert of(Report, effects) == [
        Report("dial.failed", {"address": "ws://seed:1", "reason": "nobody"})
    ]


def test_what_was_remembered_is_dialled_and_its_doubts_are_not_inherited(member):
    machine = make_machine(member)
    machine.remember(
        [
            Member(member(1), State.ALIVE),
            Member(member(2), State.SUSPECT),
            Member(member(3), State.DEAD),
        ],
        now=0.0,
    )
    states = [machine.table.state(member(number).peer_id) for number in (1, 2, 3)]
    assert states == [State.ALIVE, State.ALIVE, State.DEAD]
    dialled = {
        dial.target for at in range(20) for dial in of(Dial, machine.handle(Wake(), float(at)))
    }
    assert dialled == {member(n).peer_id for n in (1, 2, 3)}


def test_a_change_of_oneself_is_told_under_the_next_incarnation(member):
    machine = linked(member, count=3)
    effects = machine.describe_me(0.3, part=4)
    expected = member(0, part=4, incarnation=2)
    assert machine.table.me == expected
    assert sent(News, effects) == [told(expected)] * 2
