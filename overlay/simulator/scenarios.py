"""What can happen to a simulated network, and what is measured of it.

A scenario takes a network that has been quiet for a while, does its worst, and returns figures in
seconds, counts and rates. All of them measure how long the network takes to be whole again
(`healed_s`, from the end of the trouble) and count false deaths.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from overlay.records import Record, State
from overlay.simulator.process import SimulatedPeer
from overlay.simulator.watch import Watched, spread

LOOK_EVERY_S = 0.1
# Long enough for a doubt that was raised at the end to be settled one way or the other.
AFTERMATH_S = 10.0

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What a scenario may be told; each takes what it needs."""

    fraction: float = 0.5  # of the peers that something happens to, at least one
    how: str = "crash"  # kill: crash (links reset), blackhole (lines cut), stop (SIGSTOP)
    duration_s: float = 60.0  # how long the trouble lasts
    joins: float = 1.0  # a second
    leaves: float = 1.0  # a second, half of them crashes
    groups: int = 2
    down_s: float = 3.0  # mean length of a stall or a flap, and of the time between
    up_s: float = 10.0
    limit_s: float = 120.0  # how long healing is waited for


@dataclass(slots=True)
class Stage:
    """A network, its options, and randomness of its own for who is hit when."""

    network: Watched
    options: Options
    rng: Random
    make_record: Callable[[int], Record]
    figures: Figures = field(default_factory=dict)

    def chosen(self) -> list[int]:
        """The peers that something happens to."""
        numbers = sorted(self.network.peers)
        count = max(1, round(self.options.fraction * len(numbers)))
        return sorted(self.rng.sample(numbers, min(count, len(numbers) - 1)))

    def wait_until_whole(self, since: float, *, also: Callable[[], bool] = lambda: True) -> None:
        """Let time pass until the network is whole and `also` holds; notes how long each took."""
        network = self.network
        wanted = network.neighbours_of_all(self.survivors())
        figures: Figures = {"one_component_s": None, "full_degree_s": None, "healed_s": None}
        while network.now - since < self.options.limit_s:
            one, full = network.is_whole(wanted)
            took = network.now - since
            for name, holds in (("one_component_s", one), ("full_degree_s", full)):
                if holds and figures[name] is None:
                    figures[name] = took
            if one and full and figures["healed_s"] is None:
                figures["healed_s"] = took
            if figures["healed_s"] is not None and also():
                break
            network.run_for(LOOK_EVERY_S)
        self.figures |= figures

    def survivors(self) -> list[SimulatedPeer]:
        """Those who run on lines that work."""
        cut = self.network.cut_ids()
        return [peer for peer in self.network.up() if peer.id not in cut]


def kill(stage: Stage) -> Figures:
    """A part of the peers is gone at one moment."""
    network, victims = stage.network, stage.chosen()
    gone = [network.peers[number].id for number in victims]
    network.learned = {peer: array("d") for peer in gone}
    began = network.now
    match stage.options.how:
        case "crash":
            network.kill(*victims)
            network.bury(*victims)
        case "blackhole":
            network.cut_off(*victims)
        case _:
            for number in victims:
                network.stop(number)
    network.survivors = {peer.id for peer in stage.survivors()}
    survivors = len(network.survivors)
    stage.wait_until_whole(
        began, also=lambda: all(len(times) >= survivors for times in network.learned.values())
    )
    return stage.figures | _known(list(network.learned.values()), began, survivors)


