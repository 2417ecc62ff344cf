"""The job: what a network trains and how. Frozen dataclasses, free of torch; `job_file` reads them.

The founder's job is the network's job; joiners receive it as canonical JSON and check it as
strictly as a file. What belongs to one peer only (where its data lies, which part of a shared data
set it takes) is not in the job but in that peer's configuration.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from learner.schema import as_table, section, setting

MODELS = ("linear", "mlp", "cnn", "values")
SOURCES = ("digits", "two-moons", "mnist", "none")
TOPOLOGIES = (
    "expander", "complete", "ring", "star", "torus", "random-regular", "erdos-renyi", "exponential",
    "one-peer-exponential", "base-k", "random-matching", "static",
)  # fmt: skip
ALGORITHMS = (
    "consensus", "dgd", "dgd-classic", "dpsgd", "ad-psgd", "qg-dsgdm", "d2", "gt", "gt-atc",
    "gtadam", "gt-nsgdm", "sgp", "gossip-learning", "gradient-gossip", "gossip-nesterov", "noloco",
)  # fmt: skip
# Those whose local steps are the optimizer's; the others take their own, by its rate.
BY_OPTIMIZER = (
    "dpsgd", "ad-psgd", "sgp", "gossip-learning", "gradient-gossip", "gossip-nesterov", "noloco",
)  # fmt: skip
# What a neighbour's vectors go through where some neighbours may lie (learner.robust.rules).
RULES = (
    "mean", "nna", "monna", "clipped-gossip", "clipped-sum", "remove-then-clip", "ios", "balance",
    "median", "trimmed-mean", "byzfl",
)  # fmt: skip
# Where a robust rule can stand for W: one message, averaged. The others add something up over all
# peers, go by pairs, or bring weights of their own.
ROBUST = (
    "consensus", "dgd", "dgd-classic", "dpsgd", "qg-dsgdm", "gradient-gossip", "gossip-nesterov",
    "noloco",
)  # fmt: skip
# Graphs in which a peer meets too few others in a round to tell who lies.
FEW_A_ROUND = ("one-peer-exponential", "base-k", "random-matching")
# Where nobody waits for anybody by definition.
ASYNC_ONLY = ("ad-psgd",)
# Those in which something adds up over all peers, or two rounds belong together.
SYNC_ONLY = ("d2", "gt", "gt-atc", "gtadam", "gt-nsgdm", "sgp")
# What a job that downloads MNIST is called in `learner.allow`; no code reference looks like this.
DOWNLOAD = "mnist-download"
CODE_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Model:
    """Which network is trained."""

    name: str = setting(
        "mlp",
        "linear, mlp, cnn, torchvision:NAME (a torchvision classifier), values (a vector to agree"
        " on, start = one a part; for algorithm consensus), or package.module:factory;"
        " a factory is called with (input_shape, classes, **options) and returns a torch Module",
    )
    options: dict[str, Any] = setting(
        {}, "keyword arguments for the model, such as {hidden = [128]} for mlp"
    )
    buffers: str = setting(
        "average",
        "floating-point buffers such as BatchNorm statistics: mixed like the weights, or kept",
        choices=("average", "keep"),
    )


@dataclass(frozen=True, slots=True)
class Data:
    """Which data set is learnt from; a peer's own configuration may name another source."""

    source: str = setting(
        "digits",
        "digits (embedded), two-moons, mnist, none, folder:PATH (a folder of images per class),"
        " npz:PATH, or package.module:factory (called with data.options; returns x, y or x, y,"
        " x_test, y_test)",
    )
    download: bool = setting(False, "allow torchvision to download a data set that is not on disk")
    holdout: float = setting(
        0.2, "share held out for evaluation when the source brings no test set",
        minimum=0.01, maximum=0.9,
    )  # fmt: skip
    classes: tuple[str, ...] = setting(
        (),
        "names of the classes, in order; default: as found in the data. Needed when an owner's data"
        " may lack a class, so that a class number means the same everywhere",
    )
    options: dict[str, Any] = setting(
        {}, "keyword arguments for two-moons and for package.module:factory"
    )
    image_size: int = setting(
        32, "edge in pixels to which images of a folder are resized", minimum=8, maximum=1024
    )


