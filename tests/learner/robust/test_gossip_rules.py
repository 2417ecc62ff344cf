"""The robust mixing rules beside their formulas, written out in numpy, and what they promise."""

import itertools
import math
import warnings

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner import mixing
from learner.errors import LearnerError
from learner.job import RULES, Job, Robust, Training
from learner.robust import rules
from learner.robust.distances import TooFew
from learner.robust.rules import REWEIGHINGS, average_of, rule_of

ROUNDS = 20
SIZE = 6
BY_COORDINATE = ("median", "trimmed-mean", "byzfl")
WHOLE = [name for name in RULES if name not in BY_COORDINATE]
KEEPING_W = ("nna", "clipped-gossip", "clipped-sum", "remove-then-clip")
TRIMMED = {"aggregator_info": {"name": "TrMean"}, "pre_agg_list": ({"name": "NNM"},)}


def built(name, liars, **changes):
    chosen = {**(TRIMMED if name == "byzfl" else {}), **changes}
    job = Job(training=Training(rounds=ROUNDS), robust=Robust(liars, name, **chosen))
    return rule_of(job)


def heard(count, seed, size=SIZE):
    """Own message, `count` neighbours' at very different distances, and uneven weights."""
    random = numpy.random.default_rng(seed)
    own = random.normal(size=size) * 3
    away = random.normal(size=(count, size)) * random.uniform(0.1, 5, (count, 1))
    weights = random.uniform(0.2, 1, count)
    weights *= random.uniform(0.3, 0.95) / max(weights.sum(), 1)
    as_32 = numpy.float32
    return torch.tensor(own.astype(as_32)), torch.tensor((own + away).astype(as_32)), weights


# The formulas, in float64 and without a helper of ours. They give the new message.


def length(vector):
    return math.sqrt(sum(float(value) ** 2 for value in vector))


def apart(own, rows):
    return [length(row - own) for row in rows]


def nearest_first(own, rows):
    return [j for _, j in sorted((d, j) for j, d in enumerate(apart(own, rows)))]


def pulled(own, rows, weights):
    """x_i + Σ w_j (x_j − x_i)."""
    return own + sum((w * (row - own) for w, row in zip(weights, rows, strict=True)), 0 * own)


def mean(own, rows, w, b, t):
    return pulled(own, rows, w)


def nna(own, rows, w, b, t):
    far = nearest_first(own, rows)[max(0, len(rows) - b) :]
    return pulled(own, rows, [0 if j in far else w[j] for j in range(len(rows))])


def monna(own, rows, w, b, t):
    near = nearest_first(own, rows)[: max(0, len(rows) - b)]
    return numpy.mean([own, *(rows[j] for j in near)], axis=0)


def clip(vector, radius):
    return vector * min(1, radius / length(vector))


def adaptive_radius(own, rows, w, b):
    near = nearest_first(own, rows)[: max(0, len(rows) - b)]
    if not near:
        return 0
    delta = sum(w[j] for j in range(len(rows)) if j not in near)
    return math.sqrt(sum(w[j] * length(rows[j] - own) ** 2 for j in near) / delta)


def clipped_gossip(own, rows, w, b, t):
    tau = adaptive_radius(own, rows, w, b)
    return own + sum((w[j] * clip(rows[j] - own, tau) for j in range(len(rows))), 0 * own)


def clipped_sum(own, rows, w, b, t):
    largest = sorted(apart(own, rows), reverse=True)
    tau = largest[2 * b] if len(rows) > 2 * b else 0
    return own + sum((w[j] * clip(rows[j] - own, tau) for j in range(len(rows))), 0 * own)


def remove_then_clip(own, rows, w, b, t):
    tau = adaptive_radius(own, rows, w, b)
    near = nearest_first(own, rows)[: max(0, len(rows) - b)]
    return own + sum((w[j] * clip(rows[j] - own, tau) for j in near), 0 * own)


def ios(own, rows, w, b, t):
    left = {-1: (1 - sum(w), own), **{j: (w[j], row) for j, row in enumerate(rows)}}

    def centre():
        total = sum(weight for weight, _ in left.values())
        return sum(weight * x for weight, x in left.values()) / total

    for _ in range(min(b, len(rows))):
        middle = centre()
        del left[max((j for j in left if j >= 0), key=lambda j: length(left[j][1] - middle))]
    return centre()


def balance(own, rows, w, b, t, gamma=0.3, kappa=1.0, alpha=0.5):
    bound = gamma * math.exp(-kappa * t / ROUNDS) * length(own)
    taken = [row for row in rows if length(row - own) <= bound]
    return alpha * own + (1 - alpha) * numpy.mean(taken, axis=0) if taken else own


