import dataclasses
import errno
import os

import pytest
import safetensors.torch
import torch

from learner import algorithms, assembly, checkpoint, data, gradients, partition
from learner import messages as say
from learner.job import (
    ALGORITHMS,
    ASYNC_ONLY,
    Algorithm,
    Data,
    Model,
    Optimizer,
    Partition,
    Robust,
    Training,
)
from learner.peer import Learner
from tests.learner.quadratics import play as play_together


def ask(learner, command, payload=b""):
    """The reply's message and its payload as a float32 tensor."""
    reply, outgoing = learner.answer(command, bytearray(payload))
    values = torch.frombuffer(bytearray(outgoing), dtype=torch.float32) if outgoing else None
    return reply, values


def raw(tensor):
    return tensor.contiguous().numpy().tobytes()


def model_of(learner):
    return ask(learner, say.Snapshot())[1]


def local(learner, round, evaluate=False, restart=False):
    reply, sent = ask(learner, say.RunLocal(round, evaluate, restart))
    assert isinstance(reply, say.LocalDone), reply
    return sent


def mix(learner, round, own_weight, weights, inbox, evaluate=False):
    command = say.Mix(round, own_weight, tuple(weights), evaluate)
    return ask(learner, command, raw(inbox))[0]


def by(name, job, **options):
    return dataclasses.replace(job, algorithm=Algorithm(name, **options))


def play(learners, rounds):
    """Complete-graph rounds, all weights equal."""
    share = 1 / len(learners)
    for round in rounds:
        sent = [local(learner, round) for learner in learners]
        for i, learner in enumerate(learners):
            others = torch.stack(sent)[[j for j in range(len(sent)) if j != i]]
            reply = mix(learner, round, 1 - share * len(others), [share] * len(others), others)
            assert isinstance(reply, say.Mixed), reply


def test_two_learners_mix_to_w_times_x(ready, small_job):
    two = [ready(small_job, part) for part in (0, 1)]
    sent = torch.stack([local(learner, 1) for learner in two])
    w = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    for i, learner in enumerate(two):
        reply = mix(learner, 1, 0.75, [0.25], sent[1 - i][None], evaluate=True)
        assert reply.round == 1
        assert 0 < reply.accuracy <= 1
        assert reply.distance > 0
    torch.testing.assert_close(torch.stack([model_of(learner) for learner in two]), w @ sent)


def test_peers_start_from_the_same_model_and_learn_together(ready, small_job):
    three = [ready(small_job, part) for part in range(3)]
    assert torch.equal(model_of(three[0]), model_of(three[2]))
    play(three, range(1, 31))
    seen = ask(three[0], say.Evaluate())[0]
    assert (seen.round, seen.samples) == (30, 360)
    assert seen.accuracy > 0.85


def test_configured_describes_the_layout(configure, small_job):
    reply, _ = ask(Learner(), configure(small_job))
    assert (reply.dimension, reply.layout_text) == (650, "2 tensors, 650 values")
    assert (reply.round, reply.samples, reply.test_samples) == (0, 479, 360)
    assert (reply.exchanged, reply.values, reply.keeps_sum) == (("model",), 650, False)


LOCKSTEP = [name for name in ALGORITHMS if name not in ASYNC_ONLY]


@pytest.mark.parametrize(
    ("name", "exchanged", "values", "keeps_sum"),
    [
        ("dpsgd", ("model",), 650, False),
        ("gt", ("model", "tracker"), 1300, True),
        ("sgp", ("model", "mass"), 651, True),
        ("gossip-learning", ("model", "age"), 651, False),
    ],
)
def test_configured_describes_the_message(configure, small_job, name, exchanged, values, keeps_sum):
    reply, _ = ask(Learner(), configure(by(name, small_job)))
    assert (reply.exchanged, reply.values, reply.keeps_sum) == (exchanged, values, keeps_sum)
    assert reply.dimension == 650


def test_local_work_is_evaluated_before_mixing_when_asked(ready, small_job):
    learner = ready(small_job)
    reply, _ = ask(learner, say.RunLocal(1, True))
    seen = ask(learner, say.Evaluate())[0]
    assert (reply.accuracy, reply.test_loss) == (seen.accuracy, seen.test_loss)
    assert reply.steps == 2
    assert ask(learner, say.RunLocal(2, False))[0].accuracy is None


