"""How soon a group of peers knows of a death, of silence, of a return; and what watching costs.

One course for every program that is measured (our daemons, Serf's agents), so that the figures
compare: start them all, kill some, stop one for a while, let them idle, take their cores away.

Rules kept here:
- times are what each peer recorded, or said at once, by this machine's one clock;
- nobody is asked anything while what is measured goes on: news is collected after a settle time;
- every loss is made good before the next: all peers are there each time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from benchmarks.processes import busy_cores, cpu_s_total, rss_mb
from cli.local_peers import wait_until


@dataclass(frozen=True, slots=True)
class News:
    """`observer` came to hold `subject` for alive, suspect or dead at `at` (Unix seconds)."""

    at: float
    observer: str
    subject: str
    kind: Literal["alive", "suspect", "dead"]


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a group: how long all took, and the last of them (Unix seconds)."""

    took_s: float
    last_launched_at: float
    last_ready_at: float


class Group(Protocol):
    """Peers on this machine that watch each other, all made by one program."""

    names: Sequence[str]

    def start(self) -> Start:
        """Start all of them; returns when the last is ready."""

    def converged(self) -> bool:
        """Whether everybody holds everybody for alive, and has the links it wants."""

    def converged_at(self) -> float:
        """When the last piece of news came that this took. Unix seconds."""

    def kill(self, name: str) -> float:
        """SIGKILL; the Unix time at which it was sent."""

    def restart(self, name: str) -> None:
        """Start one that was killed again, as the same peer."""

    def stop(self, name: str) -> float:
        """SIGSTOP; the Unix time at which it was sent."""

    def resume(self, name: str) -> float:
        """SIGCONT; the Unix time at which it was sent."""

    def pids(self) -> list[int]:
        """Their processes."""

    def news(self, since: float) -> list[News]:
        """What they recorded at `since` (Unix seconds) or later."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is struck, and for how long what is watched. All times in seconds."""

    victims: tuple[str, ...]
    silent: str
    idle_s: float
    busy_s: float
    # Before the first question after a start, a kill, a silence, a return, a busy time: longer than
    # what is hoped for, so that the question does not disturb it.
    start_settle_s: float = 4.0
    kill_settle_s: float = 2.0
    silence_settle_s: float = 6.0
    return_settle_s: float = 2.0
    # Between one act and the next: links that nobody wants any more are drained by then.
    quiet_s: float = 4.0
    # From one question to the next, and when to give up.
    poll_s: float = 0.5
    limit_s: float = 90.0


def run_course(group: Group, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure of a group. Raises TimeoutError that says what did not come about."""
    say(f"starting {len(group.names)} peers")
    figures = _start(group, plan)
    kills = []
    for name in plan.victims:
        kills.append(_kill(group, plan, name))
        say(f"kill -9 {name}: the last survivor knew after {kills[-1]['last_s']:.3f} s")
    for which in ("first", "median", "last"):
        times = [kill[f"{which}_s"] for kill in kills]
        figures[f"kill_known_{which}_s"] = statistics.median(times)
    figures["kills"] = kills
    say(f"stopping {plan.silent} for a while")
    figures |= _silence(group, plan)
    say(f"idle for {plan.idle_s:g} s")
    figures |= _idle(group, plan)
    say(f"every core busy for {plan.busy_s:g} s")
    return figures | _busy(group, plan)


def _start(group: Group, plan: Plan) -> dict[str, Any]:
    start = group.start()
    time.sleep(plan.start_settle_s)
    _converge(group, plan, "everybody knows everybody")
    at = group.converged_at()
    return {
        "start_s": start.took_s,
        "converged_s": at - start.last_ready_at,
        "converged_from_launch_s": at - start.last_launched_at,
    }


def _kill(group: Group, plan: Plan, name: str) -> dict[str, Any]:
    """One kill and its making good; seconds until the first, the median, the last survivor knew."""
    time.sleep(plan.quiet_s)
    at = group.kill(name)
    time.sleep(plan.kill_settle_s)
    known = sorted(_all_heard(group, plan, "dead", name, at))
    group.restart(name)
    _converge(group, plan, f"{name} is back")
    return {
        "victim": name,
        "first_s": known[0],
        "median_s": statistics.median(known),
        "last_s": known[-1],
    }


def _silence(group: Group, plan: Plan) -> dict[str, Any]:
    """SIGSTOP until everybody knows, SIGCONT until everybody knows better."""
    time.sleep(plan.quiet_s)
    stopped_at = group.stop(plan.silent)
    time.sleep(plan.silence_settle_s)
    known = _all_heard(group, plan, "dead", plan.silent, stopped_at)
    resumed_at = group.resume(plan.silent)
    time.sleep(plan.return_settle_s)
    returned = _all_heard(group, plan, "alive", plan.silent, resumed_at)
    _converge(group, plan, f"{plan.silent} is back")
    return {"silence_known_last_s": max(known), "silence_returned_s": max(returned)}


def _idle(group: Group, plan: Plan) -> dict[str, Any]:
    """CPU of all, as percent of one core; memory of the largest."""
    time.sleep(plan.quiet_s)
    pids = group.pids()
    began, before = time.monotonic(), cpu_s_total(pids)
    time.sleep(plan.idle_s)
    spent, took = cpu_s_total(pids) - before, time.monotonic() - began
    return {
        "idle_cpu_percent_total": 100 * spent / took,
        "rss_mb_max": max(rss_mb(pid) for pid in pids),
    }


def _busy(group: Group, plan: Plan) -> dict[str, Any]:
    """Verdicts and doubts while others keep every core busy; nobody is dead, so all are false.

    The silence settle time counts too: what was doubted at the end is decided then.
    """
    pids = group.pids()
    began_at, before = time.time(), cpu_s_total(pids)
    with busy_cores(limit_s=plan.busy_s + plan.limit_s):
        time.sleep(plan.busy_s)
        spent = cpu_s_total(pids) - before
    time.sleep(plan.silence_settle_s)
    kinds = [news.kind for news in group.news(began_at)]
    return {
        "busy_false_deaths": kinds.count("dead"),
        "busy_suspicions": kinds.count("suspect"),
        "busy_cpu_percent_total": 100 * spent / plan.busy_s,
    }


def _converge(group: Group, plan: Plan, what: str) -> None:
    wait_until(group.converged, plan.limit_s, what, poll_s=plan.poll_s)


def _all_heard(
    group: Group, plan: Plan, kind: Literal["alive", "dead"], subject: str, since: float
) -> list[float]:
    """Seconds from `since` until each of the others first held `subject` for `kind`."""
    first: dict[str, float] = {}

    def everybody() -> bool:
        for news in sorted(group.news(since), key=lambda news: news.at):
            if news.subject == subject and news.kind == kind and news.observer != subject:
                first.setdefault(news.observer, news.at - since)
        return len(first) == len(group.names) - 1

    what = f"everybody holds {subject} for {kind}"
    wait_until(everybody, plan.limit_s, what, poll_s=plan.poll_s)
    return list(first.values())
