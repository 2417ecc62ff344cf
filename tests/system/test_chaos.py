"""Faults on real daemons: killed, stopped, cut off, corrupted, split, out of time.

What always has to hold: nobody who runs and can be reached is declared dead, whoever is back is
back as itself, and the links are those that the graph wants once the fault is over. The choices are
drawn from GOSSIPD_CHAOS_SEED, printed when a test fails.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from cli.local_peers import wait_until
from tests.system.namespaces import NoNamespaces, split_network
from tests.system.proxied import open_proxied
from tests.system.swarm import (
    assert_sound,
    declared_dead,
    incarnation,
    is_whole,
    links,
    open_swarm,
    states,
    throughout,
)
from tests.system.tcp_proxy import BLACK_HOLE, Behaviour

# Taken out of the environment: the daemons would refuse a GOSSIPD_ variable that they do not know.
SEED = int(os.environ.pop("GOSSIPD_CHAOS_SEED", "7"))

# The `local` profile: silence is noticed after 1.2 to 2.5 s, refuted or proven after 0.5 to 2.5 s.
UNNOTICED_S = 0.7
DETECTED_S = 10.0
HEALED_S = 15.0
# A link that one of its two ends can make needs a dial that hangs (2 s) and a few tries.
LINKED_S = 8.0


@pytest.fixture(autouse=True)
def rng():
    print(f"GOSSIPD_CHAOS_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def swarm(tmp_path_factory):
    with open_swarm(tmp_path_factory.mktemp("c")) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory):
    with (
        open_swarm(tmp_path_factory.mktemp("w")) as swarm,
        open_proxied(swarm, 5, seed=SEED) as web,
    ):
        web.found()
        yield web


@pytest.fixture
def web(shared_web):
    """Five daemons behind honest proxies, one network."""
    shared_web.heal()
    wait_for_whole(shared_web.peers)
    return shared_web


def wait_for_deaths(victims, others):
    """Until all others hold all victims for dead."""
    names = [peer.name for peer in victims]

    def known():
        return all(states(peer)[name] == "dead" for peer in others for name in names)

    wait_until(known, DETECTED_S, f"all others know that {' '.join(names)} are dead")


def wait_for_whole(peers, limit_s=HEALED_S):
    """Until these peers are one network with the links that it wants."""
    try:
        wait_until(lambda: is_whole(peers), limit_s, "one network, linked as it should be")
    except TimeoutError:
        for peer in peers:
            print(peer.name, states(peer), sorted(links(peer)))
        raise


# Killed and stopped.


def test_a_killed_founder_and_a_killed_half_are_known_dead_and_the_rest_is_one_network(swarm, rng):
    founder, *others = swarm.found(8)
    swarm.kill([founder])
    wait_for_deaths([founder], others)
    wait_for_whole(others)
    newcomer = swarm.start("late", "--join", swarm["p1"].ticket)
    everybody = [*others, newcomer]
    wait_for_whole(everybody)
    assert newcomer.call("node.info")["network"] == founder.facts["network"]
    half = rng.sample(everybody, 4)
    survivors = [peer for peer in everybody if peer not in half]
    swarm.kill(half)
    wait_for_deaths(half, survivors)
    wait_for_whole(survivors)
    assert declared_dead(survivors) == {peer.name for peer in [founder, *half]}
    assert_sound(survivors)


def test_stopped_daemons_are_declared_dead_and_return_by_refutation(swarm, rng):
    peers = swarm.found(5)
    stopped = rng.sample(peers, 2)
    others = [peer for peer in peers if peer not in stopped]
    born = {peer.name: incarnation(others[0], peer) for peer in stopped}
    for peer in stopped:
        peer.process.send_signal(signal.SIGSTOP)
    wait_for_deaths(stopped, others)
    for peer in stopped:
        peer.process.send_signal(signal.SIGCONT)
    wait_for_whole(peers)
    names = {peer.name for peer in stopped}
    for peer in others:
        assert declared_dead([peer]) == names
        assert {event["data"]["name"] for event in peer.events("member.returned")} == names
        assert all(incarnation(peer, of=back) > born[back.name] for back in stopped)
    for peer in stopped:
        assert peer.call("node.info")["pid"] == peer.process.pid
        # Time in which it did not run is nobody's silence, not even the other stopped one's.
        assert declared_dead([peer]) <= names - {peer.name}
    assert_sound(peers)


# Cut, swallowed, corrupted, delayed.


def test_links_that_are_reset_are_made_again_and_nobody_is_declared_dead(web, rng):
    began = time.time()
    for _ in range(3):
        victim = rng.choice(web.peers)
        seen = victim.events("link.")[-1]["seq"]
        assert web.cut(victim.name) >= 4
        wait_for_links_again(victim, seen, 4)
        wait_for_whole(web.peers)
    assert declared_dead(web.peers, since=began) == set()
    assert_sound(web.peers)


def wait_for_links_again(peer, seen, count):
    """Until so many links are up after event number `seen`."""

    def again():
        fresh = [event for event in peer.events("link.up") if event["seq"] > seen]
        return len({event["data"]["peer"] for event in fresh}) >= count

    wait_until(again, LINKED_S, f"{peer.name} has {count} links again")


@pytest.mark.parametrize("how", ["refused", "silently dropped"])
def test_a_daemon_that_cannot_be_dialled_comes_back_by_dialling(web, how):
    began = time.time()
    # The others have lower ids, and so each of them would rather dial than be dialled.
    victim = max(web.peers, key=lambda peer: peer.peer_id)
    door = web.proxies[victim.name]
    if how == "refused":
        door.refuse()
    else:
        door.behave(BLACK_HOLE)
    seen = victim.events("link.")[-1]["seq"]
    web.cut(victim.name)
    wait_for_links_again(victim, seen, 4)
    wait_for_whole(web.peers)
    # A reset and a refused dial look like a crash: it may be doubted, and nobody else.
    assert declared_dead(web.peers, since=began) <= {victim.name}
    assert_sound(web.peers)


@pytest.mark.parametrize(
    "hole",
    [{"deaf": True, "mute": True}, {"deaf": True}, {"mute": True}],
    ids=["both ways", "deaf", "mute"],
)
def test_a_hole_shorter_than_detection_kills_nobody(web, rng, hole):
    began = time.time()
    victim = rng.choice(web.peers)
    web.hold(victim.name, **hole)
    throughout(
        UNNOTICED_S, lambda: not declared_dead(web.peers, since=began), "nobody is declared dead"
    )
    web.heal()
    wait_for_whole(web.peers)
    assert declared_dead(web.peers, since=began) == set()
    assert_sound(web.peers)


@pytest.mark.parametrize(
    "hole",
    [{"deaf": True, "mute": True}, {"deaf": True}, {"mute": True}],
    ids=["both ways", "deaf", "mute"],
)
def test_a_longer_hole_is_a_death_until_it_passes_again(web, rng, hole):
    began = time.time()
    victim = rng.choice(web.peers)
    others = [peer for peer in web.peers if peer is not victim]
    born = incarnation(others[0], victim)
    web.hold(victim.name, **hole)
    wait_for_deaths([victim], others)
    web.heal()
    wait_for_whole(web.peers)
    assert declared_dead(others, since=began) == {victim.name}
    assert incarnation(others[0], victim) > born
    assert_sound(web.peers)


def test_flipped_bytes_cost_links_and_no_daemon(web):
    before = {peer.name: len(peer.events("link.down")) for peer in web.peers}
    web.behave(Behaviour(corrupt=0.01))
    wait_until(
        lambda: all(len(peer.events("link.down")) > before[peer.name] for peer in web.peers),
        DETECTED_S,
        "every daemon lost a link",
    )
    throughout(3.0, lambda: all(p.process.poll() is None for p in web.peers), "all run")
    web.heal()
    wait_for_whole(web.peers)
    assert_sound(web.peers)


def test_a_long_way_is_no_silence(swarm):
    with open_proxied(swarm, 3, seed=SEED) as far:
        far.behave(Behaviour(delay_s=0.2, jitter_s=0.05))
        far.found("--profile", "lan")
        seen = {peer.name: peer.events("")[-1]["seq"] for peer in far.peers}
        throughout(
            4.0,
            lambda: all(peer.events("member.suspect") == [] for peer in far.peers),
            "nobody is suspected",
        )
        lost = [e for p in far.peers for e in p.events("link.down") if e["seq"] > seen[p.name]]
        assert lost == []
        assert is_whole(far.peers)
        assert_sound(far.peers)


# Split.


def test_halves_that_declared_each_other_dead_become_one_network_again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s")
    try:
        with split_network(3, 3) as network, open_swarm(folder) as swarm:
            split_and_join(swarm, network)
    except NoNamespaces as error:
        pytest.skip(str(error))


def split_and_join(swarm, network):
    hosts = [*network.left, *network.right]
    first = start_on(swarm, hosts[0], "p0")
    rest = [
        lambda name=f"p{number}", host=host: start_on(swarm, host, name, "--join", first.ticket)
        for number, host in enumerate(hosts[1:], 1)
    ]
    peers = [first, *swarm.start_all(rest)]
    left, right = peers[:3], peers[3:]
    wait_for_whole(peers)
    network.partition()
    wait_for_deaths(right, left)
    wait_for_deaths(left, right)
    assert is_whole(left)
    assert is_whole(right)
    network.join()
    wait_for_whole(peers, 35)
    assert declared_dead(left) == {peer.name for peer in right}
    assert declared_dead(right) == {peer.name for peer in left}
    assert_sound(peers)


def start_on(swarm, host, name, *flags):
    return swarm.start(name, "--listen", f"{host.address}:0", *flags, prefix=host.prefix)


# Out of time.


def test_a_daemon_whose_clocks_jump_accuses_nobody_and_keeps_its_links(swarm):
    first = swarm.start("p0")
    told = swarm.folder / "jump"
    wrapper = (sys.executable, str(Path(__file__).with_name("jumping_clock.py")), str(told))
    starts = [lambda name=f"p{n}": swarm.start(name, "--join", first.ticket) for n in (1, 2)]
    starts += [lambda: swarm.start("jumper", "--join", first.ticket, prefix=wrapper)]
    peers = [first, *swarm.start_all(starts)]
    wait_for_whole(peers)
    jumper = swarm["jumper"]
    # Set forward, set back, woken up after a minute, after an hour with a wall clock that is late.
    for wall_s, monotonic_s in ((18_000, 0), (-32_400, 0), (60, 60), (0, 3600)):
        told.write_text(f"{wall_s} {monotonic_s}")
        jumper.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not told.exists(), 5, "the clock has jumped")
        throughout(1.3, lambda: declared_dead(peers) == set(), "nobody is declared dead")
        wait_for_whole(peers)
    assert declared_dead(peers) == set()
    assert jumper.events("link.down") == []
    assert_sound(peers)