def test_a_resumed_peer_is_bit_identical_to_one_that_never_stopped(ready, configure, small_job):
    job = dataclasses.replace(small_job, model=Model("cnn", {"channels": [2, 2], "dropout": 0.5}))
    straight = ready(job)
    nobody = torch.empty(0, 1)
    for round in range(1, 4):
        local(straight, round)
        mix(straight, round, 1.0, [], nobody)
    assert ask(straight, say.SaveCheckpoint())[0].round == 3
    resumed = Learner()
    assert ask(resumed, configure(job, resume=True))[0].round == 3
    for round in range(4, 6):
        assert torch.equal(local(straight, round), local(resumed, round))
        mix(straight, round, 1.0, [], nobody)
        mix(resumed, round, 1.0, [], nobody)
    assert torch.equal(model_of(straight), model_of(resumed))


def test_another_jobs_checkpoint_is_not_resumed(ready, configure, small_job):
    ask(ready(small_job), say.SaveCheckpoint())
    other = dataclasses.replace(small_job, seed=2)
    assert ask(Learner(), configure(other, resume=True))[0].round == 0


def test_a_checkpoint_of_another_layout_is_refused(ready, configure, small_job, monkeypatch):
    ask(ready(small_job), say.SaveCheckpoint())
    load = checkpoint.load_newest

    def changed(directory, *, job):
        found, warnings = load(directory, job=job)
        return dataclasses.replace(found, layout="0" * 16), warnings

    monkeypatch.setattr(checkpoint, "load_newest", changed)
    reply, _ = ask(Learner(), configure(small_job, resume=True))
    assert (reply.kind, "move the checkpoints away" in reply.message) == ("checkpoint", True)


def test_a_full_disk_fails_the_checkpoint_and_training_goes_on(ready, small_job, monkeypatch):
    learner = ready(small_job)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "write", full)
    reply, _ = ask(learner, say.SaveCheckpoint())
    assert (reply.kind, "no space left" in reply.message) == ("disk", True)
    local(learner, 1)


def test_bootstrap_starts_from_the_weighted_average_at_its_round(ready, small_job):
    donors = [ready(small_job, part) for part in (0, 1)]
    models = torch.stack([local(learner, 1) for learner in donors])
    joiner = ready(small_job, 2)
    local(joiner, 1)
    reply, _ = ask(joiner, say.Bootstrap(17, (3.0, 1.0)), raw(models))
    assert (reply.round, ask(joiner, say.Snapshot())[0].round) == (17, 17)
    torch.testing.assert_close(model_of(joiner), 0.75 * models[0] + 0.25 * models[1])
    assert reply.accuracy == ask(joiner, say.Evaluate())[0].accuracy
    assert mix(joiner, 1, 1.0, [], torch.empty(0, 1)).kind == "job"


@pytest.mark.parametrize(
    ("weights", "poison", "kind"),
    [
        ((1.0, 0.0), False, "job"),
        ((1.0, float("nan")), False, "job"),
        ((1.0,), False, "layout"),
        ((1.0, 1.0), True, "layout"),
    ],
)
def test_a_bootstrap_that_makes_no_sense_changes_nothing(ready, small_job, weights, poison, kind):
    learner = ready(small_job)
    before = model_of(learner)
    models = torch.stack([before + 1, before + 2])
    if poison:
        models[:, 3] = float("inf")
    reply, _ = ask(learner, say.Bootstrap(5, weights), raw(models))
    assert reply.kind == kind
    assert ("all 2 models" in reply.message) is poison
    assert ask(learner, say.Snapshot())[0].round == 0
    assert torch.equal(model_of(learner), before)


def test_a_poisoned_model_is_left_out_of_the_average(ready, small_job):
    learner = ready(small_job)
    before = model_of(learner)
    models = torch.stack([before + 1, before + 2, before + 4])
    models[1, 3] = float("nan")
    assert isinstance(
        ask(learner, say.Bootstrap(5, (1.0, 5.0, 3.0)), raw(models))[0], say.Bootstrapped
    )
    torch.testing.assert_close(model_of(learner), before + 1 / 4 + 4 * 3 / 4)


def test_a_bootstrap_without_models_is_refused(ready, small_job):
    assert ask(ready(small_job), say.Bootstrap(5, ()))[0].kind == "job"


def test_a_mix_of_the_wrong_length_is_refused_and_can_be_repeated(ready, small_job):
    learner = ready(small_job)
    sent = local(learner, 1)
    assert mix(learner, 1, 0.5, [0.5], sent[None, :-1]).kind == "layout"
    assert torch.equal(model_of(learner), sent)
    assert isinstance(mix(learner, 1, 0.5, [0.5], sent[None]), say.Mixed)


