"""What the mixing rule made of a round's messages: whom this peer holds it against, and the weights
that were used."""

from __future__ import annotations

from typing import Any

from daemon.round_exchange import Gathered
from daemon.trust import NOT_FINITE, Trust
from learner.job import Robust
from learner.messages import Mixed


def judge(trust: Trust, robust: Robust, gathered: Gathered, mixed: Mixed) -> dict[str, Any]:
    """Tell `trust` whose message was refused and whose was dropped; the figures of the weights that
    the rule gave in place of those of `gathered`, if it did."""
    senders = tuple(gathered.received)
    refused = [senders[place] for place in mixed.rejected]
    for peer in refused:
        trust.refuse(peer, NOT_FINITE, f"in round {mixed.round}")
    if not robust.active:
        return {}
    trust.hears(len(gathered.partners), robust.liars)
    if mixed.weights is None:
        return {}
    used = dict(zip(senders, mixed.weights, strict=True))
    trust.mixed({p: gathered.weights[p] for p in used if p not in refused}, used)
    return {
        "own_weight": 1.0 - sum(used.values()),
        "weights": {peer: round(weight, 6) for peer, weight in used.items()},
        "dropped": sum(not weight for weight in used.values()),
    }