@dataclass(frozen=True, slots=True)
class Partition:
    """How a data set that every peer holds is shared out; each peer takes one part of it."""

    kind: str = setting(
        "iid",
        "how (docs/splits.md): iid (equal random parts), dirichlet or quantity (skewed labels or"
        " sizes), contiguous, extreme, gamma-similarity or shards (blocks, as they lie or sorted by"
        " label), label-separated, classes or ratios (who has which classes), none (all of the"
        " local data is mine)",
        choices=(
            "iid", "dirichlet", "contiguous", "gamma-similarity", "extreme", "shards", "quantity",
            "label-separated", "classes", "ratios", "none",
        ),
    )  # fmt: skip
    parts: int = setting(
        5, "how many parts there are; fewer peers than parts may run", minimum=1, maximum=100_000
    )
    alpha: float = setting(
        0.5, "of dirichlet and quantity, the concentration: small is more skewed", minimum=0.001,
        maximum=1_000_000,
    )  # fmt: skip
    gamma: float = setting(
        0.5, "of gamma-similarity: the fraction shared out iid; 0 is extreme, 1 is iid", minimum=0,
        maximum=1,
    )  # fmt: skip
    shards: int = setting(
        2, "of shards: how many a part is dealt; fewer is more skewed", minimum=1, maximum=100_000
    )
    classes: tuple[str, ...] = setting(
        (),
        'of classes: the class numbers of each part, as in ["0,1,2", "3,4,5"]; a class that several'
        " parts name is shared among them evenly",
    )
    drop_rest: bool = setting(False, "of classes: leave out the classes that no part names")
    ratios: tuple[tuple[float, ...], ...] = setting(
        (), "of ratios: a list for each part, with each class's share in it (any scale)"
    )
    fractions: tuple[float, ...] = setting(
        (), "of ratios: the fraction of the data each part takes; default: 1 / parts each"
    )


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What a peer does by itself and how it takes in the others (docs/algorithms.md)."""

    name: str = setting(
        "qg-dsgdm",
        "the algorithm; `algorithm = NAME` at the top of the job is short for it",
        choices=ALGORITHMS,
    )
    mu: float = setting(
        0.1, "qg-dsgdm: what a round's way counts in the quasi-global momentum",
        minimum=0, maximum=1,
    )  # fmt: skip
    beta1: float = setting(0.9, "gtadam: decay of the mean", minimum=0, maximum=0.9999999)
    beta2: float = setting(0.999, "gtadam: decay of the square", minimum=0, maximum=0.9999999)
    cap: float = setting(1e6, "gtadam: bound of the square (G)", minimum=1e-30, maximum=1e30)
    epsilon: float = setting(1e-8, "gtadam: added inside the root", minimum=1e-30, maximum=1)
    contraction: float = setting(
        0.0,
        "consensus: a bound on |λ2| of the mixing matrix (1 − spectral gap), for Chebyshev"
        " acceleration on a graph that stays the same; 0 is plain averaging",
        minimum=0, maximum=0.9999999,
    )  # fmt: skip
    weighting: str = setting(
        "equal",
        "samples (sgp): each peer counts with its number of samples in the average that is"
        " minimised; quality (dpsgd): a neighbour's weight is scaled by exp(−its training loss)",
        choices=("equal", "samples", "quality"),
    )
    outer_lr: float = setting(
        0.7, "gossip-nesterov, noloco: rate of the step on a round's way", minimum=0, maximum=10
    )
    outer_momentum: float = setting(
        0.5, "gossip-nesterov, noloco: momentum of that step", minimum=0, maximum=0.9999
    )
    outer_pull: float = setting(
        0.7, "noloco: how far a round pulls to the others' models", minimum=0, maximum=10
    )


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The local steps; their state stays with the peer."""

    name: str = setting(
        "sgd",
        "the optimizer of the local steps, for " + ", ".join(BY_OPTIMIZER),
        choices=("sgd", "adam", "adamw"),
    )
    lr: float = setting(0.1, "learning rate", minimum=0, maximum=1_000)
    momentum: float = setting(
        0.9, "of sgd, and β of qg-dsgdm and gt-nsgdm", minimum=0, maximum=0.9999
    )
    nesterov: bool = setting(False, "sgd only; needs momentum > 0")
    weight_decay: float = setting(
        0.0, "L2 penalty, as torch's SGD and Adam add it; adamw decouples it", minimum=0, maximum=10
    )
    clip_norm: float = setting(
        5.0, "clip each batch's gradient to this Euclidean norm; 0 is off", minimum=0, maximum=1e9
    )
    schedule: str = setting(
        "constant",
        "how the rate falls over the job's steps: cosine and linear to 0, step by `decay`",
        choices=("constant", "cosine", "linear", "step"),
    )
    warmup_steps: int = setting(
        0, "steps over which the rate first rises to lr", minimum=0, maximum=10**9
    )
    decay: float = setting(0.1, "schedule step: the factor", minimum=0, maximum=1)
    decay_steps: int = setting(
        1000, "schedule step: steps between two such factors", minimum=1, maximum=10**9
    )