def test_a_sender_of_nan_is_ignored_and_its_weight_stays_on_oneself(ready, small_job, caplog):
    learner = ready(small_job)
    sent = local(learner, 1)
    inbox = torch.stack([sent + 1, torch.full_like(sent, float("nan"))])
    assert isinstance(mix(learner, 1, 0.5, [0.25, 0.25], inbox), say.Mixed)
    torch.testing.assert_close(model_of(learner), 0.75 * sent + 0.25 * (sent + 1))
    assert "1 of 2 vectors hold NaN" in caplog.text


def test_a_round_is_mixed_only_after_its_local_work_and_once(ready, small_job):
    learner = ready(small_job)
    nobody = torch.empty(0, 1)
    assert mix(learner, 1, 1.0, [], nobody).kind == "job"
    local(learner, 1)
    assert mix(learner, 2, 1.0, [], nobody).kind == "job"
    assert isinstance(mix(learner, 1, 1.0, [], nobody), say.Mixed)
    assert mix(learner, 1, 1.0, [], nobody).kind == "job"


def test_diverging_local_work_fails_and_leaves_the_model(ready, small_job):
    wild = Optimizer(lr=1000, weight_decay=10)
    steps = Training(local_steps=60)
    learner = ready(dataclasses.replace(small_job, optimizer=wild, training=steps))
    before = model_of(learner)
    reply, _ = ask(learner, say.RunLocal(1, False))
    assert (reply.kind, "lower the learning rate" in reply.message) == ("model", True)
    assert torch.equal(model_of(learner), before)


@pytest.mark.parametrize("command", [say.RunLocal(1, False), say.Bootstrap(3, (1.0,))])
def test_a_bug_in_an_evaluation_undoes_the_command(ready, small_job, monkeypatch, command, caplog):
    learner = ready(small_job)
    before = model_of(learner)
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "evaluate", None)
        command = dataclasses.replace(command, **({"evaluate": True} if command.round == 1 else {}))
        payload = raw(before + 1) if command.round == 3 else b""
        reply, _ = ask(learner, command, payload)
    assert (reply.kind, "Traceback" in reply.message) == ("bug", False)
    assert "Traceback" in caplog.text
    assert torch.equal(model_of(learner), before)


@pytest.mark.parametrize(
    "command",
    [say.RunLocal(1, False), say.Snapshot(), say.Evaluate(), say.SaveCheckpoint(), say.Export("x")],
)
def test_nothing_but_configure_is_answered_before_configure(command):
    reply, _ = ask(Learner(), command)
    assert (reply.kind, "before Configure" in reply.message) == ("job", True)


def test_a_reply_is_no_command(ready, small_job):
    assert ask(ready(small_job), say.SnapshotTaken(3))[0].kind == "job"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"job": '{"sead": 1}'}, "job", "did you mean 'seed'"),
        ({"source": "cifar"}, "data", "no data source"),
        ({"source": "npz:/nowhere.npz"}, "data", "no such file"),
        ({"part": 3}, "job", "from 0 to 2"),
    ],
)
def test_a_configuration_that_cannot_be_fails_and_keeps_the_session_before_it(
    ready, configure, small_job, changes, kind, message
):
    learner = ready(small_job)
    local(learner, 1)
    before = model_of(learner)
    reply, _ = ask(learner, dataclasses.replace(configure(small_job), **changes))
    assert (reply.kind, message in reply.message) == (kind, True)
    assert torch.equal(model_of(learner), before)


def test_export_writes_a_file_that_safetensors_reads(ready, small_job, tmp_path):
    path = tmp_path / "model.safetensors"
    reply, _ = ask(ready(small_job), say.Export(str(path)))
    assert reply.size_bytes == path.stat().st_size
    assert sum(t.numel() for t in safetensors.torch.load_file(path).values()) == 650


# A model from a file.


def exported(learner, path):
    ask(learner, say.Export(str(path)))
    return path


