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
from overlay.machine import MAX_GUESTS
from overlay.profile import PROFILES
from overlay.records import Fate, Member, State, Vote
from overlay.topology import Choice
from overlay.wire import CONTROL, Evidence, Heartbeat, News, SyncPage, SyncRequest
from tests.overlay.one_machine import link, linked, make_machine, of, reported, sent
from tests.overlay.words import fated, proven, subject_and_liar, told, witnessed

LAN = PROFILES["lan"]
GONE = (State.DEAD, State.LEFT)


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
        lie = proven(listener.machine, subject.id, subject.machine.table.me.incarnation)
        lie = Fate(subject.id, lie.incarnation, state, lie.votes)
        world.inject(listener.number, liar.number, fated(lie))
        assert world.run_until(world.converged, 10.0) is not None, world


@given(data=st.data())
def test_no_message_of_a_neighbour_makes_the_machine_fail(member, data):
    me, machine = member(0), make_machine(member)
    link(machine, member(1), 0.0)
    incarnations = st.sampled_from([0, 1, 2, 2**52, 2**53 - 2, 2**53 - 1])
    records = st.builds(member, st.integers(0, 3), incarnation=incarnations, learner=st.booleans())
    ids = st.integers(0, 3).map(lambda n: member(n).peer_id)
    grave = st.sampled_from([State.SUSPECT, State.DEAD, State.LEFT, State.REVOKED])
    votes = st.builds(Vote, ids, incarnations, st.booleans(), st.just(b""))
    fates = st.lists(
        st.builds(Fate, ids, incarnations, grave, st.lists(votes, max_size=3).map(tuple)),
        max_size=3,
    ).map(tuple)
    news = st.builds(
        News,
        st.lists(records, max_size=3).map(tuple),
        fates,
        st.lists(
            st.builds(Evidence, ids, incarnations, ids, st.booleans(), st.just(b"")), max_size=3
        ).map(tuple),
    )
    digests = st.integers(0, 2**64 - 1)
    messages = st.one_of(
        st.builds(Heartbeat, digests),
        news,
        st.builds(SyncPage, st.lists(records, max_size=3).map(tuple), fates),
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


# Founding together.


def start_homeless(world, seeds_of, *, within_s=2.0):
    """Peers without a network come up within a while; `seeds_of[n]` are the numbers that `n` was
    told to join."""
    times = random.Random(world.seed)
    began = world.now
    for at, number in sorted((times.uniform(0.0, within_s), number) for number in seeds_of):
        world.run(began + at - world.now)
        seeds = [f"ws://peer{seed}:1" for seed in seeds_of[number]]
        world.start(number, seeds=seeds, network_id="")


def networks(world):
    """The networks of all who run, '' for those without."""
    return {peer.machine.network_id for peer in world.up()}


def is_one_network(world):
    return networks(world) != {""} and len(networks(world)) == 1 and world.converged()


def everybody(count):
    return {number: range(count) for number in range(count)}


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 1), (8, 2), (20, 3)])
def test_peers_with_one_configuration_for_all_found_one_network(make_world, count, seed):
    world = make_world(seed=seed)
    start_homeless(world, everybody(count))
    assert world.run_until(lambda: is_one_network(world), 20.0) is not None, world
    assert len(world.heard("founded")) == 1, world
    assert world.heard("member.suspect", "member.dead") == [], world


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (5, 1), (12, 2)])
def test_peers_that_join_each_other_in_a_ring_found_one_network(make_world, count, seed):
    world = make_world(seed=seed)
    start_homeless(world, {number: [(number + 1) % count] for number in range(count)})
    assert world.run_until(lambda: is_one_network(world), 30.0) is not None, world
    assert len(world.heard("founded")) == 1, world


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (8, 1), (12, 2), (20, 3)])
def test_peers_that_join_each_other_in_a_chain_found_one_network(make_world, count, seed):
    world = make_world(seed=seed)
    chain = {number: [number + 1] for number in range(count - 1)}
    start_homeless(world, {**chain, count - 1: [count - 2]})
    assert world.run_until(lambda: is_one_network(world), 60.0) is not None, world
    assert len(world.heard("founded")) == 1, world


