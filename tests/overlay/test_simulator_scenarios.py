"""What the simulator's scenarios do and measure, on small networks."""

import dataclasses
import json

import pytest

from overlay.effects import Report
from overlay.profile import PROFILES
from overlay.records import Fate, State, Vote
from overlay.simulator.lines import Lines, parse_latency
from overlay.simulator.report import LABELS, Settings, simulate, table
from overlay.simulator.scenarios import Options
from overlay.simulator.watch import Watched, spread
from overlay.wire import News

ALWAYS = {
    "known_first_s", "known_median_s", "known_last_s", "one_component_s", "full_degree_s",
    "healed_s", "false_deaths", "spectral_gap", "spectral_gap_before", "bytes_per_peer_s",
    "messages_per_peer_s", "bytes_per_peer_s_during", "messages_per_peer_s_during", "events",
    "degree_min", "degree_max", "simulated_s", "options", "scenario", "peers", "seed", "profile",
    "latency", "loss",
}  # fmt: skip


def simulated(scenario, *, peers=24, seed=1, latency="lan", loss=0.0, **options):
    """The report of a small simulation."""
    settings = Settings(peers, seed, scenario, Options(**options), latency=latency, loss=loss)
    return simulate(settings)


# Scenarios.


@pytest.mark.parametrize(
    ("how", "latest_s"),
    # refused at once; silent at most 3.5 s, then 0.5 s to ask, 0.8 s to refute (4.8 s at most)
    [("crash", 1.5), ("blackhole", 8.0), ("stop", 8.0)],
)
@pytest.mark.parametrize(("peers", "fraction"), [(2, 0.5), (9, 0.2), (40, 0.3)])
def test_the_killed_are_known_to_all_in_time_and_nobody_else_is_lost(
    how, latest_s, peers, fraction
):
    report = simulated("kill", peers=peers, how=how, fraction=fraction)
    assert report["false_deaths"] == 0, report
    assert report["victims"] + report["survivors"] == peers
    assert 0 < report["known_first_s"] <= report["known_median_s"] <= report["known_last_s"]
    assert report["known_last_s"] <= latest_s, report
    assert report["one_component_s"] <= report["full_degree_s"] <= 12.0, report
    assert report["healed_s"] == report["full_degree_s"]


def test_churn_ends_in_a_whole_network_that_knows_every_newcomer():
    report = simulated("churn", peers=40, duration_s=20.0, joins=1.0, leaves=0.5)
    assert report["false_deaths"] == 0, report
    assert report["joined"] > 5
    assert 0 <= report["known_first_s"] <= report["known_last_s"] <= 5.0, report
    assert report["healed_s"] <= 10.0, report
    assert report["events"]["member.left"] > 0


@pytest.mark.parametrize(("peers", "groups"), [(2, 2), (7, 3), (30, 2)])
def test_a_partition_is_noticed_and_heals_after_its_end(peers, groups):
    report = simulated("partition", peers=peers, groups=groups, duration_s=20.0)
    assert report["false_deaths"] == 0, report
    assert 0 < report["known_first_s"] <= report["known_last_s"] <= 20.0
    assert report["one_component_s"] <= report["healed_s"] <= 15.0, report
    assert report["events"]["member.returned"] >= report["events"]["member.dead"] > 0
    assert report["spectral_gap"] == pytest.approx(report["spectral_gap_before"])


def test_a_partition_into_more_groups_than_peers_isolates_everybody():
    report = simulated("partition", peers=3, groups=9, duration_s=20.0)
    assert report["healed_s"] <= 15.0, report


@pytest.mark.parametrize("scenario", ["slow", "flap"])
@pytest.mark.parametrize("peers", [2, 12, 40])
def test_a_few_in_trouble_again_and_again_are_the_only_ones_doubted_to_death(scenario, peers):
    report = simulated(scenario, peers=peers, fraction=0.1, duration_s=20.0)
    assert report["false_deaths"] == 0, report
    assert report["hit"] == max(1, round(0.1 * peers))
    assert report["healed_s"] <= 15.0, report


@pytest.mark.parametrize(("scenario", "seed"), [("slow", 1), ("flap", 2), ("flap", 3), ("flap", 4)])
def test_when_half_are_in_trouble_again_and_again_the_other_half_stays_alive(scenario, seed):
    report = simulated(scenario, peers=24, seed=seed, duration_s=20.0)
    assert report["false_deaths"] == 0, report
    assert report["healed_s"] <= 15.0, report


def test_lost_packets_kill_nobody():
    report = simulated("kill", fraction=0.1, latency="wan", loss=0.02)
    assert report["false_deaths"] == 0, report
    assert report["known_last_s"] is not None, report


# Reports.


@pytest.mark.parametrize("scenario", ["kill", "churn", "partition", "slow", "flap"])
def test_every_report_has_its_figures_and_one_seed_has_one_report(scenario):
    def report(seed):
        return simulated(scenario, peers=8, seed=seed, duration_s=5.0, joins=0.5, leaves=0.2)

    one = report(1)
    assert one.keys() >= ALWAYS
    assert json.dumps(one) == json.dumps(report(1))
    assert json.dumps(one["events"]) + str(one["bytes_per_peer_s_during"]) != json.dumps(
        report(2)["events"]
    ) + str(report(2)["bytes_per_peer_s_during"])