def with_tensors(path, **changes):
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, **changes}, path)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_imported_model_is_gone_on_from_as_from_a_donated_one(ready, small_job, tmp_path, name):
    mode = "async" if name in ASYNC_ONLY else "sync"
    job = dataclasses.replace(
        by(name, small_job), training=dataclasses.replace(small_job.training, mode=mode)
    )
    donor, importer, newcomer = ready(job, 0), ready(job, 1), ready(job, 1)
    for learner in (donor, importer, newcomer):
        play([learner], range(1, 4))
    path = exported(donor, tmp_path / "model.safetensors")
    imported, _ = ask(importer, say.Import(str(path)))
    started, _ = ask(newcomer, say.Bootstrap(3, (1.0,)), raw(model_of(donor)))
    assert imported == say.Imported(str(path), 3, started.accuracy, started.test_loss)
    assert torch.equal(model_of(importer), model_of(donor))
    # Nothing of before is left: both do the same from here on, momentum and trackers included.
    for learner in (importer, newcomer):
        play([learner], range(4, 6))
    assert torch.equal(model_of(importer), model_of(newcomer))


def test_an_import_leaves_out_the_work_of_the_round_under_way(ready, small_job, tmp_path):
    learner = ready(small_job)
    path = exported(learner, tmp_path / "model.safetensors")
    local(learner, 1)
    ask(learner, say.Import(str(path)))
    assert isinstance(mix(learner, 1, 1.0, [], torch.empty(0)), say.Failed)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"1.bias": torch.full((10,), float("nan"))}, "model"),
        ({"1.bias": torch.zeros(11)}, "layout"),
        ({"other": torch.zeros(1)}, "layout"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(ready, small_job, tmp_path, change, kind):
    learner, twin = ready(small_job), ready(small_job)
    path = exported(ready(small_job, 2), tmp_path / "model.safetensors")
    with_tensors(path, **change)
    for one in (learner, twin):
        play([one], range(1, 3))
    reply, _ = ask(learner, say.Import(str(path)))
    assert (type(reply), reply.kind) == (say.Failed, kind)
    for one in (learner, twin):
        play([one], range(3, 5))
    assert torch.equal(model_of(learner), model_of(twin))


@pytest.mark.parametrize("buffers", ["average", "keep"])
def test_buffers_are_imported_too_exchanged_or_not(ready, small_job, tmp_path, buffers):
    job = dataclasses.replace(
        small_job, model=Model("torchvision:mnasnet0_5", buffers=buffers), partition=Partition()
    )
    donor, importer = ready(job), ready(job)
    path = exported(donor, tmp_path / "model.safetensors")
    tensors = safetensors.torch.load_file(path)
    changed = {
        name: tensor + 1
        for name, tensor in tensors.items()
        if name.endswith(("running_mean", "num_batches_tracked"))
    }
    assert len({tensor.dtype for tensor in changed.values()}) == 2
    with_tensors(path, **changed)
    reply, _ = ask(importer, say.Import(str(path)))
    assert isinstance(reply, say.Imported)
    again = safetensors.torch.load_file(exported(importer, tmp_path / "again"))
    assert all(torch.equal(again[name], tensor) for name, tensor in changed.items())


def test_an_import_that_fails_late_leaves_the_kept_buffers_alone(
    ready, small_job, tmp_path, monkeypatch
):
    job = dataclasses.replace(
        small_job, model=Model("torchvision:mnasnet0_5", buffers="keep"), partition=Partition()
    )
    learner = ready(job)
    path = exported(learner, tmp_path / "model.safetensors")
    before = safetensors.torch.load_file(path)
    with_tensors(path, **{name: tensor + 1 for name, tensor in before.items()})

    def broken(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(gradients.OneModule, "evaluate", broken)
        assert isinstance(ask(learner, say.Import(str(path)))[0], say.Failed)
    after = safetensors.torch.load_file(exported(learner, tmp_path / "after"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_buffers_that_are_kept_are_not_exchanged(configure, small_job):
    job = dataclasses.replace(
        small_job, model=Model("torchvision:mnasnet0_5", buffers="keep"), partition=Partition()
    )
    kept, _ = ask(Learner(), configure(job))
    job = dataclasses.replace(job, model=Model("torchvision:mnasnet0_5"))
    averaged, _ = ask(Learner(), configure(job))
    assert averaged.dimension > kept.dimension
    assert averaged.layout != kept.layout


# Algorithms, as live peers run them.


@pytest.mark.parametrize("name", LOCKSTEP)
def test_live_peers_do_what_the_laboratory_does_at_once(ready, small_job, name):
    job = by(name, small_job)
    dataset = data.load(job.data, "", "", job.seed)
    parts = partition.split(dataset.y_train, job.partition, job.seed)
    (trainer,) = assembly.many_peers(job, dataset, parts)
    laboratory = algorithms.build(trainer, job)
    learners = [ready(job, part) for part in range(3)]
    w = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.75, 0.0], [0.25, 0.0, 0.75]]).double()
    for round in range(1, 5):
        play_together(laboratory, w, [round])
        sent = [local(learner, round) for learner in learners]
        for i, learner in enumerate(learners):
            others = [j for j in range(3) if j != i and w[i, j] > 0]
            inbox = torch.stack([sent[j] for j in others])
            row = [float(w[i, j]) for j in others]
            assert isinstance(mix(learner, round, float(w[i, i]), row, inbox), say.Mixed)
    models = torch.stack([model_of(learner) for learner in learners])
    torch.testing.assert_close(models, laboratory.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("name", LOCKSTEP)
def test_a_resumed_algorithm_remembers_what_it_had(ready, configure, small_job, name, between):
    """A checkpoint best comes between rounds, but may come before the mixing too."""
    straight, twin = ready(by(name, small_job)), ready(by(name, small_job), part=1)
    play([straight, twin], range(1, 4))
    if between:
        local(straight, 4)
    saved, _ = ask(straight, say.SaveCheckpoint())
    assert isinstance(saved, say.CheckpointSaved), saved
    resumed = Learner()
    assert ask(resumed, configure(by(name, small_job), resume=True))[0].round == 3
    assert torch.equal(model_of(resumed), model_of(straight))
    for learner in (straight, resumed):
        sent = local(learner, 4)
        assert isinstance(mix(learner, 4, 0.5, [0.5], sent[None]), say.Mixed)
    assert torch.equal(model_of(resumed), model_of(straight))
    assert torch.equal(local(resumed, 5), local(straight, 5))


def test_a_restart_begins_the_trackers_anew_and_nothing_else(ready, small_job):
    learner = ready(by("gt", small_job))
    play([learner], range(1, 4))
    model = model_of(learner)
    with_tracker = local(learner, 4)
    assert with_tracker[650:].any()
    restarted = local(learner, 4, restart=True)
    assert torch.equal(restarted[:650], model)
    assert not restarted[650:].any()


def test_a_restart_is_nothing_to_who_keeps_no_sum(ready, small_job):
    one, other = ready(small_job), ready(small_job)
    play([one], range(1, 3))
    play([other], range(1, 3))
    assert torch.equal(local(one, 3, restart=True), local(other, 3))


def test_a_failing_mix_leaves_the_algorithm_as_it_was_and_can_be_repeated(
    ready, small_job, monkeypatch, caplog
):
    learner, twin = (ready(by("gtadam", small_job)) for _ in range(2))
    play([learner], range(1, 4))
    play([twin], range(1, 4))
    sent = local(learner, 4)
    local(twin, 4)
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "evaluate", None)
        assert mix(learner, 4, 0.5, [0.5], sent[None], evaluate=True).kind == "bug"
    again, once = (mix(peer, 4, 0.5, [0.5], sent[None], evaluate=True) for peer in (learner, twin))
    assert (again.loss, again.accuracy) == (once.loss, once.accuracy)
    assert torch.equal(local(learner, 5), local(twin, 5))
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("name", "local_steps", "mixed_loss"),
    [("dpsgd", 2, False), ("dgd-classic", 2, False), ("dgd", 0, True), ("consensus", 0, False)],
)
def test_the_loss_is_told_with_the_work_that_it_belongs_to(
    ready, small_job, name, local_steps, mixed_loss
):
    learner = ready(by(name, small_job))
    done, sent = ask(learner, say.RunLocal(1, False))
    mixed = mix(learner, 1, 0.5, [0.5], sent[None])
    assert done.steps == local_steps
    assert (done.loss is not None) is bool(local_steps)
    assert (mixed.loss is not None) is mixed_loss


