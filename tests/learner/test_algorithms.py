import math

import pytest
import torch

from learner import algorithms
from learner.algorithms import DPSGD, inbox_view
from learner.errors import LearnerError
from learner.vector import Layout


@pytest.fixture
def peers(make_trainer):
    """peers(n): n algorithms on parts 0 … n-1, each with its trainer."""

    def make(count):
        trainers = [make_trainer(part=part, local_steps=2) for part in range(count)]
        return [(algorithms.build("dpsgd", t, Layout.of(t.model)), t) for t in trainers]

    return make


def vector(trainer):
    return Layout.of(trainer.model).flatten(trainer.model)


def test_n_peers_on_a_fixed_graph_equal_w_times_x(peers):
    w = torch.tensor([[0.5, 0.25, 0.25, 0], [0.25, 0.5, 0, 0.25], [0.25, 0, 0.5, 0.25],
                      [0, 0.25, 0.25, 0.5]])  # fmt: skip
    four = peers(4)
    for round in range(1, 4):
        sent = torch.cat([algorithm.local(round) for algorithm, _ in four])
        for i, (algorithm, _) in enumerate(four):
            others = [j for j in range(4) if j != i and w[i, j] > 0]
            inbox = sent[others][:, None]
            algorithm.mix(float(w[i, i]), [float(w[i, j]) for j in others], inbox)
        mixed = torch.stack([vector(trainer) for _, trainer in four])
        torch.testing.assert_close(mixed, w @ sent)


def test_what_is_sent_is_the_model_after_the_local_steps(peers):
    ((algorithm, trainer),) = peers(1)
    before = vector(trainer)
    sent = algorithm.local(1)
    assert sent.shape == (1, len(before))
    assert torch.equal(sent[0], vector(trainer))
    assert not torch.equal(sent[0], before)
    assert algorithm.progress.steps == 2


def test_an_empty_inbox_keeps_the_local_result_and_has_no_distance(peers):
    ((algorithm, trainer),) = peers(1)
    sent = algorithm.local(1)
    assert algorithm.mix(1.0, [], torch.empty(0, *sent.shape)) is None
    assert torch.equal(vector(trainer), sent[0])


@pytest.mark.parametrize(
    ("own", "weights", "kind"),
    [
        (0.5, [0.4], "job"),
        (1.5, [-0.5], "job"),
        (math.nan, [0.5], "job"),
        (0.5, [math.nan], "job"),
        (0.5, [0.25, 0.25], "layout"),
    ],
)
def test_a_mix_that_makes_no_sense_changes_nothing(peers, own, weights, kind):
    ((algorithm, trainer),) = peers(1)
    sent = algorithm.local(1)
    with pytest.raises(LearnerError) as caught:
        algorithm.mix(own, weights, torch.zeros(1, *sent.shape))
    assert caught.value.kind == kind
    assert torch.equal(vector(trainer), sent[0])


def test_nothing_can_be_mixed_before_local_work_or_after_forgetting(peers):
    ((algorithm, _),) = peers(1)
    with pytest.raises(LearnerError, match="no local work"):
        algorithm.mix(1.0, [], torch.empty(0))
    algorithm.local(1)
    algorithm.forget()
    with pytest.raises(LearnerError, match="no local work"):
        algorithm.mix(1.0, [], torch.empty(0))


def test_an_unknown_algorithm_is_refused_with_a_suggestion(make_trainer):
    trainer = make_trainer()
    with pytest.raises(LearnerError, match="did you mean 'dpsgd'"):
        algorithms.build("dspgd", trainer, Layout.of(trainer.model))
    assert algorithms.ALGORITHMS["dpsgd"] is DPSGD


def test_the_inbox_is_a_view_of_the_payload():
    payload = bytearray(torch.arange(6.0).numpy().tobytes())
    view = inbox_view(payload, 2, 1, 3)
    payload[:4] = torch.tensor([9.0]).numpy().tobytes()
    assert view.tolist() == [[[9, 1, 2]], [[3, 4, 5]]]
    assert inbox_view(bytearray(), 0, 1, 3).shape == (0, 1, 3)


@pytest.mark.parametrize("length", [0, 8, 23, 25, 28])
def test_a_payload_of_another_length_is_refused(length):
    with pytest.raises(LearnerError, match="24 bytes"):
        inbox_view(bytearray(length), 2, 1, 3)
