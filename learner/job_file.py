"""Reading a job, from TOML, JSON or a table, and everything that is checked about it.

Rules kept here:
- a job from the network is checked as strictly as a file;
- every mistake is reported at once, each with where it is and what would be right.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from learner.edges import FORM, check_edges
from learner.job import (
    ASYNC_ONLY,
    BY_OPTIMIZER,
    FEW_A_ROUND,
    MODELS,
    ROBUST,
    SOURCES,
    SYNC_ONLY,
    Gossip,
    Job,
    check_source,
    is_code_reference,
)
from learner.network_file import edges_of
from learner.partition_checks import check_partition
from learner.robust.names import AGGREGATORS, PRE_AGGREGATORS, check_info
from learner.schema import Problem, SchemaError, parse

# A job crosses the network in one control message (64 KiB); this leaves ample room.
MAX_JOB_BYTES = 16_384


def job_from_table(table: dict[str, Any], *, source: str) -> Job:
    """A checked job from a plain table. Raises SchemaError with every problem."""
    if isinstance(name := table.get("algorithm"), str):
        table = {**table, "algorithm": {"name": name}}
    return parse(Job, table, source=source, check=_cross_check)


def job_from_toml(text: str, *, source: str) -> Job:
    """A checked job from TOML text. Raises SchemaError, also for broken TOML."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError([Problem(source, "", f"is not valid TOML: {error}")]) from None
    return job_from_table(table, source=source)


def job_from_file(path: Path) -> Job:
    """A checked job from its TOML file. Raises SchemaError, OSError."""
    return job_from_table(read_table(path), source=str(path))


def read_table(path: Path) -> dict[str, Any]:
    """The table of a job file, not yet checked. `gossip.network` may name a network file beside it,
    whose edges then are the job's. Raises SchemaError, OSError."""
    try:
        table = tomllib.loads(path.read_text())
    except UnicodeDecodeError as error:
        raise SchemaError([Problem(str(path), "", f"cannot be read: {error}")]) from None
    except tomllib.TOMLDecodeError as error:
        raise SchemaError([Problem(str(path), "", f"is not valid TOML: {error}")]) from None
    gossip = table.get("gossip")
    if not isinstance(gossip, dict) or "network" not in gossip:
        return table
    rest = {key: value for key, value in gossip.items() if key != "network"}
    file = path.parent / str(gossip["network"])
    edges = list(edges_of(file.read_text(), source=str(file)))
    return {**table, "gossip": {"topology": "static", "edges": edges, **rest}}


def job_from_json(text: str, *, source: str) -> Job:
    """A checked job from JSON text, as it crosses the network. Raises SchemaError."""
    if len(text.encode()) > MAX_JOB_BYTES:
        raise SchemaError([Problem(source, "", f"is larger than {MAX_JOB_BYTES} bytes")])
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError([Problem(source, "", f"is not valid JSON: {error}")]) from None
    if not isinstance(table, dict):
        raise SchemaError([Problem(source, "", "must be an object")])
    return job_from_table(table, source=source)


def _check_gossip(gossip: Gossip, source: str) -> list[Problem]:
    problems = [Problem(source, "gossip.edges", wrong) for wrong in check_edges(gossip.edges)]
    if gossip.topology == "expander" and gossip.degree % 2:
        hint = f"take {gossip.degree + 1}"
        problems.append(Problem(source, "gossip.degree", "must be even (two a ring)", hint))
    if gossip.topology == "static" and not gossip.edges:
        hint = f"list them: {FORM}"
        problems.append(Problem(source, "gossip.edges", "a static graph has edges", hint))
    if gossip.topology != "static" and gossip.edges:
        hint = 'set gossip.topology = "static"'
        problems.append(Problem(source, "gossip.edges", "count for static only", hint))
    return problems