def test_a_quiet_peer_costs_what_the_documents_say():
    report = simulated("kill", fraction=0.1, peers=30)
    assert report["messages_per_peer_s"] == pytest.approx(6, rel=0.1)
    assert report["bytes_per_peer_s"] == pytest.approx(740, rel=0.1)
    assert 0 < report["spectral_gap"] < 1
    assert report["degree_max"] <= 6


def test_the_table_has_a_label_for_every_figure_and_a_dash_for_none():
    report = simulated("slow", peers=6, fraction=0.2, duration_s=3.0)
    text = table(report)
    for name, label in LABELS.items():
        assert label in text, name
    dashes = [line for line in text.splitlines() if line.endswith("–")]
    assert len(dashes) == 3  # nobody is to be known of
    head = text.splitlines()[0]
    assert head == "slow: 6 peers, seed 1, profile lan, latency lan, loss 0"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], (None, None, None)),
        ([12.0], (2.0, 2.0, 2.0)),
        ([15.0, 11.0, 12.0], (1.0, 2.0, 5.0)),
        ([11.0, 12.0], (1.0, 1.5, 2.0)),
    ],
)
def test_a_spread_is_first_median_and_last(times, expected):
    assert tuple(spread(times, 10.0).values()) == expected


# What counts as a false death.


@pytest.fixture
def watched(member):
    """A settled network of ten under observation."""
    network = Watched(
        seed=1,
        profile=PROFILES["lan"],
        lines=Lines(parse_latency("lan")),
        network_id=member("network").peer_id,
    )
    network.settle([member(number) for number in range(10)])
    network.run_for(5.0)
    return network


def say_dead(network, by, about):
    network.seen(network.peers[by], Report("member.dead", {"peer": network.peers[about].id}))


def test_the_death_of_who_lives_is_false_once_a_life(watched):
    say_dead(watched, 0, 1)
    say_dead(watched, 2, 1)
    assert watched.false_deaths == {(watched.peers[1].id, 1)}
    watched.peers[1].machine.describe_me(watched.now, name="risen")
    say_dead(watched, 3, 1)
    say_dead(watched, 3, 4)
    assert len(watched.false_deaths) == 3


def test_the_old_death_of_who_has_refuted_it_is_not_false_however_late_it_is_said(watched):
    watched.excused.add(watched.peers[1].id)
    say_dead(watched, 0, 1)
    watched.excused.clear()
    watched.peers[0].machine.table.judge(Fate(watched.peers[1].id, 1, State.DEAD), watched.now)
    watched.peers[1].machine.describe_me(watched.now, name="risen")
    say_dead(watched, 0, 1)
    assert watched.false_deaths == set()
    say_dead(watched, 2, 1)  # of whom it is no old word: 2 holds the life that is lived now
    assert watched.false_deaths == {(watched.peers[1].id, 2)}


def test_a_death_that_the_machines_were_talked_into_is_counted(watched):
    listener = watched.peers[0]
    victim = next(
        peer
        for peer in watched.up()
        if peer is not listener and peer.id not in listener.machine.links
    )
    source = watched.peer(min(listener.machine.links))
    observers = sorted(listener.machine.graph.observers(victim.id))[:2]
    votes = tuple(Vote(observer, 1, True, b"") for observer in observers)
    lie = News((), (Fate(victim.id, 1, State.DEAD, votes),), ())
    watched.inject(listener.number, source.number, lie)
    watched.run_for(5.0)
    assert watched.false_deaths == {(victim.id, 1)}
    assert watched.kinds["member.dead"] >= 1
    assert listener.machine.table.state(victim.id) is State.ALIVE  # it refuted


@pytest.mark.parametrize("trouble", ["killed", "stopped", "cut off", "excused", "other side"])
def test_the_death_of_who_is_in_trouble_is_not_false(watched, trouble):
    match trouble:
        case "killed":
            watched.kill(1)
        case "stopped":
            watched.stop(1)
        case "cut off":
            watched.cut_off(1)
        case "excused":
            watched.excused.add(watched.peers[1].id)
        case "other side":
            watched.partition([0, 2], [1, 3])
    say_dead(watched, 0, 1)
    assert watched.false_deaths == set()
    if trouble == "other side":
        say_dead(watched, 3, 1)
        assert len(watched.false_deaths) == 1


def test_what_the_one_who_is_cut_off_says_of_others_is_not_false(watched):
    watched.cut_off(0)
    say_dead(watched, 0, 1)
    assert watched.false_deaths == set()
    watched.restore(0)
    say_dead(watched, 0, 1)
    assert watched.false_deaths == {(watched.peers[1].id, 1)}


# What counts as whole.


def test_a_settled_network_is_whole_and_one_without_a_link_is_not(watched):
    wanted = watched.neighbours_of_all(watched.up())
    assert watched.is_whole(wanted) == (True, True)
    peer = watched.peers[0]
    peer.connections.pop(min(peer.connections))
    assert watched.is_whole(wanted) == (True, False)
    peer.connections.clear()
    assert watched.is_whole(wanted) == (False, False)


def test_the_wanted_links_of_all_are_those_that_the_machines_want(watched):
    wanted = watched.neighbours_of_all(watched.up())
    assert wanted == {peer.id: peer.machine.graph.wanted for peer in watched.up()}


def test_options_have_the_documented_defaults():
    assert dataclasses.asdict(Options()) == {
        "fraction": 0.5, "how": "crash", "duration_s": 60.0, "joins": 1.0, "leaves": 1.0,
        "groups": 2, "down_s": 3.0, "up_s": 10.0, "limit_s": 120.0,
    }  # fmt: skip
