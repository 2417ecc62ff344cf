import json

import pytest

from learner.job import (
    MAX_JOB_BYTES,
    Job,
    Model,
    Partition,
    check_source,
    is_code_reference,
    job_from_json,
    job_from_table,
    job_from_toml,
)
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