def _known(learned: list[array[float]], began: float, survivors: int) -> Figures:
    """Over the subjects: the median of the first and of the median survivor, the very last."""
    spreads = [spread(times, began) for times in learned]
    firsts = sorted(s["first"] for s in spreads if s["first"] is not None)
    medians = sorted(s["median"] for s in spreads if s["median"] is not None)
    complete = all(len(times) >= survivors for times in learned)
    return {
        "victims": len(learned),
        "survivors": survivors,
        "known_first_s": firsts[len(firsts) // 2] if firsts else None,
        "known_median_s": medians[len(medians) // 2] if medians else None,
        "known_last_s": max(s["last"] or 0.0 for s in spreads) if complete else None,
    }


def churn(stage: Stage) -> Figures:
    """Peers join through random others and go, half of them without a word."""
    network, options, rng = stage.network, stage.options, stage.rng
    began, joined = network.now, []
    number = max(network.peers) + 1
    next_join, next_leave = (_next(rng, rate) for rate in (options.joins, options.leaves))
    pending: dict[str, float] = {}
    waits: list[float] = []
    while (elapsed := network.now - began) < options.duration_s:
        while next_join <= elapsed:
            through = rng.choice(network.up())
            record = stage.make_record(number)
            newcomer = network.start(number, record, [through.address], homeless=True)
            pending[newcomer.id] = network.now
            joined.append(newcomer.id)
            number += 1
            next_join += _next(rng, options.joins)
        while next_leave <= elapsed and len(network.up()) > 2:
            leaver = rng.choice(network.up())
            pending.pop(leaver.id, None)
            (network.leave if rng.random() < 0.5 else network.kill)(leaver.number)
            next_leave += _next(rng, options.leaves)
        network.run_for(LOOK_EVERY_S)
        waits += _take_known(network, pending)
    ended = network.now
    stage.wait_until_whole(ended, also=lambda: _agree(network))
    waits += _take_known(network, pending)
    known = spread(waits, 0.0)
    return stage.figures | {
        "joined": len(joined),
        "known_first_s": known["first"],
        "known_median_s": known["median"],
        "known_last_s": known["last"] if not pending else None,
    }


def _take_known(network: Watched, pending: dict[str, float]) -> list[float]:
    """How long it took for those newcomers of `pending` whom everybody knows by now."""
    known = [
        peer for peer in pending if all(other.machine.table.is_live(peer) for other in network.up())
    ]
    return [network.now - pending.pop(peer) for peer in known]


def partition(stage: Stage) -> Figures:
    """The lines between groups are cut for a while."""
    network, options = stage.network, stage.options
    numbers = sorted(network.peers)
    stage.rng.shuffle(numbers)
    began = network.now
    network.partition(*(sorted(numbers[g :: options.groups]) for g in range(options.groups)))
    network.run_for(options.duration_s)
    known = spread(network.deaths_said, began)
    ended = network.now
    network.heal()
    stage.wait_until_whole(ended, also=lambda: _agree(network))
    agreed = network.now - ended if _agree(network) else None
    return {
        **stage.figures,
        "healed_s": agreed,
        "known_first_s": known["first"],
        "known_median_s": known["median"],
        "known_last_s": known["last"],
    }


def slow(stage: Stage) -> Figures:
    """The event loops of some peers stand still again and again."""
    network = stage.network

    def hit(number: int) -> None:
        network.excused.add(network.peers[number].id)
        network.stop(number)

    return _on_and_off(stage, hit, network.resume)


def flap(stage: Stage) -> Figures:
    """The lines of some peers are cut again and again."""
    network = stage.network

    def hit(number: int) -> None:
        network.excused.add(network.peers[number].id)
        network.cut_off(number)

    return _on_and_off(stage, hit, network.restore)


def _on_and_off(stage: Stage, hit: Callable[[int], None], spare: Callable[[int], None]) -> Figures:
    """Hit and spare the chosen peers, each on its own time (exponential, as `down_s`, `up_s`)."""
    network, options, rng = stage.network, stage.options, stage.rng
    ends = network.now + options.duration_s

    def strike(number: int) -> None:
        if network.now < ends:
            hit(number)
            hits[number] += 1
            network.at(rng.expovariate(1 / options.down_s), release, number)

    def release(number: int) -> None:
        spare(number)
        hits[number] += 1
        network.at(AFTERMATH_S, pardon, number, hits[number])
        network.at(rng.expovariate(1 / options.up_s), strike, number)

    def pardon(number: int, hit_count: int) -> None:
        if hits[number] == hit_count and network.peers[number].is_up:
            network.excused.discard(network.peers[number].id)

    hits: Counter[int] = Counter()
    chosen = stage.chosen()
    for number in chosen:
        network.at(rng.expovariate(1 / options.up_s), strike, number)
    network.run_for(options.duration_s)
    for number in chosen:
        spare(number)
    stage.wait_until_whole(network.now, also=lambda: _agree(network))
    return {
        **stage.figures,
        "hit": len(chosen),
        "deaths_of_the_hit": len(network.true_deaths),
        "known_first_s": None,
        "known_median_s": None,
        "known_last_s": None,
    }


def _next(rng: Random, rate: float) -> float:
    return rng.expovariate(rate) if rate > 0 else float("inf")


def _agree(network: Watched) -> bool:
    """Whether all who run hold one table with just them, none of them in doubt."""
    up = network.up()
    first = up[0].machine.table
    return (
        first.live_count == len(up)
        and all(first.state(peer.id) is State.ALIVE for peer in up)
        and all(peer.machine.table.digest == first.digest for peer in up)
        and not any(f.is_live for peer in up for f in peer.machine.table.fates.values())
    )


SCENARIOS: dict[str, Callable[[Stage], Figures]] = {
    "kill": kill,
    "churn": churn,
    "partition": partition,
    "slow": slow,
    "flap": flap,
}