def test_the_change_of_a_round_is_relative_to_the_model_before(ready, small_job):
    training = dataclasses.replace(small_job.training, converged_change=0.01)
    learner = ready(dataclasses.replace(small_job, training=training))
    replies, models = [], []
    for round in range(1, 4):
        sent = local(learner, round)
        replies.append(mix(learner, round, 1.0, [], sent[None][:0]))
        models.append(model_of(learner))
    assert replies[0].change is None
    for number in (1, 2):
        before, after = models[number - 1 : number + 1]
        expected = float((after - before).norm() / before.norm())
        assert replies[number].change == pytest.approx(expected, rel=1e-5)


def test_no_change_is_told_where_the_job_does_not_ask(ready, small_job):
    learner = ready(small_job)
    for round in (1, 2):
        sent = local(learner, round)
        assert mix(learner, round, 1.0, [], sent[None][:0]).change is None


def test_ages_weigh_a_live_peers_mixing(ready, small_job):
    learner = ready(by("gossip-learning", small_job))
    sent = local(learner, 1)
    other = torch.cat([sent[:-1] + 1, torch.tensor([6.0])])  # three times as old
    mix(learner, 1, 0.5, [0.5], other[None])
    torch.testing.assert_close(model_of(learner), sent[:-1] + 0.75)
    assert local(learner, 2)[-1] == 6 + 2


