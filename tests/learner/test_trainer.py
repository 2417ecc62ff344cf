import math

import pytest
import torch
from torch import nn

from learner.errors import LearnerError
from learner.job import Optimizer, Training
from learner.trainer import Batches, Trainer
from learner.vector import Layout

OPTIMIZERS = [
    Optimizer(lr=0.05),
    Optimizer(lr=0.05, momentum=0, clip_norm=0.5),
    Optimizer(lr=0.05, nesterov=True, weight_decay=0.01),
    Optimizer("adam", lr=0.01),
]


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.state().tensors.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def batches(samples, size):
    return Batches(samples, size, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("samples", "size"), [(10, 3), (9, 3), (2, 3), (1, 4), (5, 1), (7, 4)])
def test_an_epoch_holds_each_sample_once_and_never_one_alone_without_need(samples, size):
    drawn = batches(samples, size)
    for _ in range(3):
        epoch = [next(drawn) for _ in range(drawn.per_epoch)]
        assert sorted(torch.cat(epoch).tolist()) == list(range(samples))
        assert all(len(batch) > 1 for batch in epoch) or 1 in (samples, size)


def test_epochs_are_reshuffled():
    drawn = batches(50, 50)
    assert next(drawn).tolist() != next(drawn).tolist()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.name}-{o.momentum}")
def test_a_restored_run_is_bit_identical_to_one_that_never_stopped(make_trainer, optimizer):
    straight, resumed = make_trainer(optimizer), make_trainer(optimizer)
    straight.run(7)
    saved = straight.state()
    after = straight.run(9)
    resumed.run(2)  # whatever it did before must not matter
    resumed.restore(saved)
    assert resumed.run(9) == after
    assert same(weights(resumed), weights(straight))


def test_the_global_random_state_neither_matters_nor_changes(make_trainer):
    first, second = make_trainer(), make_trainer()
    torch.manual_seed(1)
    first.run(3)
    before = torch.get_rng_state()
    torch.rand(4)
    second.run(3)
    assert same(weights(first), weights(second))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_draw_different_batches(make_trainer):
    first, second = make_trainer(part=0), make_trainer(part=1)
    first.run(1)
    second.run(1)
    assert not same(weights(first), weights(second))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.name}-{o.momentum}")
def test_training_lowers_the_loss(make_trainer, optimizer):
    trainer = make_trainer(optimizer)
    first = trainer.run(5).loss
    trainer.run(100)
    assert trainer.run(5).loss < first


def test_a_round_is_local_steps_or_whole_epochs(make_trainer):
    assert make_trainer(local_steps=7).round_steps == 7
    assert make_trainer(local_epochs=2).round_steps == 2 * math.ceil(70 / 16)


@pytest.mark.parametrize("samples", [2, 5, 17])
def test_a_part_smaller_than_a_batch_trains_on_what_it_has(make_trainer, samples):
    assert make_trainer(samples=samples).run(3).steps == 3


def test_a_single_sample_that_batchnorm_refuses_is_explained(make_trainer):
    with pytest.raises(LearnerError, match="refused a training batch of 1 samples"):
        make_trainer(samples=1).run(1)


def test_clipping_bounds_a_step():
    model, x, y = nn.Linear(3, 2), 1e3 * torch.ones(8, 3), torch.zeros(8, dtype=torch.long)
    layout = Layout.of(model)
    layout.assign(model, torch.tensor([-1.0] * 3 + [1.0] * 3 + [0.0] * 2))
    before = layout.flatten(model)
    trainer = Trainer(
        model, x, y, optimizer=Optimizer(lr=1, momentum=0, clip_norm=0.1),
        training=Training(), seed=1, part=0,
    )  # fmt: skip
    trainer.run(1)
    assert float((layout.flatten(model) - before).norm()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 30])
def test_a_diverging_run_is_refused_and_leaves_everything_as_it_was(make_trainer, steps):
    trainer = make_trainer(Optimizer(lr=1e3, momentum=0, weight_decay=10))
    trainer.model[0].weight.data[0, 0] = 3e38 if steps == 1 else 1
    before = weights(trainer)
    with pytest.raises(LearnerError, match="lower the learning rate") as caught:
        trainer.run(steps)
    assert caught.value.kind == "model"
    assert same(weights(trainer), before)


def test_the_state_of_another_model_is_refused(make_trainer):
    other = Trainer(
        nn.Linear(6, 3), torch.zeros(4, 6), torch.zeros(4, dtype=torch.long),
        optimizer=Optimizer(), training=Training(), seed=1, part=0,
    )  # fmt: skip
    with pytest.raises(LearnerError, match="another model"):
        other.restore(make_trainer().state())


def test_a_fresh_optimizer_has_no_momentum(make_trainer):
    trainer = make_trainer()
    trainer.run(3)
    trainer.reset_optimizer()
    assert not [name for name in trainer.state().tensors if name.startswith("optimizer.")]


def test_a_place_in_other_data_is_forgotten(make_trainer):
    saved = make_trainer(samples=30)
    saved.run(1)
    trainer = make_trainer()
    trainer.restore(saved.state())
    assert trainer.run(10).steps == 10