def median(own, rows, w, b, t):
    return own if len(rows) < 2 * b else numpy.median([own, *rows], axis=0)


def trimmed(points, f):
    return numpy.mean(numpy.sort(points, axis=0)[f : len(points) - f], axis=0)


def trimmed_mean(own, rows, w, b, t):
    return own if len(rows) < 2 * b else trimmed([own, *rows], b)


def byzfl(own, rows, w, b, t):
    """NNM, then the trimmed mean."""
    if len(rows) < 2 * b:
        return own
    points = [own, *rows]
    mixed = []
    for point in points:
        near = sorted(points, key=lambda other, point=point: length(other - point))
        mixed.append(numpy.mean(near[: len(points) - b], axis=0))
    return trimmed(mixed, b)


FORMULAS = {
    "mean": mean, "nna": nna, "monna": monna, "clipped-gossip": clipped_gossip,
    "clipped-sum": clipped_sum, "remove-then-clip": remove_then_clip, "ios": ios,
    "balance": balance, "median": median, "trimmed-mean": trimmed_mean, "byzfl": byzfl,
}  # fmt: skip


def expected(name, own, rows, weights, liars, round, **how):
    rows = [row.astype(float) for row in rows.numpy()]
    found = FORMULAS[name](own.numpy().astype(float), rows, list(weights), liars, round, **how)
    return torch.tensor(numpy.asarray(found))


def assert_close(found, wanted):
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=2e-5)


def test_every_rule_has_its_formula_here():
    assert set(FORMULAS) == set(RULES) == {*REWEIGHINGS, "mean", "ios", *BY_COORDINATE}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 9), liars=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_a_rule_is_its_formula(name, count, liars, seed):
    own, rows, weights = heard(count, seed)
    found = built(name, liars)(own, rows, weights.tolist(), 7)
    assert_close(found.vector, expected(name, own, rows, weights, liars, 7))


@pytest.mark.parametrize("name", RULES)
def test_a_long_message_is_worked_on_in_chunks(name, monkeypatch):
    monkeypatch.setattr(mixing, "CHUNK_VALUES", 4)
    monkeypatch.setattr(rules, "CHUNK_VALUES", 4)
    own, rows, weights = heard(7, 5, size=19)
    found = built(name, 2)(own, rows, weights.tolist(), 3)
    assert_close(found.vector, expected(name, own, rows, weights, 2, 3))


@pytest.mark.parametrize("round", [1, 10, 20, 50])
@pytest.mark.parametrize(("gamma", "kappa", "alpha"), [(0.7, 2.0, 0.25), (3.0, 0.0, 0.9)])
def test_balance_is_as_it_is_set(round, gamma, kappa, alpha):
    counted = set()
    for seed in range(20):
        own, rows, weights = heard(6, seed)
        how = {"gamma": gamma, "kappa": kappa, "alpha": alpha}
        found = built("balance", 1, **how)(own, rows, weights.tolist(), round)
        # After the job's last round the bound stays as it was in it.
        wanted = expected("balance", own, rows, weights, 1, min(round, ROUNDS), **how)
        assert_close(found.vector, wanted)
        counted.add(sum(weight > 0 for weight in found.weights))
    assert len(counted) > 1


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 9), liars=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_the_weights_told_are_those_that_were_used(name, count, liars, seed):
    own, rows, weights = heard(count, seed)
    found = built(name, liars)(own, rows, weights.tolist(), 2)
    assert len(found.weights) == count
    assert min(found.weights, default=0) >= 0
    assert sum(found.weights) < 1  # one's own message is never left out
    points = [row.astype(float) for row in rows.numpy()]
    assert_close(
        found.vector, torch.tensor(pulled(own.numpy().astype(float), points, found.weights))
    )
    if name in KEEPING_W:
        assert all(new <= old for new, old in zip(found.weights, weights, strict=True))
    if name == "ios":
        assert 1 - sum(found.weights) >= 1 - sum(weights) - 1e-9


@pytest.mark.parametrize("name", BY_COORDINATE)
def test_rules_by_coordinate_tell_no_weights(name):
    own, rows, weights = heard(5, 1)
    assert built(name, 2)(own, rows, weights.tolist(), 2).weights is None


@pytest.mark.parametrize("name", sorted(set(RULES) - {"mean", "balance"}))
@pytest.mark.parametrize("liars", [1, 2, 3])
def test_with_no_more_neighbours_than_liars_one_stays_alone(name, liars):
    for count in range(liars + 1):
        own, rows, weights = heard(count, 10 * liars + count)
        found = built(name, liars)(own, rows, weights.tolist(), 1)
        assert torch.equal(found.vector, own)
        assert found.weights == (0.0,) * count


