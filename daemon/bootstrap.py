"""What a newcomer starts from: its neighbours' models, fetched, weighted, and at whose round.

Rules kept here:
- a model weighs what it was trained on and how far: samples × (1 + rounds);
- a donor that does not deliver in time is left out, one that does not fit is not asked;
- a peer whose model is not the network's is told so and does not train beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from daemon.exchange import View
from daemon.inbox import NEWEST, check_fit
from daemon.learner_process import LearnerFailed
from daemon.notes import TrainState
from overlay.driver import Overlay
from overlay.identity import short
from overlay.transfer import FetchFailed
from overlay.wire import Offer

log = logging.getLogger("gossipd.train")

MODEL = "model"
# How long a starting peer waits to hear where its neighbours stand.
SETTLE_S = 3.0
# A donor that does not deliver its model in this time is left out.
DONATION_S = 120.0


@dataclass(frozen=True, slots=True)
class Donation:
    """One neighbour's model: float32 [dimension] as bytes, after `round` completed rounds."""

    round: int
    samples: int
    model: bytearray

    @property
    def weight(self) -> float:
        """What it counts in the average."""
        return float(max(1, self.samples) * (1 + self.round))


async def fetch_models(
    overlay: Overlay, donors: Sequence[str], *, run: str, layout: str, size_bytes: int
) -> dict[str, Donation]:
    """The donors' newest models, by peer; without those that did not deliver."""
    donations: dict[str, Donation] = {}

    def fits(offer: Offer) -> None:
        check_fit(offer, layout, size_bytes)

    async def fetch(peer: str) -> None:
        try:
            offer, model = await overlay.fetch(peer, run, MODEL, NEWEST, check=fits)
        except FetchFailed as error:
            log.info("no model from %s: %s", short(peer), error)
        else:
            donations[peer] = Donation(offer.version, offer.weight, model)

    with trio.move_on_after(DONATION_S):
        async with trio.open_nursery() as nursery:
            for peer in donors:
                nursery.start_soon(fetch, peer)
    return donations


def neighbours_have_spoken(overlay: Overlay, view: View) -> bool:
    """Whether every neighbour with a learner has said where it stands."""
    table = overlay.machine.table
    wanted = overlay.machine.graph.wanted
    learners = {p for p in wanted if (r := table.get(p)) is not None and r.learner}
    return learners <= view.states().keys()


def check_layouts(view: View, mine: TrainState) -> None:
    """Raises LearnerFailed (layout) if neighbours of this run have models, but none like mine."""
    states = {p: s for p, s in view.states().items() if s.run == mine.run and s.layout}
    if not states or any(state.layout == mine.layout for state in states.values()):
        return
    peer, state = next(iter(states.items()))
    raise LearnerFailed(
        "layout",
        f"this peer's model ({mine.layout_text}, layout {mine.layout}) is not the network's"
        f" ({state.layout_text}, layout {state.layout} at {short(peer)}); use the same model code,"
        " options, classes and data shape as the other peers",
    )
