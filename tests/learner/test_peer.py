import dataclasses
import errno
import os

import pytest
import safetensors.torch
import torch

from learner import checkpoint, peer
from learner import messages as say
from learner.data import Dataset
from learner.job import Model, Optimizer, Partition, Training
from learner.peer import Learner
from learner.vector import Layout


def ask(learner, command, payload=b""):
    """The reply's message and its payload as a float32 tensor."""
    reply, outgoing = learner.answer(command, bytearray(payload))
    values = torch.frombuffer(bytearray(outgoing), dtype=torch.float32) if outgoing else None
    return reply, values


def raw(tensor):
    return tensor.contiguous().numpy().tobytes()


def model_of(learner):
    return ask(learner, say.Snapshot())[1]


def local(learner, round, evaluate=False):
    reply, sent = ask(learner, say.RunLocal(round, evaluate))
    assert isinstance(reply, say.LocalDone), reply
    return sent


def mix(learner, round, own_weight, weights, inbox, evaluate=False):
    command = say.Mix(round, own_weight, tuple(weights), evaluate)
    return ask(learner, command, raw(inbox))[0]


def play(learners, rounds):
    """Complete-graph rounds, all weights equal."""
    share = 1 / len(learners)
    for round in rounds:
        sent = [local(learner, round) for learner in learners]
        for i, learner in enumerate(learners):
            others = torch.stack([*sent[:i], *sent[i + 1 :]])
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
    assert reply.exchanged == ("model",)


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
        patch.setattr(peer, "evaluate", None)
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


def test_buffers_that_are_kept_are_not_exchanged(configure, small_job):
    job = dataclasses.replace(
        small_job, model=Model("torchvision:mnasnet0_5", buffers="keep"), partition=Partition()
    )
    kept, _ = ask(Learner(), configure(job))
    job = dataclasses.replace(job, model=Model("torchvision:mnasnet0_5"))
    averaged, _ = ask(Learner(), configure(job))
    assert averaged.dimension > kept.dimension
    assert averaged.layout != kept.layout


def test_peers_agree_only_if_their_class_numbers_mean_the_same():
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
    layout = Layout.of(torch.nn.Linear(3, 2))
    plain, cats, dogs = (
        Dataset(x, y, x, y, 2, names) for names in ((), ("cat", "dog"), ("dog", "zebra"))
    )
    digests = {peer.agreement(layout, data) for data in (plain, cats, dogs)}
    assert len(digests) == 3
    assert peer.agreement(layout, plain) == layout.digest
    assert "cat, dog" in peer.describe(layout, cats)