def test_a_mass_divides_what_a_live_peer_was_pushed(ready, small_job):
    learner = ready(by("sgp", small_job))
    sent = local(learner, 1)
    assert sent[-1] == 1
    other = torch.cat([sent[:-1] + 1, torch.tensor([3.0])])
    reply = mix(learner, 1, 0.5, [0.5], other[None])
    torch.testing.assert_close(model_of(learner), (2 * sent[:-1] + 1) / (1 + 3))
    assert reply.distance > 0


def test_peers_agree_on_a_value_that_nothing_predicts(ready, small_job):
    start = [2.0, 7.0, 6.0]
    job = dataclasses.replace(
        by("consensus", small_job), model=Model("values", {"start": start}), data=Data("none")
    )
    three = [ready(job, part) for part in range(3)]
    assert [model_of(learner).tolist() for learner in three] == [[2], [7], [6]]
    play(three, range(1, 3))
    assert [model_of(learner).tolist() for learner in three] == [[pytest.approx(5)]] * 3
    done, sent = ask(three[0], say.RunLocal(3, True))
    assert isinstance(done, say.LocalDone), done
    assert (done.accuracy, done.test_loss, done.loss) == (None, None, None)
    assert mix(three[0], 3, 1.0, [], sent[None][:0], evaluate=True).accuracy is None
    assert ask(three[0], say.Evaluate())[0].accuracy is None
    values = torch.tensor([[4.0]])
    assert ask(three[0], say.Bootstrap(5, (1.0,)), raw(values))[0].accuracy is None
    assert model_of(three[0]).tolist() == [4]


def test_bootstrap_makes_the_algorithm_forget(ready, small_job):
    learner = ready(by("gt", small_job))
    play([learner], range(1, 4))
    ask(learner, say.Bootstrap(9, (1.0,)), raw(model_of(learner)[None]))
    assert not local(learner, 10)[650:].any()


def test_pushed_shares_need_not_sum_to_one(ready, small_job):
    learner = ready(by("sgp", small_job))
    sent = local(learner, 1)
    others = torch.stack([sent + 2, sent + 4])
    others[:, -1] = 1
    assert isinstance(mix(learner, 1, 0.5, [0.75, 0.25], others), say.Mixed)
    expected = (0.5 * sent + 0.75 * others[0] + 0.25 * others[1])[:-1] / 1.5
    torch.testing.assert_close(model_of(learner), expected)
    assert float(local(learner, 2)[-1]) == 1.5


def test_a_poisoned_share_is_lost_and_does_not_grow_ones_own(ready, small_job):
    learner = ready(by("sgp", small_job))
    sent = local(learner, 1)
    poison = torch.full_like(sent, float("nan"))
    assert isinstance(mix(learner, 1, 0.5, [0.5], poison[None]), say.Mixed)
    torch.testing.assert_close(model_of(learner), sent[:-1])
    assert float(local(learner, 2)[-1]) == 0.5


# Neighbours that may lie.


def robust(job, liars=1, rule="nna", **how):
    return dataclasses.replace(job, robust=Robust(liars, rule, **how))


def steps_from(sent, *distances):
    """Messages so far away, all in one direction."""
    return torch.stack([sent + distance for distance in distances])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_robust_mix_tells_whom_it_dropped_and_whom_it_rejected(ready, small_job, poison, caplog):
    learner = ready(robust(small_job))
    sent = local(learner, 1)
    inbox = steps_from(sent, 0.1, 100.0, 0.0, 0.3)
    inbox[2, 7] = poison
    reply = mix(learner, 1, 0.3, [0.1, 0.2, 0.3, 0.1], inbox)
    assert reply.weights == (0.1, 0.0, 0.0, 0.1)
    assert reply.rejected == (2,)
    assert "1 of 4 vectors hold NaN" in caplog.text
    torch.testing.assert_close(model_of(learner), sent + 0.01 + 0.03)


