"""A run from a job to its figures: kinds, baselines, determinism."""

import math

import pytest
import torch

from learner import assembly, partition
from learner.errors import LearnerError
from learner.lab.conditions import Conditions
from learner.lab.federated import Federation
from learner.lab.run import KINDS, build, look, run, shares

EXPLODING = {"lr": 1000.0, "weight_decay": 10.0, "clip_norm": 0.0}


def test_figures_are_those_of_the_models(make_job, data_of):
    job = make_job(training={"rounds": 5})
    outcome = run(job)
    (*_, last) = outcome.rounds
    dataset, parts = data_of(job)
    assert [figures.round for figures in outcome.rounds] == [1, 2, 3, 4, 5]
    for peer, row in enumerate(outcome.models):
        trainer = assembly.one_of(job, dataset.only(parts[peer]), peer)
        (seen,) = trainer.compute.evaluate(row[None], dataset.x_test, dataset.y_test)
        assert last.accuracy[peer] == seen.accuracy
        assert last.test_loss[peer] == pytest.approx(seen.loss, rel=1e-5)
    x = outcome.models.double()
    spread = (x - x.mean(0)).square().sum(1).mean().sqrt()
    assert last.distance == pytest.approx(float(spread / x.mean(0).norm()))
    assert outcome.accuracy == pytest.approx(sum(last.accuracy) / 6)
    assert outcome.test_loss == pytest.approx(sum(last.test_loss) / 6)
    assert (outcome.kind, outcome.error, outcome.models_sent) == ("gossip", "", 5)
    assert len(last.loss) == len(last.peers) == 6
    assert outcome.seconds > 0


@pytest.mark.parametrize(("algorithm", "vectors"), [("gtadam", 2), ("noloco", 2), ("sgp", 1)])
def test_messages_are_counted_in_models(make_job, algorithm, vectors):
    assert run(make_job(algorithm=algorithm)).models_sent == 4 * vectors


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_numbers(make_job, kind):
    conditions = Conditions(miss=0.2, loss=0.2) if kind == "gossip" else Conditions()
    federation = Federation(share=0.5, dropout=0.2)

    def once(seed, threads):
        torch.set_num_threads(threads)
        try:
            job = make_job(seed=seed, model={"name": "mlp"})
            return run(job, kind=kind, conditions=conditions, federation=federation)
        finally:
            assert torch.get_num_threads() == threads
            torch.set_num_threads(1)

    first, again, another = once(1, 1), once(1, 2), once(2, 1)
    assert torch.equal(first.models, again.models)
    assert first.rounds == again.rounds
    assert not torch.equal(first.models, another.models)


def test_local_is_n_separate_trainings(make_job, data_of):
    job = make_job()
    outcome = run(job, kind="local")
    dataset, parts = data_of(job)
    for peer, part in enumerate(parts):
        trainer = assembly.one_of(job, dataset.only(part), peer)
        trainer.run(4 * 2)
        torch.testing.assert_close(outcome.models[peer], trainer.x[0], rtol=1e-5, atol=1e-6)


def test_centralized_with_one_peer_is_ordinary_training(make_job, data_of):
    job = make_job(partition={"parts": 1}, optimizer={"lr": 0.1, "momentum": 0.9})
    dataset, (part,) = data_of(job)
    trainer = assembly.one_of(job, dataset.only(part), 0)
    trainer.run(4 * 2)
    central, gossip = run(job, kind="centralized"), run(job)
    assert torch.equal(central.models, trainer.x)
    assert torch.equal(gossip.models, trainer.x)


def test_centralized_is_one_peer_with_everybodys_data_and_larger_batches(make_job, data_of):
    job = make_job(partition={"parts": 3})
    peers = build(job, kind="centralized", conditions=Conditions(absent=(0,)))
    dataset, _ = data_of(job)
    (group,) = peers.groups
    assert group.trainer.samples == (len(dataset.y_train),)
    assert group.trainer._training.batch_size == 24
    assert peers.present == [0]


