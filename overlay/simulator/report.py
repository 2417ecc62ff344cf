"""One simulation from its settings to its report.

The report holds nothing that depends on the machine it ran on: one seed is one report, byte for
byte.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from overlay.mixing_matrix import analyse
from overlay.profile import PROFILES
from overlay.records import Record
from overlay.simulator.lines import Lines, parse_latency
from overlay.simulator.scenarios import AFTERMATH_S, SCENARIOS, Options, Stage
from overlay.simulator.sizes import CHAIN, SIGNATURE
from overlay.simulator.watch import Watched

# The network is quiet for so long before anything happens; the steady state is measured then.
QUIET_S = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What is simulated."""

    peers: int
    seed: int
    scenario: str
    options: Options
    profile: str = "lan"
    latency: str = "lan"
    loss: float = 0.0


def simulate(settings: Settings) -> dict[str, Any]:
    """Run it; every figure. Raises ValueError for settings that cannot be."""
    network = Watched(
        seed=settings.seed,
        profile=PROFILES[settings.profile],
        lines=Lines(parse_latency(settings.latency), settings.loss),
        network_id=_id_of(settings.seed, "network"),
    )
    network.settle([_record(settings.seed, number) for number in range(settings.peers)])
    network.run_for(PROFILES[settings.profile].heartbeat_s)  # every link is up now
    messages, size = network.messages, network.bytes
    network.run_for(QUIET_S)
    steady = _rates(network, messages, size, QUIET_S, settings.peers)
    before = analyse(network.links())
    network.kinds.clear()
    messages, size, began = network.messages, network.bytes, network.now

    stage = Stage(
        network,
        settings.options,
        Random(f"stage {settings.seed}"),
        lambda number: _record(settings.seed, number),
    )
    figures = SCENARIOS[settings.scenario](stage)
    took = network.now - began
    during = _rates(network, messages, size, took, len(network.up()))
    network.run_for(AFTERMATH_S)
    after = analyse(network.links(stage.survivors()))
    return {
        "scenario": settings.scenario,
        "peers": settings.peers,
        "seed": settings.seed,
        "profile": settings.profile,
        "latency": settings.latency,
        "loss": settings.loss,
        "options": asdict(settings.options),
        **{name: _round(value) for name, value in figures.items()},
        "false_deaths": len(network.false_deaths),
        "spectral_gap": _round(after.spectral_gap),
        "spectral_gap_before": _round(before.spectral_gap),
        "degree_min": after.degree_min,
        "degree_max": after.degree_max,
        "bytes_per_peer_s": steady["bytes"],
        "messages_per_peer_s": steady["messages"],
        "bytes_per_peer_s_during": during["bytes"],
        "messages_per_peer_s_during": during["messages"],
        "simulated_s": _round(network.now - 1000.0),
        "events": dict(sorted(network.kinds.items())),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['scenario']}: {report['peers']} peers, seed {report['seed']}, profile"
        f" {report['profile']}, latency {report['latency']}, loss {report['loss']:g}",
        "",
    ]
    for name, value in report.items():
        if name not in HEADER:
            lines.append(f"  {LABELS.get(name, name.replace('_', ' ')):<44} {_shown(value)}")
    return "\n".join(lines)


HEADER = ("scenario", "peers", "seed", "profile", "latency", "loss", "options", "events")
LABELS = {
    "known_first_s": "first survivor knows (median victim), s",
    "known_median_s": "median survivor knows (median victim), s",
    "known_last_s": "last survivor knows (of every victim), s",
    "one_component_s": "links form one component again after, s",
    "full_degree_s": "every wanted link is up again after, s",
    "healed_s": "whole again after, s",
    "false_deaths": "healthy members declared dead",
    "spectral_gap": "spectral gap of the links, after",
    "spectral_gap_before": "spectral gap of the links, before",
    "bytes_per_peer_s": "bytes sent a peer and second, quiet",
    "messages_per_peer_s": "messages sent a peer and second, quiet",
    "bytes_per_peer_s_during": "bytes sent a peer and second, in the trouble",
    "messages_per_peer_s_during": "messages sent a peer and second, in the trouble",
    "simulated_s": "simulated time, s",
}


def _rates(
    network: Watched, messages: int, size: int, duration_s: float, peers: int
) -> dict[str, float]:
    share = max(duration_s, 1e-9) * max(1, peers)
    return {
        "messages": round((network.messages - messages) / share, 3),
        "bytes": round((network.bytes - size) / share, 1),
    }


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _round(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _record(seed: int, number: int) -> Record:
    name = f"peer{number}"
    return Record(
        _id_of(seed, name), name, (f"wss://10.{number}:7400",), 1, True, -1, CHAIN, SIGNATURE
    )


def _id_of(seed: int, name: str) -> str:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=32).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()
