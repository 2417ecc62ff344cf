"""Aggregation from byzfl's dictionaries, as its RobustAggregator takes them.

    robust_aggregator({"name": "TrMean", "parameters": {"f": 2}}, [{"name": "NNM"}], f=2)

byzfl silently drops parameters that it does not know; here they are mistakes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.errors import LearnerError
from learner.robust.coordinatewise import Average, Meamed, Median, TrMean
from learner.robust.distances import admit, as_rows
from learner.robust.iterating import CAF, CenteredClipping, GeometricMedian
from learner.robust.names import (
    AGGREGATORS,
    PRE_AGGREGATORS,
    Parameters,
    check_info,
    check_whole,
)
from learner.robust.preaggregators import ARC, NNM, Bucketing, Clipping
from learner.robust.selecting import MDA, SMEA, Krum, MoNNA, MultiKrum


class Rule(Protocol):
    """An aggregator, [n, d] → [d], or a pre-aggregator, [n, d] → [m, d]."""

    def __call__(self, vectors: Tensor, *, round: int = 0) -> Tensor: ...


RULES: dict[str, type] = {
    rule.__name__: rule
    for rule in (
        *(Average, Median, TrMean, GeometricMedian, Krum, MultiKrum, CenteredClipping, MDA, MoNNA),
        *(Meamed, CAF, SMEA, NNM, Bucketing, Clipping, ARC),
    )
}
assert {name: set(known) for name, known in (AGGREGATORS | PRE_AGGREGATORS).items()} == {
    name: {field.name for field in dataclasses.fields(rule)} for name, rule in RULES.items()
}


@dataclass(frozen=True)
class RobustAggregator:
    """The pre-aggregators in turn, then the aggregator: float32 [n, d] → [d], a new tensor.

    It may be allowed to `overwrite` the vectors.
    """

    aggregator: Rule
    pre_aggregators: tuple[Rule, ...] = ()

    def __call__(
        self, vectors: Tensor | Sequence[Tensor], *, round: int = 0, overwrite: bool = False
    ) -> Tensor:
        rows = as_rows(vectors)
        if not self.pre_aggregators:
            return self.aggregator(rows, round=round)
        admitted = admit(rows)
        missing = len(rows) - len(admitted.places)
        rows = admitted.vectors
        for rule in (*self.pre_aggregators, self.aggregator):
            # Who is left out here is not among the f that the later rules must reckon with.
            able = _without(rule, missing, admitted.places)
            if isinstance(able, Clipping | ARC):
                rows = able(rows, round=round, overwrite=overwrite)
            else:
                rows = able(rows, round=round)
            overwrite = True  # what a pre-aggregator made is nobody else's
        return rows


def robust_aggregator(
    aggregator_info: Mapping[str, Any],
    pre_agg_list: Sequence[Mapping[str, Any]] = (),
    *,
    f: int | None = None,
) -> RobustAggregator:
    """From `{"name": …, "parameters": {…}}` and a list of such for the pre-aggregators.

    `f` serves every rule that has an f and whose dictionary gives none. Raises LearnerError (job)
    that names all unknown names and parameters at once.
    """
    problems = check_info(aggregator_info, AGGREGATORS, "the aggregator")
    if not isinstance(pre_agg_list, (list, tuple)):
        problems.append(f"the pre-aggregators must be a list of tables, not {pre_agg_list!r}")
        pre_agg_list = ()
    for place, info in enumerate(pre_agg_list, start=1):
        problems += check_info(info, PRE_AGGREGATORS, f"pre-aggregator {place}")
    if problems:
        raise LearnerError("job", "\n".join(problems))
    if f is not None:
        check_whole("the robust aggregator", "f", f)
    return RobustAggregator(
        _built(aggregator_info, AGGREGATORS, f),
        tuple(_built(info, PRE_AGGREGATORS, f) for info in pre_agg_list),
    )


def _built(info: Mapping[str, Any], known: Mapping[str, Parameters], f: int | None) -> Rule:
    name, parameters = info["name"], dict(info.get("parameters", {}))
    if f is not None and "f" in known[name]:
        parameters.setdefault("f", f)
    if isinstance(parameters.get("m"), list):
        parameters["m"] = torch.tensor(parameters["m"], dtype=torch.float32)
    rule: Rule = RULES[name](**parameters)
    return rule


def _without(rule: Rule, missing: int, places: tuple[int, ...]) -> Rule:
    if not missing:
        return rule
    changes: dict[str, int] = {}
    if "f" in AGGREGATORS.get(type(rule).__name__, PRE_AGGREGATORS.get(type(rule).__name__, {})):
        changes["f"] = max(0, rule.f - missing)  # type: ignore[attr-defined]
    if isinstance(rule, MoNNA):
        changes["idx"] = _moved(rule.idx, places)
    return dataclasses.replace(rule, **changes)  # type: ignore[type-var]


def _moved(idx: int, places: tuple[int, ...]) -> int:
    if idx in places:
        return places.index(idx)
    raise LearnerError(
        "layout",
        f"MoNNA: the trusted vector, idx = {idx}, is not finite: lower the learning rate, or look "
        "for the step that made it NaN",
    )