@pytest.mark.parametrize("name", sorted(set(RULES) - {"mean"}))
def test_without_neighbours_one_stays_as_one_is(name):
    own, rows, _ = heard(0, 4)
    found = built(name, 2)(own, rows, [], 1)
    assert torch.equal(found.vector, own)
    assert found.weights == ()


DIRECTIONS = [
    torch.ones(SIZE), -torch.ones(SIZE), torch.eye(SIZE)[0], torch.linspace(-1, 1, SIZE),
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(RULES) - {"mean"}))
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("size", [1e2, 1e6, 1e30, 3e38])
def test_far_off_liars_carry_nobody_out_of_the_honest_neighbourhood(name, same, size):
    liars, honest = 2, 5
    for seed in range(6):
        own, rows, weights = heard(honest, seed)
        chosen = [DIRECTIONS[(seed + (0 if same else place)) % 4] for place in range(liars)]
        lies = torch.stack([size * direction for direction in chosen])
        order = torch.randperm(honest + liars, generator=torch.Generator().manual_seed(seed))
        everybody = torch.cat([rows, lies])[order]
        uneven = numpy.append(weights, [weights.mean()] * liars)
        uneven = (uneven / uneven.sum() * 0.8)[order.numpy()]
        found = built(name, liars)(own, everybody, uneven.tolist(), 1)
        assert bool(torch.isfinite(found.vector).all())
        radius = max(apart(own.numpy().astype(float), rows.numpy().astype(float)))
        moved = length(found.vector.double().numpy() - own.double().numpy())
        if name == "balance":
            assert moved <= 0.5 * 0.3 * math.exp(-1 / ROUNDS) * float(own.norm()) + 1e-4
        elif name in ("clipped-gossip", "remove-then-clip"):
            near = sum(w for w, row in zip(uneven, order, strict=True) if row < honest)
            # Σ_near w_j d_j + δ τ, with all honest d_j ≤ radius.
            assert moved <= radius * (near + math.sqrt(near * (0.8 - near))) * 1.001
        else:
            assert moved <= radius * 1.001
            hull = torch.cat([own[None], rows])
            if name not in ("clipped-sum",):
                assert bool((found.vector <= hull.max(0).values + 1e-4).all())
                assert bool((found.vector >= hull.min(0).values - 1e-4).all())


def test_one_liar_carries_a_plain_mean_away():
    own, rows, weights = heard(5, 3)
    rows[2] = 1e6
    found = built("mean", 2)(own, rows, weights.tolist(), 1)
    assert float((found.vector - own).norm()) > 1e4


@pytest.mark.parametrize("name", RULES)
def test_what_is_given_stays_and_nothing_is_remembered(name):
    own, rows, weights = heard(7, 11)
    before, weights = (own.clone(), rows.clone()), weights.tolist()
    given = list(weights)
    rule = built(name, 2)
    first = rule(own, rows, weights, 4)
    rule(rows[0], rows * 100, weights, 9)
    again = rule(own, rows, weights, 4)
    assert torch.equal(first.vector, again.vector)
    assert first.weights == again.weights
    first.vector.zero_()
    assert torch.equal(own, before[0])
    assert torch.equal(rows, before[1])
    assert weights == given


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("liars", [2, 9])
def test_what_is_given_may_be_a_view_of_a_buffer_that_cannot_be_written(name, liars):
    own, rows, weights = heard(7, 12)
    memory = torch.cat([own[None], rows]).numpy().tobytes()
    kept = bytes(bytearray(memory))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of memory that is not to be written
        view = torch.frombuffer(memory, dtype=torch.float32).view(8, -1)
    found = built(name, liars)(view[0], view[1:], weights.tolist(), 4)
    found.vector.fill_(9)
    assert memory == kept


@pytest.mark.parametrize("name", RULES)
def test_equal_messages_are_no_quarrel(name):
    own = torch.arange(1.0, 7)
    found = built(name, 2)(own, own.expand(6, -1).clone(), [1 / 7] * 6, 1)
    torch.testing.assert_close(found.vector, own)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"mean"}))
def test_nobody_expected_to_lie_means_plain_mixing(name):
    own, rows, weights = heard(5, 2)
    found = built(name, 0)(own, rows, weights.tolist(), 1)
    assert_close(found.vector, expected("mean", own, rows, weights, 0, 1))
    assert found.weights == tuple(weights.tolist())


