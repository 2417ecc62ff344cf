"""The example of owners with a model and folders of their own."""

import dataclasses
from pathlib import Path

import pytest

from examples.private_data import make_folders
from learner import data, models
from learner.errors import LearnerError
from learner.job_file import job_from_toml

EXAMPLE = Path(__file__).parents[2] / "examples" / "private_data"


@pytest.fixture(scope="module")
def owners(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "owners"
    make_folders.write(folder)
    return folder


@pytest.fixture
def job():
    return job_from_toml((EXAMPLE / "job.toml").read_text(), source="job.toml")


def loaded(job, folder):
    return data.load(dataclasses.replace(job.data, source=f"folder:{folder}"), "", "", job.seed)


def test_the_job_names_the_classes_as_the_folders_are_named(job):
    assert job.data.classes == make_folders.CLASSES
    assert job.local_names(own_data=True) == ("clinic:make",)


def test_a_joining_owner_allows_what_the_job_names(job):
    from daemon.config_sources import load_config
    from daemon.jobs import JobBoard

    config = load_config(EXAMPLE / "gossipd.toml", flags={}, environ={})
    assert JobBoard(config.learner.allow, own_data=True).refusal(job) == ""
    assert JobBoard((), own_data=True).refusal(job) != ""


def test_every_image_is_trained_on_by_one_owner_and_the_held_out_ones_by_nobody(owners):
    own = [{p.name for p in (owner / "train").rglob("*.png")} for owner in owners.iterdir()]
    held_out = [{p.name for p in (owner / "test").rglob("*.png")} for owner in owners.iterdir()]
    assert held_out[0] == held_out[1] == held_out[2]
    parts = [*own, held_out[0]]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 1797


def test_a_class_that_an_owner_lacks_keeps_its_number(job, owners):
    north, south = loaded(job, owners / "north"), loaded(job, owners / "south")
    assert north.class_names == south.class_names
    assert sorted(set(range(10)) - set(north.y_train.tolist())) == [6, 7, 9]
    assert sorted(set(range(10)) - set(south.y_train.tolist())) == [0, 2, 4, 5]
    assert north.y_test.tolist() == south.y_test.tolist()


def test_folders_are_not_written_over(owners):
    with pytest.raises(FileExistsError):
        make_folders.write(owners)


def test_the_model_goes_with_the_owners_images(job, owners, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    north = loaded(job, owners / "north")
    model = models.build(job.model, north.input_shape, north.classes, job.seed)
    assert north.input_shape == (3, 8, 8)
    assert sum(p.numel() for p in model.parameters()) == 4_010


def test_a_misspelt_option_is_refused(job, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    wrong = dataclasses.replace(job.model, options={"breadth": 8})
    with pytest.raises(LearnerError, match="breadth"):
        models.build(wrong, (3, 8, 8), 10, job.seed)