def test_the_lowest_id_brings_its_seeds_home_though_nobody_was_told_to_join_it(make_world, id_of):
    world = make_world(seed=0)
    first, second, lowest = sorted(range(3), key=id_of, reverse=True)
    start_homeless(world, {first: [second], second: [first], lowest: [first]})
    assert world.run_until(lambda: is_one_network(world), 60.0) is not None, world
    assert len(world.heard("founded")) == 1, world


@pytest.mark.parametrize("how", ["refuses", "is silent"])
@pytest.mark.parametrize("told", [range(5), [2]])
def test_nobody_founds_while_an_address_does_not_answer_that_anybody_was_given(
    make_world, how, told
):
    world = make_world(seed=4)
    start_homeless(world, {n: [*range(4), *([4] if n in told else [])] for n in range(4)})
    if how == "is silent":
        world.start(4, seeds=[f"ws://peer{n}:1" for n in range(5)], network_id="")
        world.cut_off(4)
    world.run(60.0)
    assert networks(world) == {""}, world
    if how == "is silent":
        world.restore(4)
    else:
        world.start(4, seeds=[f"ws://peer{n}:1" for n in range(5)], network_id="")
    assert world.run_until(lambda: is_one_network(world), 30.0) is not None, world
    assert len(world.heard("founded")) == 1, world


def test_who_waits_for_a_silent_address_joins_the_network_behind_it(make_world):
    world = make_world(seed=5)
    start_homeless(world, {number: range(5) for number in range(4)})
    world.run(30.0)
    world.start(4)
    assert world.run_until(lambda: is_one_network(world), 20.0) is not None, world
    assert world.heard("founded") == [], world


def test_two_founders_that_meet_stay_two_networks(make_world):
    world = make_world(seed=6)
    left, right = range(3), range(3, 6)
    start_homeless(world, {n: left if n in left else right for n in range(6)})
    world.run(20.0)
    before = {n: world.peers[n].machine.network_id for n in range(6)}
    assert len(set(before.values())) == 2, world
    assert "" not in before.values(), world
    world._handle(world.peers[0], Join((world.peers[4].address,)))
    world.run(30.0)
    assert {n: world.peers[n].machine.network_id for n in range(6)} == before, world
    for number in range(6):
        live = {record.peer_id for record in world.peers[number].machine.table.live()}
        assert live == {world.peers[n].id for n in (left if number in left else right)}, world


# A hundred at one seed.


@pytest.mark.parametrize(("seed", "learner"), [(1, True), (2, False)])
def test_a_hundred_newcomers_at_one_seed_are_let_in_a_few_at_a_time(make_world, seed, learner):
    world = make_world(seed=seed)
    world.start(0, learner=learner)
    world.run(2.0)
    machine, guests = world.peers[0].machine, []
    for number in range(1, 101):
        world.start(number, seeds=(0,), network_id="")

    def is_done():
        guests.append(len(machine.links - machine.graph.wanted))
        return world.converged()

    assert world.run_until(is_done, 20.0) is not None, world
    assert max(guests) <= MAX_GUESTS, world
    assert networks(world) == {world.network_id}
    # Measured 730 to 880: each of a hundred gets the table in a page or two, and its news goes to
    # as many as are linked then.
    assert world.sent_by[0] <= 1500, world
    world.kill(0)
    assert world.run_until(world.converged, 10.0) is not None, world
    assert {said.about for said in world.heard("member.dead")} == {world.peers[0].id}, world


# Doubts of one.


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (4, 1), (7, 2), (16, 3), (30, 4)])
def test_a_cut_line_between_two_makes_nobody_suspect(make_world, count, seed):
    world = make_world(seed=seed).settled(count)
    one = world.peers[seed % count]
    other = world.peer(min(one.machine.links))
    world.cut_pair(one.number, other.number)
    world.run(60.0)
    assert other.id not in one.machine.links
    assert world.heard("member.suspect", "member.dead") == [], world
    assert {peer.machine.table.me.incarnation for peer in world.up()} == {1}, world
    world.mend()
    assert world.run_until(world.converged, 15.0) is not None, world


def test_a_member_that_one_observer_alone_cannot_reach_is_no_case_for_long(member):
    machine = linked(member, count=8)
    subject = min(machine.graph.watched)
    observer = min(machine.graph.observers(subject) & machine.links)
    doubt = Evidence(subject, 1, observer, False)
    now = 1.0
    machine.handle(Received(observer, witnessed(doubt)), now)
    assert machine._detector.has_cases
    for _ in range(8):  # the others beat on
        now += 0.25
        for peer in sorted(machine.links):
            machine.handle(Received(peer, Heartbeat(machine.table.digest)), now)
    assert now > 1.0 + LAN.lapse_s
    assert not machine._detector.has_cases
    assert machine.table.state(subject) is State.ALIVE
    assert subject in machine.links


