import json

import pytest

from learner.algorithms import ALGORITHMS as ALGORITHM_CLASSES
from learner.job import (
    ALGORITHMS,
    ASYNC_ONLY,
    BY_OPTIMIZER,
    FEW_A_ROUND,
    ROBUST,
    RULES,
    TOPOLOGIES,
    Algorithm,
    Data,
    Job,
    Model,
    Optimizer,
    Partition,
    Robust,
    check_source,
    is_code_reference,
)
from learner.job_file import MAX_JOB_BYTES, job_from_json, job_from_table, job_from_toml
from learner.schema import SchemaError


def problems(text):
    with pytest.raises(SchemaError) as caught:
        job_from_toml(text, source="job.toml")
    return [str(problem) for problem in caught.value.problems]


def test_the_default_job_survives_json():
    job = Job()
    assert job_from_json(job.to_json(), source="x") == job


def test_a_job_with_options_survives_json_and_keeps_its_digest():
    job = Job(model=Model("mlp", {"hidden": [4, 5]}), partition=Partition("dirichlet", 6, 0.1))
    again = job_from_json(job.to_json(), source="x")
    assert (again, again.digest) == (job, job.digest)


def test_different_jobs_have_different_digests():
    assert Job().digest != Job(seed=2).digest
    assert len(Job().digest) == 16


def test_toml_and_json_give_the_same_job():
    text = 'seed = 3\n[model]\nname = "cnn"\n[training]\nrounds = 7\n'
    table = {"seed": 3, "model": {"name": "cnn"}, "training": {"rounds": 7}}
    assert job_from_toml(text, source="x") == job_from_json(json.dumps(table), source="y")


def test_all_mistakes_of_a_job_are_reported_at_once():
    found = problems(
        'sead = 1\n[model]\nname = "mpl"\n[optimizer]\nlr = -1\nnesterov = true\nmomentum = 0\n'
        '[gossip]\ndegree = 5\n[data]\nsource = "folder:"\n'
    )
    keys = [text.split(": ")[1] for text in found]
    assert sorted(keys) == [
        "data.source", "gossip.degree", "model.name", "optimizer.lr", "optimizer.nesterov", "sead",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = [", "not valid TOML"),
        ("sead = 1", "did you mean 'seed'?"),
        ("[partition]\nparts = 0", "must be at least 1"),
        ("[model]\noptions = {when = 2024-01-01}", "cannot be written as JSON"),
    ],
)
def test_a_mistake_in_toml_is_explained(text, message):
    assert message in problems(text)[0]


@pytest.mark.parametrize("text", ["", "[", "[]", "3", '"x"', "[" * 100_00])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(SchemaError):
        job_from_json(text, source="x")


def test_deeply_nested_options_are_refused_rather_than_crash():
    text = '{"model": {"options": {"a": ' + "[" * 900 + "]" * 900 + "}}}"
    with pytest.raises(SchemaError, match="options"):
        job_from_json(text, source="x")


def test_a_job_that_does_not_fit_one_control_message_is_refused():
    with pytest.raises(SchemaError, match="larger than"):
        job_from_json(" " * MAX_JOB_BYTES + "{}", source="x")
    with pytest.raises(SchemaError, match="larger than"):
        job_from_table({"model": {"options": {"x": "y" * MAX_JOB_BYTES}}}, source="x")


def test_local_names_are_the_code_and_the_paths_that_a_job_would_use():
    table = {"model": {"name": "my.nets:small"}, "data": {"source": "my.data:load"}}
    assert job_from_table(table, source="x").local_names() == ("my.nets:small", "my.data:load")
    assert job_from_table(table, source="x").local_names(own_data=True) == ("my.nets:small",)
    table = {"data": {"source": "folder:/data/scans"}}
    assert job_from_table(table, source="x").local_names() == ("folder:/data/scans",)
    fetched = Job(data=Data("mnist", download=True))
    assert fetched.local_names() == ("mnist-download",)
    assert fetched.local_names(own_data=True) == ()
    # Code that is allowed as code can never be taken for it.
    assert not is_code_reference("mnist-download")
    assert Job().local_names() == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b:c", True), ("mlp", False), ("torchvision:resnet18", False), ("folder:x", False)],
)
def test_is_code_reference(name, expected):
    assert is_code_reference(name) is expected


@pytest.mark.parametrize(
    ("source", "fine"),
    [
        ("digits", True), ("mnist", True), ("npz:/a.npz", True), ("folder:/b", True),
        ("a.b:c", True), ("npz:", False), ("cifar", False), ("npz", False),
    ],
)  # fmt: skip
def test_check_source(source, fine):
    assert (check_source(source) == "") is fine


# The algorithm.


LOCKSTEP = [name for name in ALGORITHMS if name not in ASYNC_ONLY]


@pytest.mark.parametrize("name", LOCKSTEP)
def test_an_algorithm_can_be_named_alone(name):
    short = job_from_toml(f'algorithm = "{name}"', source="x")
    long = job_from_toml(f'[algorithm]\nname = "{name}"', source="x")
    assert short == long == Job(algorithm=Algorithm(name))
    assert short.digest == long.digest
    assert job_from_json(short.to_json(), source="x") == short