@dataclass(frozen=True, slots=True)
class Training:
    """How long a round's local work is, and how rounds are exchanged."""

    mode: str = setting(
        "sync",
        "sync: each round waits for its neighbours up to an adaptive deadline; async: nobody waits",
        choices=("sync", "async"),
    )
    rounds: int = setting(100, "rounds until the job is done", minimum=1, maximum=100_000_000)
    local_steps: int = setting(
        10, "optimizer steps a round (ignored when local_epochs is set)", minimum=1,
        maximum=100_000_000,
    )  # fmt: skip
    local_epochs: int = setting(
        0, "passes over the local data a round; 0: use local_steps", minimum=0, maximum=1_000_000
    )
    batch_size: int = setting(32, "samples a step", minimum=1, maximum=1_000_000)
    shuffle: bool = setting(True, "draw each pass over the data in a new order")
    min_peers: int = setting(
        1,
        "peers (this one included) below which training pauses; at least robust.liars + 2",
        minimum=1,
        maximum=10_000,
    )
    evaluate_every: int = setting(
        1, "rounds between evaluations, each before and after mixing", minimum=1, maximum=10**9
    )
    checkpoint_every: int = setting(10, "rounds between checkpoints", minimum=1, maximum=10**9)
    converged_change: float = setting(
        0.0,
        "training has converged when a round changes the model by less than this share of its norm"
        " and the estimated consensus distance is below converged_distance; 0 is off",
        minimum=0, maximum=1,
    )  # fmt: skip
    converged_distance: float = setting(
        0.01, "the relative consensus distance for that", minimum=0, maximum=1
    )
    converged_rounds: int = setting(5, "for so many rounds in a row", minimum=1, maximum=1_000_000)
    on_converged: str = setting(
        "report", "report: an event, and training goes on; stop: this peer is finished",
        choices=("report", "stop"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gossip:
    """With whom models are mixed, and with what weights."""

    topology: str = setting(
        "expander",
        "the mixing graph (docs/topologies.md); exponential, one-peer-exponential, base-k and"
        " random-matching bring their own weights",
        choices=TOPOLOGIES,
    )
    degree: int = setting(
        6,
        "neighbours a peer in expander (even) and random-regular; partners a round in base-k;"
        " rounds until random-matching repeats",
        minimum=1,
        maximum=64,
    )
    probability: float = setting(0.5, "of each edge in erdos-renyi", minimum=0.0, maximum=1.0)
    edges: tuple[str, ...] = setting(
        (),
        'of static, by peer names or ids: "A B", "A B WEIGHT", or one-way "A -> B WEIGHT"; in a job'
        ' file `network = "FILE.json"` reads them from a network file',
    )
    mixing: str = setting(
        "metropolis",
        "metropolis: 1 / (1 + the larger degree), keeps the mean; uniform: 1 / (1 + own degree)",
        choices=("metropolis", "uniform"),
    )


@dataclass(frozen=True, slots=True)
class Robust:
    """What mixing does about neighbours that lie (docs/robustness.md)."""

    liars: int = setting(
        0, "how many lying neighbours a peer has at the most; 0: nobody lies, and W averages all",
        minimum=0, maximum=1_000,
    )  # fmt: skip
    rule: str = setting(
        "nna",
        "with liars, which should be below a third of the neighbours: nna (the farthest from"
        " oneself are left out, as many as there may be liars) or another robust rule"
        " (docs/robustness.md); mean: W averages all the same; balance and byzfl take the keys"
        " below",
        choices=RULES,
    )
    gamma: float = setting(
        0.3, "balance: a neighbour is taken in within γ·exp(−κ·t/T) of one's own norm",
        minimum=0, maximum=1_000,
    )  # fmt: skip
    kappa: float = setting(
        1.0, "balance: how the bound shrinks over the job", minimum=0, maximum=100
    )
    alpha: float = setting(0.5, "balance: the weight of one's own model", minimum=0, maximum=1)
    aggregator_info: dict[str, Any] = setting(
        {}, 'byzfl: {name = "TrMean", parameters = {f = 1}}; f is `liars` where it is left out'
    )
    pre_agg_list: tuple[dict[str, Any], ...] = setting(
        (), 'byzfl: what goes before, as [{name = "NNM", parameters = {f = 1}}]'
    )

    @property
    def active(self) -> bool:
        """Whether anything but W's average is taken."""
        return self.liars > 0 and self.rule != "mean"


@dataclass(frozen=True)  # no slots: it remembers its digest
class Job:
    """A whole job. `Job()` is the default: an MLP on the embedded digits."""

    name: str = setting("digits", "a label for people")
    seed: int = setting(
        1, "seed of the initial model, of the partition and of the batches", minimum=0,
        maximum=2**31 - 1,
    )  # fmt: skip
    algorithm: Algorithm = section(Algorithm)
    model: Model = section(Model)
    data: Data = section(Data)
    partition: Partition = section(Partition)
    optimizer: Optimizer = section(Optimizer)
    training: Training = section(Training)
    gossip: Gossip = section(Gossip)
    robust: Robust = section(Robust)

    @property
    def peers_needed(self) -> int:
        """Peers below which training pauses. With fewer than b others and one more nobody could
        believe anybody, and who trains alone meanwhile is lost to the others."""
        least = self.robust.liars + 2 if self.robust.active else 1
        return max(self.training.min_peers, least)

    def to_json(self) -> str:
        """Canonical JSON: equal jobs give equal text."""
        return json.dumps(as_table(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON: the job's identity."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def local_names(self, *, own_data: bool = False) -> tuple[str, ...]:
        """What running this job would use of the machine it runs on: code that it would import
        (`package.module:name`), paths that it would read (`folder:`, `npz:`), and the network, to
        download MNIST. With `own_data` the peer names its own source, and the job's is not used."""
        source = self.data.source
        reads = is_code_reference(source) or source.partition(":")[0] in ("folder", "npz")
        names = [self.model.name] if is_code_reference(self.model.name) else []
        names += [source] if reads and not own_data else []
        fetches = source == "mnist" and self.data.download and not own_data
        return tuple([*names, DOWNLOAD] if fetches else names)


def is_code_reference(name: str) -> bool:
    """Whether `name` is `package.module:attribute` rather than a built-in name or `kind:path`."""
    kind = name.partition(":")[0]
    return kind not in ("torchvision", "folder", "npz") and bool(CODE_REFERENCE.fullmatch(name))


def check_source(source: str) -> str:
    """Why `source` is no data source, or '' when it is one."""
    kind, colon, path = source.partition(":")
    if source in SOURCES or is_code_reference(source):
        return ""
    if kind in ("folder", "npz") and colon:
        return "" if path else f"{kind}: needs a path, as in {kind}:/data/scans"
    return f"{source!r} is no data source"
