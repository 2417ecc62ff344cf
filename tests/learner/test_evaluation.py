import pytest
import torch
from torch import nn
from torch.nn import functional

from learner.evaluation import evaluate


def test_batches_do_not_matter():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4), torch.randn(25, 3), torch.randint(0, 4, (25,))
    seen = evaluate(model, x, y, batch_size=7)
    logits = model(x)
    assert seen.samples == 25
    assert seen.accuracy == pytest.approx(float((logits.argmax(1) == y).double().mean()))
    assert seen.loss == pytest.approx(float(functional.cross_entropy(logits, y).detach()))


def test_each_module_comes_back_in_its_mode_and_no_statistics_move():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2))
    model[0].eval()
    x, y = torch.ones(4, 3), torch.zeros(4, dtype=torch.long)
    assert evaluate(model, x, y) == evaluate(model, x, y)
    assert [model.training, model[0].training, model[1].training] == [True, False, True]
    assert int(model[0].num_batches_tracked) == 0
    assert model[2].weight.grad is None
