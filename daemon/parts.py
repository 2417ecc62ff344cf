"""Which part of a shared data set is this peer's.

A peer either says so in its configuration or claims the lowest part that no live member claims.
The claim travels in the member record; of two peers with the same claim the lower id keeps it.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from learner.job import Partition
from overlay.records import Record


class PartImpossible(ValueError):
    """The configured part does not go with the job; the message says what would."""


def configured_part(own: tuple[int | None, int | None], partition: Partition) -> int | None:
    """The zero-based part that the configuration names, None if it names none.

    `own` is Config.own_part. Raises PartImpossible.
    """
    part, total = own
    if part is None or partition.kind == "none":
        return None
    if total is not None and total != partition.parts:
        raise PartImpossible(
            f"data.part says one of {total} parts, but the network's job has {partition.parts};"
            f" write {part + 1}/{partition.parts}"
        )
    if part >= partition.parts:
        raise PartImpossible(
            f"data.part is {part + 1}, but the network's job has only {partition.parts} parts"
        )
    return part


def free_part(parts: int, me: str, others: Iterable[Record], remembered: int) -> int | None:
    """The part to claim: the remembered one if nobody has it, else the lowest free one.

    None when every part is taken.
    """
    taken = {r.part for r in others if r.peer_id != me and r.part >= 0}
    candidates = [remembered, *range(parts)] if 0 <= remembered < parts else range(parts)
    return next((part for part in candidates if part not in taken), None)


def must_yield(part: int, me: str, others: Iterable[Record]) -> bool:
    """Whether a live member with a lower id claims the same part."""
    return any(r.part == part and r.peer_id < me for r in others)