def test_a_misspelt_algorithm_is_explained():
    (problem,) = problems('algorithm = "dspgd"')
    assert "algorithm.name" in problem
    assert "did you mean 'dpsgd'?" in problem


@pytest.mark.parametrize("value", ["3", "true", '["gt"]'])
def test_an_algorithm_that_is_neither_name_nor_table_is_refused(value):
    (problem,) = problems(f"algorithm = {value}")
    assert "algorithm" in problem


def test_the_defaults_are_the_documented_ones():
    assert Job().algorithm.name == "qg-dsgdm"
    chosen = Algorithm()
    assert (chosen.mu, chosen.beta1, chosen.beta2, chosen.cap) == (0.1, 0.9, 0.999, 1e6)
    assert (chosen.epsilon, chosen.contraction, chosen.weighting) == (1e-8, 0, "equal")
    assert (chosen.outer_lr, chosen.outer_momentum, chosen.outer_pull) == (0.7, 0.5, 0.7)
    steps = Optimizer()
    assert (steps.name, steps.lr, steps.momentum, steps.nesterov) == ("sgd", 0.1, 0.9, False)
    assert (steps.schedule, steps.warmup_steps, steps.clip_norm) == ("constant", 0, 5.0)
    training = Job().training
    assert (training.shuffle, training.converged_change) == (True, 0)


@pytest.mark.parametrize("name", LOCKSTEP)
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_an_adaptive_optimizer_is_for_who_steps_by_it(name, optimizer):
    text = f'algorithm = "{name}"\n[optimizer]\nname = "{optimizer}"'
    if name in BY_OPTIMIZER:
        assert job_from_toml(text, source="x").optimizer.name == optimizer
    else:
        (problem,) = problems(text)
        assert "optimizer.name" in problem
        assert f"{name} takes its own steps; write sgd" in problem


@pytest.mark.parametrize("name", sorted(set(LOCKSTEP) - {"consensus"}))
def test_values_are_for_consensus(name):
    values = '[model]\nname = "values"\n[data]\nsource = "none"'
    (problem,) = problems(f'algorithm = "{name}"\n{values}')
    assert 'set algorithm = "consensus"' in problem
    job_from_toml(f'algorithm = "consensus"\n{values}', source="x")


@pytest.mark.parametrize(
    "text",
    [
        'algorithm = "consensus"\n[model]\nname = "values"',
        '[data]\nsource = "none"',
        'algorithm = "consensus"\n[data]\nsource = "none"',
    ],
)
def test_values_and_only_values_go_without_data(text):
    (problem,) = problems(text)
    assert "data.source" in problem


def test_who_goes_by_pairs_waits_for_nobody():
    (problem,) = problems('algorithm = "ad-psgd"')
    assert 'set training.mode = "async"' in problem


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nobody_waits_only_where_no_sum_must_be_kept(name):
    text = f'algorithm = "{name}"\n[training]\nmode = "async"'
    if ALGORITHM_CLASSES[name].keeps_sum:
        (problem,) = problems(text)
        assert "training.mode" in problem
    else:
        assert job_from_toml(text, source="x").training.mode == "async"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[algorithm]\nname = "gtadam"\nbeta1 = 1.0', "algorithm.beta1"),
        ('[algorithm]\nname = "gtadam"\nepsilon = 0', "algorithm.epsilon"),
        ("[algorithm]\ncontraction = 1", "algorithm.contraction"),
        ('[algorithm]\nweighting = "size"', "algorithm.weighting"),
        ('[optimizer]\nschedule = "cosinus"', "did you mean 'cosine'?"),
        ("[optimizer]\nwarmup_steps = -1", "at least 0"),
        ("[optimizer]\ndecay_steps = 0", "at least 1"),
        ('[training]\non_converged = "go"', "training.on_converged"),
        ("[training]\nconverged_rounds = 0", "at least 1"),
        ("[optimizer]\nnesterov = true\nmomentum = 0", "needs optimizer.momentum > 0"),
    ],
)
def test_a_number_or_word_that_cannot_be_is_explained(text, message):
    (problem,) = problems(text)
    assert message in problem


# Neighbours that lie.


KRUM = {"name": "Krum", "parameters": {"f": 1}}
BEFORE = ({"name": "NNM", "parameters": {"f": 1}}, {"name": "Clipping", "parameters": {"c": 2.5}})


def test_nobody_lies_by_default():
    robust = Job().robust
    assert (robust.liars, robust.rule, robust.active) == (0, "nna", False)
    assert (robust.gamma, robust.kappa, robust.alpha) == (0.3, 1.0, 0.5)
    assert (robust.aggregator_info, robust.pre_agg_list) == ({}, ())


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_active_where_there_may_be_liars(rule):
    assert Robust(1, rule).active is (rule != "mean")
    assert Robust(0, rule).active is False