def test_an_answer_that_overtakes_the_question_is_an_answer(member):
    """The member hears the doubt sooner than this observer, and beats before it is asked for."""
    machine = linked(member, count=8)
    subject = min(machine.graph.watched)
    observer = min(machine.graph.observers(subject) & machine.links)
    machine.handle(Received(subject, Heartbeat(machine.table.digest)), 1.0)
    doubt = Evidence(subject, 1, observer, False)
    now, effects = 1.02, machine.handle(Received(observer, witnessed(doubt)), 1.02)
    while now < 1.95:
        now += 0.05
        for peer in sorted(machine.links - {subject}):
            effects += machine.handle(Received(peer, Heartbeat(machine.table.digest)), now)
        effects += machine.handle(Wake(), now)
    assert of(CloseLink, effects) == []
    assert machine.table.state(subject) is State.ALIVE


# Black holes.


def test_a_black_hole_is_found_blames_nobody_at_first_and_comes_back_as_itself(make_world):
    world = make_world(seed=1).settled(60)
    before = world.peers[7].machine.table.me
    world.cut_off(7)
    others = [number for number in range(60) if number != 7]
    took = world.run_until(lambda: all(world.state(n, 7) is State.DEAD for n in others), 8.0)
    assert took is not None, world
    health, cut_at = world.peers[7].machine._detector.health, world.now
    assert world.run_until(lambda: health.hold_until > cut_at, 20.0) is not None, world
    world.run(health.hold_until - world.now)
    assert [s for s in world.heard("member.suspect", "member.dead") if s.by == 7] == [], world
    world.run(5.0)
    world.restore(7)
    assert world.run_until(world.converged, 15.0) is not None, world
    after = world.peers[0].machine.table.get(before.peer_id)
    assert after == dataclasses.replace(before, incarnation=after.incarnation)
    assert after.incarnation > before.incarnation
    assert {s.by for s in world.heard("member.returned", about=7)} == set(others)
    assert {s.about for s in world.heard("member.dead")} == {before.peer_id}, world


@pytest.mark.parametrize(("count", "cut", "seed"), [(6, 1, 0), (8, 1, 1), (20, 3, 2)])
def test_who_was_isolated_convinces_nobody_that_others_died(make_world, count, cut, seed):
    world = make_world(seed=seed).settled(count)
    world.cut_off(*range(cut))
    world.run(30.0)
    world.restore(*range(cut))
    assert world.run_until(world.converged, 20.0) is not None, world
    world.run(10.0)
    isolated = {world.peers[number].id for number in range(cut)}
    deaths = [s for s in world.heard("member.dead") if s.by >= cut]
    assert {said.about for said in deaths} <= isolated, world


@pytest.mark.parametrize(("count", "seed"), [(4, 0), (7, 1), (16, 2)])
def test_who_hears_nothing_but_is_heard_kills_nobody(make_world, count, seed):
    world = make_world(seed=seed).settled(count)
    world.deaf.add(1)
    world.run(30.0)
    world.deaf.clear()
    assert world.run_until(world.converged, 15.0) is not None, world
    assert [s for s in world.heard("member.dead") if s.by != 1] == [], world


@pytest.mark.parametrize("seed", range(3))
def test_a_healed_cut_makes_nobody_report_a_death_on_its_own_side(make_world, seed):
    world = make_world(seed=seed).settled(16)
    world.partition(range(8), range(8, 16))
    world.run(60.0)
    world.forget_what_was_said()
    world.heal()
    assert world.run_until(world.converged, 15.0) is not None, world
    world.run(10.0)
    side = {world.peers[number].id: number < 8 for number in range(16)}
    wrong = [s for s in world.heard("member.dead") if side[s.about] == (s.by < 8)]
    assert wrong == [], world


# Going for good, and coming back.


def test_who_left_is_never_dialled_again(make_world):
    world = make_world(seed=2).settled(12)
    world.leave(5)
    gone, left_at = world.peers[5], world.now
    world.run(90.0)
    late = [d for d in world.dialled if d[2].target == gone.id and d[0] > left_at + LAN.trip_s]
    assert late == [], world
    assert world.believed(5, State.LEFT), world


