"""What a run hands out to neighbours: its newest rounds, and its model for newcomers.

Rules kept here:
- the newest own rounds are kept: two, for neighbours in lockstep are at most one round away, more
  where the mixing graph changes (`exchange.tolerated_lead`);
- the model is taken from the learner when somebody asks for it, once a round;
- a lying peer (for trials) has something of its own for each neighbour, and no model but that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.bootstrap import MODEL
from daemon.inbox import NEWEST, STREAM
from overlay.transfer import Blob, FetchFailed, make_blob
from overlay.wire import Want

TakeModel = Callable[[], Awaitable[tuple[int, bytearray]]]
"""Gives (completed rounds, model float32 [dimension]), or raises FetchFailed."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A round's message, float32 [values] as bytes; a liar has `lies` for neighbours."""

    message: bytearray
    lies: Mapping[str, bytearray] = field(default_factory=dict)

    @classmethod
    def split(cls, vectors: bytearray, size_bytes: int, lie_to: Sequence[str]) -> Outgoing:
        """What the learner gave: the message, followed by a lie for each of `lie_to`."""
        if not lie_to:
            return cls(vectors)
        starts = range(0, len(vectors), size_bytes)
        message, *lies = [vectors[start : start + size_bytes] for start in starts]
        return cls(message, dict(zip(lie_to, lies, strict=True)))


class Shelf:
    """Blobs of one run; `layout` and `samples` go with every offer."""

    def __init__(
        self, *, layout: str, samples: int, take_model: TakeModel, rounds: Callable[[], int]
    ) -> None:
        """`rounds()`: how many are kept now."""
        self._kept = rounds
        self._layout = layout
        self._samples = samples
        self._take_model = take_model
        self._rounds: dict[int, Blob] = {}
        self._lies: dict[int, dict[str, Blob]] = {}
        self._model: Blob | None = None

    async def put(self, number: int, outgoing: Outgoing) -> None:
        """Offer round `number`'s message."""
        message = await self._blob(outgoing.message, number)
        told = {peer: await self._blob(lie, number) for peer, lie in outgoing.lies.items()}
        self._rounds[number], self._lies[number] = message, told
        for old in sorted(self._rounds)[: -self._kept()]:
            del self._rounds[old], self._lies[old]

    async def find(self, peer: str, want: Want, *, completed: int) -> Blob:
        """What a neighbour wants, after `completed` rounds here. Raises FetchFailed."""
        if want.stream == STREAM:
            return self._round(peer, want.version)
        if want.stream == MODEL:
            return await self._newest_model(peer, completed)
        raise FetchFailed(f"there is no stream {want.stream[:20]!r}")

    def _round(self, peer: str, version: int) -> Blob:
        wanted = max(self._rounds, default=NEWEST) if version == NEWEST else version
        if wanted not in self._rounds:
            raise FetchFailed(f"round {version} is not served")
        return self._lies[wanted].get(peer, self._rounds[wanted])

    async def _newest_model(self, peer: str, completed: int) -> Blob:
        if any(self._lies.values()):
            return self._round(peer, NEWEST)
        if self._model is None or self._model.version != completed:
            number, vector = await self._take_model()
            self._model = await self._blob(vector, number)
        return self._model

    async def _blob(self, data: bytearray, version: int) -> Blob:
        return await make_blob(data, version=version, layout=self._layout, weight=self._samples)