def test_a_robust_job_survives_json():
    robust = Robust(2, "byzfl", 0.5, 2.0, 0.25, KRUM, BEFORE)
    job = Job(algorithm=Algorithm("dpsgd"), robust=robust)
    again = job_from_json(job.to_json(), source="x")
    assert (again, again.digest) == (job, job.digest)
    assert again.robust.pre_agg_list == BEFORE
    assert again.to_json() == job.to_json()
    for other in (Robust(2, "byzfl", 0.5, 2.0, 0.25, KRUM), Robust(1), Robust()):
        assert Job(algorithm=Algorithm("dpsgd"), robust=other).digest != job.digest


def test_a_robust_job_in_toml():
    text = (
        'algorithm = "dpsgd"\n[robust]\nliars = 1\nrule = "byzfl"\n'
        'aggregator_info = {name = "Krum", parameters = {f = 1}}\n'
        'pre_agg_list = [{name = "NNM", parameters = {f = 1}},'
        ' {name = "Clipping", parameters = {c = 2.5}}]\n'
    )
    expected = Robust(1, "byzfl", aggregator_info=KRUM, pre_agg_list=BEFORE)
    assert job_from_toml(text, source="x").robust == expected


def robust_job(name, robust):
    mode = 'mode = "async"' if name in ASYNC_ONLY else 'mode = "sync"'
    return f'algorithm = "{name}"\n[training]\n{mode}\n[robust]\n{robust}\n'


@pytest.mark.parametrize("name", ALGORITHMS)
def test_liars_are_borne_where_one_message_is_averaged(name):
    text = robust_job(name, "liars = 1")
    if name in ROBUST:
        assert job_from_toml(text, source="x").robust == Robust(1)
    else:
        (problem,) = problems(text)
        assert f"robust.rule: {name} cannot bear liars (take one of {', '.join(ROBUST)}" in problem
        assert "or robust.liars = 0)" in problem
    for harmless in ("liars = 0", 'liars = 3\nrule = "mean"'):
        job_from_toml(robust_job(name, harmless), source="x")


def test_liars_must_not_weigh_themselves():
    text = '[algorithm]\nname = "dpsgd"\nweighting = "quality"\n[robust]\n'
    (problem,) = problems(text + "liars = 1")
    assert "liars would weigh themselves" in problem
    assert 'set algorithm.weighting = "equal"' in problem
    job_from_toml(text + "liars = 0", source="x")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_enough_neighbours_are_met_in_a_round(topology):
    edges = 'edges = ["a b"]\n' if topology == "static" else ""
    text = f'[gossip]\ntopology = "{topology}"\n{edges}[robust]\n'
    if topology in FEW_A_ROUND:
        (problem,) = problems(text + "liars = 1")
        assert f"in {topology} a peer meets too few others to tell who lies" in problem
        assert 'take topology = "expander" or "complete"' in problem
    else:
        job_from_toml(text + "liars = 1", source="x")
    job_from_toml(text + 'liars = 1\nrule = "mean"', source="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rule = "byzfl"', 'robust.aggregator_info: is needed by byzfl (such as {name = "TrMean"}'),
        ('aggregator_info = {name = "Krumm"}', "aggregator_info: there is no 'Krumm'; did you"),
        ('aggregator_info = {name = "NNM"}', "aggregator_info: there is no 'NNM'; known:"),
        ('aggregator_info = {nam = "Krum"}', "unknown key 'nam'; did you mean 'name'?"),
        (
            'aggregator_info = {name = "Krum", parameters = {g = 1}}',
            "aggregator_info: Krum has no parameter 'g'",
        ),
        (
            'aggregator_info = {name = "Krum", parameters = {f = 1.5}}',
            "Krum's f must be a whole number, not 1.5",
        ),
        ('pre_agg_list = [{name = "NNN"}]', "pre_agg_list: there is no 'NNN'; did you mean 'NNM'"),
        ("pre_agg_list = [{}]", "pre_agg_list: has no name"),
        ('pre_agg_list = ["NNM"]', "robust.pre_agg_list"),
        ('rule = "nnna"', "did you mean 'nna'?"),
        ("liars = -1", "robust.liars: must be at least 0"),
        ("liars = 1.5", "robust.liars"),
        ("alpha = 1.5", "robust.alpha: must be at most 1"),
        ("kappa = -1", "robust.kappa: must be at least 0"),
        ("gama = 1", "did you mean 'gamma'?"),
    ],
)  # fmt: skip
def test_a_mistake_about_liars_is_explained(text, message):
    found = problems(f"[robust]\n{text}")
    assert message in found[0]


def test_all_mistakes_about_liars_are_told_at_once():
    found = problems(
        '[algorithm]\nname = "gt"\n[gossip]\ntopology = "base-k"\n[robust]\nliars = 1\n'
        'rule = "byzfl"\npre_agg_list = [{name = "NNN"}, {name = "Clip"}]\n'
    )
    keys = [text.split(": ")[1] for text in found]
    assert keys == ["robust.rule", "robust.rule", "robust.aggregator_info", "robust", "robust"]