@pytest.mark.parametrize("down_s", [0.005, 0.03, 0.1, 0.4, 1.5])
def test_a_restarted_peer_is_not_taken_for_its_ghost(make_world, down_s):
    world = make_world(seed=3).settled(20)
    world.kill(4)
    world.run(down_s)
    world.start(4, seeds=(2,), incarnation=2)
    back_at = world.now
    assert world.run_until(world.converged, 5.0) is not None, world
    world.run(15.0)
    assert world.converged(), world
    assert world.peers[4].machine.table.me.incarnation == 2, world
    late = [s for s in world.heard("member.dead", "member.suspect") if s.at > back_at + 0.5]
    assert late == [], world


@pytest.mark.parametrize("count", [3, 4, 7, 8, 16])
@pytest.mark.parametrize("hard", [True, False])
def test_one_liar_about_everybody_kills_nobody(make_world, count, hard):
    world = make_world(seed=5).settled(count)
    liar = world.peers[0]
    for _ in range(5):
        lies = [
            Evidence(peer, liar.machine.table.get(peer).incarnation, liar.id, hard)
            for peer in sorted(liar.machine.graph.watched)
        ]
        for listener in sorted(liar.machine.links):
            world.inject(world.peer(listener).number, 0, witnessed(*lies))
        world.run(1.0)
    assert world.heard("member.dead") == [], world
    assert world.run_until(world.converged, 10.0) is not None, world


# One machine.


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
    machine.handle(Received(member(1).peer_id, told(returner)), 0.1)
    death = proven(machine, returner.peer_id)
    machine.handle(Received(member(1).peer_id, fated(death)), 0.1)
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


# Disputed deaths.


def messages_to(peer, effects):
    return [effect.message for effect in of(Send, effects) if effect.peer == peer]


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
@pytest.mark.parametrize("orderly", [True, False])
def test_a_death_that_a_live_link_contradicts_is_passed_to_the_member_and_counts_when_it_ends(
    member, state, orderly
):
    machine = linked(member)
    subject = member(1).peer_id
    fate = Fate(subject, 1, state, proven(machine, subject).votes)
    effects = machine.handle(Received(member(2).peer_id, fated(fate)), 0.3)
    assert machine.table.state(subject) is State.ALIVE
    assert messages_to(subject, effects) == [fated(fate)]
    assert messages_to(member(3).peer_id, effects) == []
    machine.handle(LinkDown(subject, orderly=orderly), 0.4)
    assert machine.table.state(subject) is state


def test_a_disputed_death_is_asked_about_but_once(member):
    machine = linked(member)
    subject = member(1).peer_id
    fate = proven(machine, subject)
    machine.handle(Received(member(2).peer_id, fated(fate)), 0.3)
    assert sent(Fate, machine.handle(Received(member(3).peer_id, fated(fate)), 0.4)) == []


def test_a_refuted_dispute_is_forgotten(member):
    machine = linked(member)
    subject = member(1).peer_id
    fate = proven(machine, subject)
    machine.handle(Received(member(2).peer_id, fated(fate)), 0.3)
    machine.handle(Received(subject, told(member(1, incarnation=2))), 0.4)
    machine.handle(LinkDown(subject, orderly=True), 0.5)
    assert machine.table.state(subject) is State.ALIVE


def test_a_second_dispute_counts_like_the_first(member):
    machine = linked(member)
    subject, teller = member(1).peer_id, member(2).peer_id
    machine.handle(Received(teller, fated(proven(machine, subject))), 0.3)
    machine.handle(Received(subject, told(member(1, incarnation=2))), 0.4)
    second = proven(machine, subject, 2)
    effects = machine.handle(Received(teller, fated(second)), 0.5)
    assert fated(second) in messages_to(subject, effects)
    machine.handle(LinkDown(subject, orderly=False), 0.6)
    assert machine.table.state(subject) is State.DEAD


def test_a_disputed_death_counts_when_the_link_is_silent(member):
    machine = linked(member, count=5)
    subject = member(1).peer_id
    now = 1.0
    for number in (1, 2, 3, 4):
        machine.handle(Received(member(number).peer_id, Heartbeat(machine.table.digest)), now)
    machine.handle(Received(member(2).peer_id, fated(proven(machine, subject))), now)
    while subject in machine.links and now < 6.0:
        now += 0.1
        for number in (2, 3, 4):
            machine.handle(Received(member(number).peer_id, Heartbeat(machine.table.digest)), now)
        machine.handle(Wake(), now)
    assert now <= 1.0 + LAN.silence_longest_s + 0.2
    assert machine.table.state(subject) is State.DEAD