@pytest.mark.parametrize(
    ("rule", "weights", "way"),
    [
        ("nna", (0.2, 0.2, 0.0, 0.2), 0.2 * (1 + 2 + 4)),
        ("monna", (0.25, 0.25, 0.0, 0.25), 0.25 * (1 + 2 + 4)),
        ("ios", (0.25, 0.25, 0.0, 0.25), 0.25 * (1 + 2 + 4)),
        # The third largest distance is 2.
        ("clipped-sum", (0.2, 0.2, 0.2 * 2 / 100, 0.2 * 2 / 4), 0.2 * (1 + 2 + 2 + 2)),
        ("median", None, 2.0),
        ("trimmed-mean", None, (1 + 2 + 4) / 3),
    ],
)
def test_a_live_peer_mixes_by_the_jobs_rule(ready, small_job, rule, weights, way):
    learner = ready(robust(small_job, rule=rule))
    sent = local(learner, 1)
    reply = mix(learner, 1, 0.2, [0.2] * 4, steps_from(sent, 1.0, 2.0, 100.0, 4.0))
    torch.testing.assert_close(model_of(learner), sent + way, rtol=1e-4, atol=1e-4)
    assert reply.rejected == ()
    if weights is None:
        assert reply.weights is None
    else:
        assert reply.weights == pytest.approx(weights, rel=1e-4)


def test_a_bound_that_shrinks_goes_by_the_jobs_rounds(ready, small_job):
    job = robust(small_job, rule="balance", gamma=1.0, kappa=10.0)
    training = dataclasses.replace(small_job.training, rounds=10)
    learner = ready(dataclasses.replace(job, training=training))
    for round, accepted in ((1, True), (2, False)):
        sent = local(learner, round)
        near = sent + 0.25 * sent.norm() / len(sent) ** 0.5  # e⁻¹ > 0.25 > e⁻²
        assert mix(learner, round, 0.5, [0.5], near[None]).weights == (0.5 * accepted,)


def test_without_enough_neighbours_a_robust_peer_stays_as_it_is(ready, small_job):
    for rule in ("nna", "trimmed-mean", "ios"):
        learner = ready(robust(small_job, 2, rule))
        sent = local(learner, 1)
        reply = mix(learner, 1, 0.5, [0.25, 0.25], steps_from(sent, 1.0, 2.0))
        assert reply.weights == (0, 0)
        assert torch.equal(model_of(learner), sent)
        sent = local(learner, 2)
        nan = torch.full((3, 650), float("nan"))
        reply = mix(learner, 2, 0.4, [0.2] * 3, nan)
        assert (reply.weights, reply.rejected) == ((0, 0, 0), (0, 1, 2))
        assert torch.equal(model_of(learner), sent)


def test_without_liars_the_weights_are_those_that_were_given(ready, small_job):
    learner = ready(small_job)
    sent = local(learner, 1)
    inbox = steps_from(sent, 1.0, 2.0, 3.0)
    inbox[1] = float("nan")
    reply = mix(learner, 1, 0.4, [0.1, 0.2, 0.3], inbox)
    assert (reply.weights, reply.rejected) == ((0.1, 0, 0.3), (1,))
    aged = ready(by("gossip-learning", small_job))
    sent = local(aged, 1)
    other = torch.cat([sent[:-1] + 1, torch.tensor([6.0])])
    assert mix(aged, 1, 0.5, [0.5], other[None]).weights == pytest.approx((0.75,))


def test_a_robust_bootstrap_believes_no_claimed_weight(ready, small_job):
    learner = ready(robust(small_job))
    before = model_of(learner)
    models = steps_from(before, 1.0, 1000.0, 2.0, 6.0)
    reply, _ = ask(learner, say.Bootstrap(17, (1.0, 1e9, 1.0, 2.0)), raw(models))
    assert reply.round == 17
    torch.testing.assert_close(model_of(learner), before + 4, rtol=1e-4, atol=1e-4)  # of 2 and 6
    assert mix(learner, 17, 1.0, [], models[:0]).kind == "job"