@pytest.mark.parametrize("name", sorted(set(RULES) - {"byzfl"}))
def test_who_speaks_first_does_not_matter(name):
    own, rows, weights = heard(4, 8)
    rule = built(name, 1)
    found = rule(own, rows, weights.tolist(), 1).vector
    for order in itertools.permutations(range(4)):
        chosen = list(order)
        again = rule(own, rows[chosen], weights[chosen].tolist(), 1).vector
        torch.testing.assert_close(again, found, rtol=1e-5, atol=1e-5)


def test_of_equally_far_neighbours_the_first_is_nearer():
    own, rows = torch.zeros(2), torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    assert built("nna", 1)(own, rows, [0.25] * 3, 1).weights == (0.25, 0.25, 0.0)


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.5, 0.0]])
def test_ios_without_anybody_of_weight_leaves_oneself_alone(weights):
    own, rows, _ = heard(2, 3)
    assert torch.equal(built("ios", 2)(own, rows, weights, 1).vector, own)


@pytest.mark.parametrize("name", ["TrMean", "Krum", "MDA", "Meamed"])
def test_with_few_neighbours_a_rule_of_byzfls_ends_no_training(name):
    own, rows, weights = heard(3, 3)
    rule = built("byzfl", 2, aggregator_info={"name": name}, pre_agg_list=())
    assert bool(torch.isfinite(rule(own, rows, weights.tolist(), 1).vector).all())


@pytest.mark.parametrize(
    ("liars", "how"),
    [
        (1, {"aggregator_info": {"name": "Krum", "parameters": {"f": 3}}, "pre_agg_list": ()}),
        (2, {"aggregator_info": {"name": "TrMean"}, "pre_agg_list": ({"name": "Bucketing",
             "parameters": {"s": 2}},)}),
    ],
)  # fmt: skip
def test_where_a_rule_of_byzfls_has_too_few_one_stays_alone_and_says_so(liars, how, caplog):
    own, rows, weights = heard(4, 3)
    found = built("byzfl", liars, **how)(own, rows, weights.tolist(), 7)
    assert torch.equal(found.vector, own)
    assert found.weights == (0, 0, 0, 0)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("round 7: left alone: ")


@pytest.mark.parametrize("kind", ["job", "layout", "model"])
def test_whatever_else_goes_wrong_in_a_rule_of_byzfls_is_raised(monkeypatch, kind):
    def broken(rows, *, round, overwrite):
        raise LearnerError(kind, "broken")

    monkeypatch.setattr(rules, "robust_aggregator", lambda *how, f: broken)
    own, rows, weights = heard(4, 3)
    with pytest.raises(LearnerError, match="broken") as caught:
        built("byzfl", 1)(own, rows, weights.tolist(), 1)
    assert caught.value.kind == kind


@pytest.mark.parametrize("liars", [1, 2, 3])
def test_a_newcomers_start_is_the_trimmed_mean_and_needs_more_than_2b_models(liars):
    robust = Robust(liars, "nna")
    models = heard(2 * liars + 1, 5)[1]
    worths = [1.0, 1e9] + [1.0] * (2 * liars - 1)
    torch.testing.assert_close(average_of(models, worths, robust), models.median(0).values)
    for count in range(1, 2 * liars + 1):
        with pytest.raises(TooFew, match="TrMean") as caught:
            average_of(models[:count], worths[:count], robust)
        assert caught.value.kind == "job"


def test_byzfl_is_given_f_and_the_round():
    own, rows, weights = heard(8, 6)
    rule = built("byzfl", 2, aggregator_info={"name": "Average"}, pre_agg_list=(BUCKETS,))
    rounds = [rule(own, rows, weights.tolist(), round).vector for round in (1, 1, 2)]
    assert torch.equal(rounds[0], rounds[1])
    assert not torch.equal(rounds[0], rounds[2])
    krum = {"name": "Krum", "parameters": {"f": 3}}
    ours = built("byzfl", 1, aggregator_info=krum, pre_agg_list=())
    everybody = torch.cat([own[None], rows])
    scores = torch.cdist(everybody.double(), everybody.double()).square().sort(1).values
    best = int(scores[:, :6].sum(1).argmin())
    assert torch.equal(ours(own, rows, weights.tolist(), 1).vector, everybody[best])


BUCKETS = {"name": "Bucketing", "parameters": {"s": 2}}


def test_a_byzfl_dictionary_that_is_wrong_is_refused_before_the_first_round():
    with pytest.raises(LearnerError, match="did you mean 'Krum'") as caught:
        built("byzfl", 1, aggregator_info={"name": "Krumm"})
    assert caught.value.kind == "job"