def test_a_disputed_death_is_refuted_by_the_member_and_believed_by_nobody_with_a_link(make_world):
    world = make_world(seed=7).settled(16)
    subject = world.peers[1]
    listener = world.peer(min(subject.machine.links))
    liar = world.peer(min(listener.machine.links - {subject.id}))
    world.inject(listener.number, liar.number, fated(proven(listener.machine, subject.id)))
    assert world.run_until(
        lambda: all(p.machine.table.get(subject.id).incarnation == 2 for p in world.up()), 1.0
    ), world
    assert world.heard("member.dead") == [], world
    assert world.run_until(world.converged, 5.0) is not None, world


# Looking for those whom old tables call dead.


@pytest.fixture
def doubtful(member):
    """A machine that twice read of the death of a member that it has no link to; its dial, and
    when."""
    machine = linked(member, count=4)
    for number in range(4, 16):
        machine.handle(Received(member(1).peer_id, told(member(number))), 0.5)
    subject = min({member(n).peer_id for n in range(4, 16)} - machine.graph.wanted)
    page = SyncPage((), (Fate(subject, 1, State.DEAD),))
    machine.handle(Received(member(1).peer_id, page), 1.0)
    for number in (1, 2, 3):
        machine.handle(Received(member(number).peer_id, Heartbeat(machine.table.digest)), 6.0)
    effects = machine.handle(Received(member(2).peer_id, page), 6.1)
    (dial,) = [effect for effect in of(Dial, effects) if effect.target == subject]
    assert machine.table.state(subject) is State.ALIVE
    return machine, dial, page


def test_whom_a_look_does_not_find_is_believed_to_be_dead(doubtful, member):
    machine, dial, page = doubtful
    machine.handle(DialFailed(dial.target, "unreachable", "no answer"), 6.5)
    assert machine.table.state(dial.target) is State.ALIVE
    machine.handle(Received(member(3).peer_id, page), 6.6)
    assert machine.table.state(dial.target) is State.DEAD


def test_who_declines_is_there(doubtful, member):
    machine, dial, page = doubtful
    machine.handle(DialFailed(dial.target, "declined", "busy"), 6.5)
    machine.handle(Received(member(3).peer_id, page), 6.6)
    assert machine.table.state(dial.target) is State.ALIVE


def test_whom_a_look_finds_is_asked_and_answers(doubtful, member):
    machine, dial, page = doubtful
    number = next(n for n in range(4, 16) if member(n).peer_id == dial.target)
    effects = link(machine, member(number), 6.5)
    assert Fate(dial.target, 1, State.SUSPECT) in sent(Fate, effects)
    machine.handle(Received(dial.target, told(member(number, incarnation=2))), 6.6)
    machine.handle(Received(member(3).peer_id, page), 20.0)
    assert machine.table.state(dial.target) is State.ALIVE


# The quick look after a lost link.


def test_a_quick_look_that_meets_an_accept_queue_proves_nothing_and_is_repeated_at_once(member):
    machine = linked(member)
    lost = member(1).peer_id
    (quick,) = of(Dial, machine.handle(LinkDown(lost, orderly=False), 20.0))
    assert (quick.target, quick.timeout_s) == (lost, LAN.quick_dial_s)
    now = 20.0 + LAN.quick_dial_s
    effects = machine.handle(DialFailed(lost, "unreachable", "no answer"), now)
    assert sent(Evidence, effects) == []
    assert machine.wake_at() <= now + LAN.flush_s
    now += LAN.flush_s
    (second,) = of(Dial, machine.handle(Wake(), now))
    assert (second.target, second.timeout_s) == (lost, LAN.dial_timeout_s)
    effects = machine.handle(DialFailed(lost, "refused", "nobody there"), now + 0.01)
    assert sent(Evidence, effects) == [Evidence(lost, 1, machine.table.my_id, True)] * 2