def test_a_robust_bootstrap_needs_more_models_than_twice_the_liars(ready, small_job):
    learner = ready(robust(small_job, 1, "median"))
    before = model_of(learner)
    models = steps_from(before, 1.0, 3.0, 2.0, 90.0)
    models[2, 0] = float("nan")

    def start_from(round, count):
        command = say.Bootstrap(round, (0.5, 50.0, 100.0, 9.0)[:count])
        return ask(learner, command, raw(models[:count]))[0]

    for count in (1, 2):
        refusal = start_from(5, count)
        assert (refusal.kind, "TrMean" in refusal.message) == ("job", True)
        assert torch.equal(model_of(learner), before)
    # The one that is not finite is the liar: nobody else is cut off.
    assert start_from(6, 3).round == 6
    torch.testing.assert_close(model_of(learner), before + 2)  # of 1 and 3
    sound = steps_from(before, 1.0, 3.0, 90.0)
    ask(learner, say.Bootstrap(7, (0.5, 50.0, 9.0)), raw(sound))
    torch.testing.assert_close(model_of(learner), before + 3)  # of 1, 3 and 90
    assert ask(learner, say.Bootstrap(6, (1.0, 0.0)), raw(models[:2]))[0].kind == "job"


def test_a_plain_rule_bootstraps_by_the_weights(ready, small_job):
    learner = ready(robust(small_job, 3, "mean"))
    before = model_of(learner)
    ask(learner, say.Bootstrap(5, (1.0, 3.0)), raw(steps_from(before, 0.0, 4.0)))
    torch.testing.assert_close(model_of(learner), before + 3)


def told(learner, round, *peers):
    """The message and what the peers are told, float32 [1 + k, values]."""
    reply, sent = ask(learner, say.RunLocal(round, False, lie_to=peers))
    assert isinstance(reply, say.LocalDone), reply
    return sent.view(1 + len(peers), -1)


def test_a_liar_works_as_the_honest_do_and_tells_another_story(ready, small_job):
    liar = ready(small_job, lie="SignFlipping:scale=3", accomplices=("c",))
    twin = ready(small_job)
    sent = told(liar, 1, "a", "b", "c")
    assert torch.equal(sent[0], local(twin, 1))
    torch.testing.assert_close(sent[1:3], -3 * sent[:1].expand(2, -1))  # nothing heard yet
    assert torch.equal(sent[3], sent[0])
    inbox = steps_from(sent[0], 1.0, 2.0, 60.0)
    command = say.Mix(1, 0.4, (0.2, 0.2, 0.2), False, 0, ("a", "b", "c"))
    assert isinstance(ask(liar, command, raw(inbox))[0], say.Mixed)
    mix(twin, 1, 0.4, [0.2] * 3, inbox)
    assert torch.equal(model_of(liar), model_of(twin))
    again = told(liar, 2, "a")
    assert torch.equal(again[0], local(twin, 2))
    honest = torch.stack([inbox[0], inbox[1], again[0]])  # not the accomplice's
    torch.testing.assert_close(again[1], -3 * honest.mean(0))
    assert told(liar, 3).shape == (1, 650)


def test_each_neighbour_hears_a_lie_of_its_own(ready, small_job):
    liar = ready(small_job, lie="Dissensus:epsilon=1")
    first = told(liar, 1, "a", "b")
    inbox = steps_from(first[0], 1.0, 3.0)
    ask(liar, say.Mix(1, 0.5, (0.25, 0.25), False, 0, ("a", "b")), raw(inbox))
    lies = told(liar, 2, "b", "a")[1:]
    # Each stays where it was if it mixes the other and the lie with equal weights.
    torch.testing.assert_close(lies, torch.stack([inbox[1] + 2, inbox[0] - 2]))


def test_a_label_flipper_lies_by_what_it_learnt(ready, small_job):
    liar, twin = ready(small_job, lie="LabelFlipping"), ready(small_job)
    sent = told(liar, 1, "a", "b")
    assert torch.equal(sent[1], sent[0])
    assert torch.equal(sent[2], sent[0])
    assert not torch.equal(sent[0], local(twin, 1))
    dataset = data.load(small_job.data, "", "", small_job.seed)
    flipped = dataclasses.replace(dataset, y_train=9 - dataset.y_train)
    taught = algorithms.build(assembly.one_peer(small_job, flipped, 0), small_job)
    assert torch.equal(sent[0], taught.local(1)[0])


def test_who_is_honest_tells_everybody_the_same(ready, small_job):
    sent = told(ready(small_job), 1)
    assert sent.shape == (1, 650)


def test_a_lie_that_there_is_not_is_no_configuration(configure, small_job):
    reply, _ = ask(Learner(), configure(small_job, lie="SignFliping"))
    assert (reply.kind, "did you mean 'SignFlipping'" in reply.message) == ("job", True)