def test_data_of_ones_own_is_not_counted_twice_in_the_centralized_run(make_job, data_of):
    job = make_job(partition={"kind": "none", "parts": 3})
    dataset, parts = data_of(job)
    assert [len(part) for part in parts] == [len(dataset.y_train)] * 3
    (group,) = build(job, kind="centralized").groups
    assert group.trainer.samples == (len(dataset.y_train),)


def test_parts_are_those_of_the_network(make_job, data_of):
    job = make_job(partition={"kind": "dirichlet", "alpha": 0.3})
    dataset, _ = data_of(job)
    for peer, part in enumerate(shares(job, dataset)):
        taken = partition.take(dataset, job.partition, peer, job.seed)
        assert torch.equal(dataset.x_train[part], taken.x_train)


def test_evaluations_come_when_asked_and_at_the_end(make_job):
    heard = []
    job = make_job(training={"rounds": 7, "evaluate_every": 3})
    outcome = run(job, on_round=heard.append)
    assert [figures.round for figures in outcome.rounds] == [3, 6, 7]
    assert heard == [1, 2, 3, 4, 5, 6, 7]


def test_only_those_who_are_there_are_measured(make_job):
    outcome = run(make_job(), conditions=Conditions(absent=(1,), leaves=((3, 4),)))
    assert [f.peers for f in outcome.rounds] == [[0, 2, 3, 4, 5]] * 2 + [[0, 2, 3, 5]] * 2
    assert all(len(f.accuracy) == len(f.loss) == len(f.peers) for f in outcome.rounds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_diverges_is_recorded_with_its_reason(make_job, kind):
    job = make_job(model={"name": "mlp"}, optimizer=EXPLODING, training={"rounds": 50})
    outcome = run(job, kind=kind)
    assert "diverged; lower the learning rate" in outcome.error
    assert len(outcome.rounds) < 50
    assert math.isnan(outcome.accuracy)
    assert math.isnan(outcome.test_loss)
    assert all(math.isfinite(a) for figures in outcome.rounds for a in figures.test_loss)


def test_values_have_a_distance_and_no_accuracy(make_values):
    outcome = run(make_values([1.0, 2.0, 3.0, 6.0], topology="complete"))
    assert [(f.accuracy, f.test_loss, f.loss) for f in outcome.rounds] == [([], [], [None] * 4)] * 3
    assert outcome.rounds[-1].distance == pytest.approx(0, abs=1e-6)
    assert math.isnan(outcome.accuracy)


def test_the_distance_means_nothing_where_the_mean_is_zero(make_values):
    peers = build(make_values([-1.0, 1.0]))
    assert look(peers).distance is None


def test_an_asynchronous_run_measures_by_time(make_job):
    job = make_job(training={"mode": "async"})
    outcome = run(job, conditions=Conditions(work=(1.0, 1.0, 1.0, 1.0, 1.0, 3.0)))
    assert [figures.round for figures in outcome.rounds] == [1, 2, 3, 4]
    assert outcome.rounds[0].loss[5] is None


@pytest.mark.parametrize(
    ("changes", "how", "complaint"),
    [
        ({}, {"kind": "gosip"}, "'gosip' is no kind of run; known: gossip, local"),
        ({}, {"conditions": Conditions(absent=(9,))}, "no peer 9"),
        (
            {"training": {"mode": "async"}},
            {"conditions": Conditions(miss=0.1)},
            "`work` only; leave",
        ),
        ({"training": {"mode": "async"}}, {"conditions": Conditions(work=(1.0,))}, "for 6 peers"),
        ({"partition": {"parts": 5000}}, {}, "parts"),
        ({"model": {"name": "nowhere.to:be_found"}}, {}, "nowhere"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(make_job, changes, how, complaint):
    with pytest.raises(LearnerError, match=complaint):
        run(make_job(**changes), **how)
