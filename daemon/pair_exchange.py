"""A round's exchange by pairs: two neighbours meet at the average of their models, nobody waits.

Theory of operation. A peer that has done its local work borrows the model of one random neighbour
as it was when that one mixed last, x_j, moves its own, x_i, to the average, and owes that neighbour
the opposite step, (x_i − x_j) / 2, which the neighbour fetches and adds when it mixes next, however
far it has gone meanwhile. The two steps add up to nothing: the sum of all models stays.

Rules kept here:
- a model is lent once between two mixings: were it lent often, its owner would overshoot;
- a neighbour that has lent its model, or does not answer in time, is passed over for another one;
- nothing is taken in before it has arrived whole. What is owed to a peer that is gone by then is
  lost.

Source: Lian, Zhang, Zhang & Liu, "Asynchronous decentralized parallel stochastic gradient descent",
ICML 2018, Algorithm 1, whose average is atomic; here the second half of it comes later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from random import Random

import trio

from daemon.exchange import Patience
from daemon.inbox import BYTES_PER_VALUE, NEWEST, Received, Unfit, check_fit
from daemon.mixing_graph import whom_and_by_whom
from daemon.notes import NOTES, Announce, Paired, TrainState
from daemon.round_exchange import Gathered, Neighbourly
from daemon.shelf import Outgoing, Shelf, TakeModel
from learner.job import Job
from learner.messages import Configured
from overlay.identity import short
from overlay.transfer import Blob, FetchFailed, make_blob
from overlay.wire import Offer, Want

log = logging.getLogger("gossipd.train")

LEND, OWED = "lend", "owed"
# Neighbours that are asked in a round at the most.
TRIES = 3
# Overflow rule: beyond these, the oldest debts of this peer are forgotten (their takers are too
# slow), and what comes in is not fetched; nor is more than so much of one neighbour at a time.
MAX_DEBTS, MAX_CREDITS = 8, 8


class PairExchange:
    """The exchange of one run, round after round. Has the face of a RoundExchange."""

    lockstep = False
    lead = 0
    epoch = 1

    def __init__(
        self,
        around: Neighbourly,
        nursery: trio.Nursery,
        *,
        run: str,
        job: Job,
        ready: Configured,
        take_model: TakeModel,
    ) -> None:
        self._around, self._nursery, self._run, self._ready = around, nursery, run, ready
        self._patience = Patience()
        self._random = Random(f"{job.seed} {around.overlay.my_id}")
        self._shelf = Shelf(
            layout=ready.layout, samples=ready.samples, take_model=take_model, rounds=lambda: 1
        )
        self._to_lend: Blob | None = None
        self._debts: dict[int, Blob] = {}
        self._credits: list[bytearray] = []
        self._collecting: Counter[str] = Counter()

    # What neighbours say and want.

    def on_announce(self, peer: str, note: Announce, completed: int) -> None:
        """Models are borrowed when they are wanted, not when they are ready."""

    def on_lost(self, peer: str) -> None:
        """Nothing is kept by neighbour."""

    def on_paired(self, peer: str, note: Paired) -> None:
        """A neighbour has averaged with this peer's model: fetch this peer's half."""
        if len(self._credits) < MAX_CREDITS and self._collecting[peer] < MAX_DEBTS:
            self._collecting[peer] += 1
            self._nursery.start_soon(self._collect, peer, note.round)

    async def provide(self, peer: str, want: Want, completed: int) -> Blob:
        """A blob that a neighbour wants. Raises FetchFailed."""
        if want.stream == OWED:
            if want.version not in self._debts:
                raise FetchFailed(f"nothing is owed of round {want.version}")
            return self._debts[want.version]
        if want.stream != LEND:
            return await self._shelf.find(peer, want, completed=completed)
        if self._to_lend is None:
            raise FetchFailed("this peer's model is lent already")
        model, self._to_lend = self._to_lend, None
        return model

    # A round.

    def begin(self, number: int) -> bool:
        """Whoever comes or goes, there is nothing to begin anew."""
        return False

    async def exchange(
        self, number: int, outgoing: Outgoing, mine: TrainState, local_s: float
    ) -> Gathered:
        """Borrow one neighbour's model, and take what others owe."""
        row, _ = whom_and_by_whom(self._around.overlay.machine.graph, number)
        linked = row.keys() & self._around.overlay.links.keys()
        partners = self._around.view.partners(mine, linked, lead=float("inf"))
        self._announce(number, partners)
        began = trio.current_time()
        received: dict[str, Received] = {}
        with trio.move_on_after(self._patience.deadline_s(local_s)):
            received = await self._borrow(number, partners)
        waited_s = trio.current_time() - began
        if received:
            self._patience.observe(waited_s)
        credits, self._credits = self._credits, []
        weights = dict.fromkeys(received, 0.5)
        own = 1.0 - sum(weights.values())
        return Gathered(received, weights, own, partners, waited_s, {}, tuple(credits))

    async def settle(self, number: int, gathered: Gathered, outcome: bytearray) -> None:
        """The round is mixed: this peer's model can be borrowed anew, and the partner may fetch its
        half; `outcome` is both as float32 [k, values]."""
        size = BYTES_PER_VALUE * self._ready.values
        self._to_lend = await self._blob(outcome[:size], number)
        for peer in gathered.received:
            self._debts[number] = await self._blob(outcome[size:], number)
            for old in sorted(self._debts)[:-MAX_DEBTS]:
                del self._debts[old]
            self._around.overlay.send_note(peer, NOTES.encode(Paired(self._run, number)))

    def finish(self, number: int) -> None:
        """Nothing is kept by round."""

    # Within.

    def _announce(self, number: int, partners: Sequence[str]) -> None:
        note = NOTES.encode(Announce(self._run, number, tuple(partners), self.epoch))
        for peer in self._around.overlay.links:
            self._around.overlay.send_note(peer, note)

    async def _borrow(self, number: int, partners: Sequence[str]) -> dict[str, Received]:
        """The model of one neighbour; empty if nobody has one to lend."""
        chosen = self._random.sample(list(partners), min(TRIES, len(partners)))
        for peer in chosen:
            try:
                offer, vectors = await self._around.overlay.fetch(
                    peer, self._run, LEND, NEWEST, check=self._check
                )
            except FetchFailed as error:
                log.debug("%s lends nothing: %s", short(peer), error)
                self._hold_against(peer, error)
            else:
                return {peer: Received(offer.version, vectors, number - 1)}
        return {}

    async def _collect(self, peer: str, version: int) -> None:
        try:
            _, vectors = await self._around.overlay.fetch(
                peer, self._run, OWED, version, check=self._check
            )
        except FetchFailed as error:
            log.info("what %s owes is lost: %s", short(peer), error)
            self._hold_against(peer, error)
        else:
            self._credits.append(vectors)
        finally:
            self._collecting -= Counter((peer,))  # no entry stays at nought

    def _hold_against(self, peer: str, error: FetchFailed) -> None:
        if isinstance(error, Unfit):
            self._around.trust.refuse(peer, error.cause, str(error))

    async def _blob(self, data: bytearray, number: int) -> Blob:
        samples = self._ready.samples
        return await make_blob(data, version=number, layout=self._ready.layout, weight=samples)

    def _check(self, offer: Offer) -> None:
        check_fit(offer, self._ready.layout, BYTES_PER_VALUE * self._ready.values)