def _check_robust(job: Job, source: str) -> list[Problem]:
    robust, algorithm = job.robust, job.algorithm
    problems = []
    if robust.active and algorithm.name not in ROBUST:
        hint = f"take one of {', '.join(ROBUST)}, or robust.liars = 0"
        message = f"{algorithm.name} cannot bear liars"
        problems.append(Problem(source, "robust.rule", message, hint))
    if robust.active and algorithm.weighting != "equal":
        hint = 'set algorithm.weighting = "equal"'
        problems.append(Problem(source, "robust.rule", "liars would weigh themselves", hint))
    if robust.active and job.gossip.topology in FEW_A_ROUND:
        hint = 'take topology = "expander" or "complete"'
        message = f"in {job.gossip.topology} a peer meets too few others to tell who lies"
        problems.append(Problem(source, "robust.rule", message, hint))
    if robust.rule == "byzfl" and not robust.aggregator_info:
        hint = 'such as {name = "TrMean"}'
        problems.append(Problem(source, "robust.aggregator_info", "is needed by byzfl", hint))
    parts = [("aggregator_info", robust.aggregator_info, AGGREGATORS)] * bool(
        robust.aggregator_info
    )
    parts += [("pre_agg_list", info, PRE_AGGREGATORS) for info in robust.pre_agg_list]
    return problems + [
        Problem(source, "robust", wrong)
        for where, info, known in parts
        for wrong in check_info(info, known, where)
    ]


def _check_texts(job: Job, source: str) -> list[Problem]:
    """A job's texts are shown in terminals and logs, where control characters would act."""
    shown = {
        "name": (job.name,), "model.name": (job.model.name,), "data.source": (job.data.source,),
        "data.classes": job.data.classes, "partition.classes": job.partition.classes,
        "gossip.edges": job.gossip.edges,
    }  # fmt: skip
    return [
        Problem(source, key, "must be printable: no line breaks or control characters")
        for key, texts in shown.items()
        if not all(text.isprintable() for text in texts)
    ]


def _cross_check(job: Job, source: str) -> list[Problem]:
    problems = _check_texts(job, source)
    name = job.model.name
    if not (name in MODELS or name.startswith("torchvision:") or is_code_reference(name)):
        hint = f"known: {', '.join(MODELS)}, torchvision:NAME, package.module:factory"
        problems.append(Problem(source, "model.name", f"{name!r} is no model", hint))
    if wrong := check_source(job.data.source):
        hint = f"known: {', '.join(SOURCES)}, folder:PATH, npz:PATH, package.module:factory"
        problems.append(Problem(source, "data.source", wrong, hint))
    if job.optimizer.nesterov and job.optimizer.momentum == 0:
        problems.append(Problem(source, "optimizer.nesterov", "needs optimizer.momentum > 0"))
    if job.optimizer.name != "sgd" and job.algorithm.name not in BY_OPTIMIZER:
        hint = f"{job.algorithm.name} takes its own steps; write sgd"
        problems.append(Problem(source, "optimizer.name", "has no use here", hint))
    if job.training.mode == "async" and job.algorithm.name in SYNC_ONLY:
        hint = f'set training.mode = "sync"; async goes with all but {", ".join(SYNC_ONLY)}'
        problems.append(Problem(source, "training.mode", "must be sync here", hint))
    if job.training.mode == "sync" and job.algorithm.name in ASYNC_ONLY:
        hint = 'set training.mode = "async"'
        problems.append(Problem(source, "training.mode", "must be async here", hint))
    fitting = {"samples": "sgp", "quality": "dpsgd"}.get(job.algorithm.weighting)
    if fitting not in (None, job.algorithm.name):
        hint = f"it goes with algorithm {fitting}"
        problems.append(Problem(source, "algorithm.weighting", "does not fit", hint))
    if name == "values" and job.algorithm.name != "consensus":
        hint = 'set algorithm = "consensus"'
        problems.append(Problem(source, "model.name", "values cannot be trained", hint))
    if (name == "values") != (job.data.source == "none"):
        hint = 'data.source = "none" goes with model.name = "values", and only with it'
        problems.append(Problem(source, "data.source", "does not fit the model", hint))
    problems += check_partition(job.partition, source)
    problems += _check_gossip(job.gossip, source)
    problems += _check_robust(job, source)
    try:
        size = len(job.to_json().encode())
    except (TypeError, ValueError, RecursionError):  # a TOML date, or absurdly deep nesting
        hint = "use numbers, strings, true or false, lists and tables"
        problems.append(Problem(source, "model.options", "cannot be written as JSON", hint))
    else:
        if size > MAX_JOB_BYTES:
            problems.append(Problem(source, "", f"is larger than {MAX_JOB_BYTES} bytes"))
    return problems