def test_the_dial_after_the_quick_look_is_evidence_whatever_comes_of_it(member):
    machine = linked(member)
    lost = member(1).peer_id
    machine.handle(LinkDown(lost, orderly=False), 20.0)
    machine.handle(DialFailed(lost, "unreachable", "no answer"), 20.3)
    machine.handle(Wake(), 20.3 + LAN.flush_s)
    effects = machine.handle(DialFailed(lost, "unreachable", "no answer"), 23.5)
    assert sent(Evidence, effects) == [Evidence(lost, 1, machine.table.my_id, False)] * 2


# Running late.


def beat(machine, numbers, member, now):
    """These are heard from at `now`, and the machine is run."""
    effects = []
    for number in numbers:
        heartbeat = Heartbeat(machine.table.digest)
        effects += machine.handle(Received(member(number).peer_id, heartbeat), now)
    return effects + machine.handle(Wake(), now)


def silent_after_s(machine, member, numbers, now):
    """How long after `now` the link to member 1 is closed when only `numbers` are heard on; the
    machine is run exactly when it asks to be."""
    began, heard_at = now, now
    while member(1).peer_id in machine.links and now < began + 60.0:
        now = min(machine.wake_at(), heard_at + 0.5)
        if now == heard_at + 0.5:
            heard_at = now
            beat(machine, numbers, member, now)
        else:
            machine.handle(Wake(), now)
    return now - began


def in_rhythm(member, *, beats=6, count=7):
    """A machine that has heard everybody each second; the time of the last beat."""
    machine = linked(member, count=count)
    now = 0.0
    for _ in range(beats):
        for _ in range(4):
            now += 0.25
            machine.handle(Wake(), now)
        beat(machine, range(1, count), member, now)
    assert machine.health == 0
    return machine, now


def test_a_machine_that_is_run_late_has_patience_with_others_and_recovers(member):
    machine, now = in_rhythm(member)
    others = range(2, 7)
    usual = silent_after_s(machine, member, others, now)
    assert LAN.silence_shortest_s - 1e-9 <= usual <= LAN.silence_longest_s + 1e-9

    machine, now = in_rhythm(member)
    now = machine.wake_at() + 2.5
    beat(machine, range(1, 7), member, now)
    late = machine.health
    assert late == 3  # one for the stall and one for each heartbeat of it
    assert len(machine.links) == 6
    patient = silent_after_s(machine, member, others, now)
    assert usual + 0.5 < patient <= (1 + late) * LAN.silence_longest_s


def test_patience_ends_after_as_many_calm_heartbeats_and_silence_is_found_as_before(member):
    machine, now = in_rhythm(member)
    others = range(2, 7)
    usual = silent_after_s(machine, member, others, now)

    machine, now = in_rhythm(member)
    now = machine.wake_at() + 2.5
    beat(machine, range(1, 7), member, now)
    for quarter in range(1, 25):  # the beat of the stall itself is not calm
        now += 0.25
        beat(machine, () if quarter % 4 else range(1, 7), member, now)
    assert machine.health == 0
    assert silent_after_s(machine, member, others, now) <= usual + 0.5


def test_whoever_asks_to_be_woken_asks_for_the_future(make_world):
    """A machine that is run when it asked to be has something to do then, or asks for later."""
    world = make_world(seed=0).settled(16)
    world.partition(range(8), range(8, 16))
    world.run(20.0)  # the network itself refuses a busy loop
    world.heal()
    assert world.run_until(world.converged, 20.0) is not None, world


def test_who_left_is_not_dialled_from_memory(member):
    machine = make_machine(member)
    machine.remember([Member(member(1), State.LEFT)], now=0.0)
    assert not any(of(Dial, machine.handle(Wake(), float(at))) for at in range(120))


def test_evidence_about_a_former_life_says_nothing_of_the_present_one(member):
    machine = linked(member, count=8)
    subject = min(machine.graph.watched)
    number = next(n for n in range(1, 8) if member(n).peer_id == subject)
    machine.handle(LinkDown(subject, orderly=False), 1.0)
    observers = sorted(machine.graph.observers(subject) & machine.links)[:3]
    machine.handle(Received(observers[0], witnessed(Evidence(subject, 1, observers[0], True))), 1.1)
    link(machine, member(number, incarnation=2), 1.2)
    for observer in observers:
        late = Evidence(subject, 1, observer, True)
        machine.handle(Received(observer, witnessed(late)), 1.3)
    assert machine.table.state(subject) is State.ALIVE
    assert machine.table.get(subject).incarnation == 2
