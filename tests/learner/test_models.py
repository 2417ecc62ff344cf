import contextlib

import pytest
import torch
from torch import nn

from learner import models, vision
from learner.errors import LearnerError
from learner.job import Model


def count(module):
    return sum(p.numel() for p in module.parameters())


def text_only(input_shape, classes):
    return "no module"


def narrow(input_shape, classes, *, width=2):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, width), nn.Linear(width, classes))


def wrong_output(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes + 1))


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (Model("linear"), (1, 8, 8), 650),
        (Model("mlp"), (1, 8, 8), 64 * 128 + 128 + 128 * 10 + 10),
        (Model("mlp", {"hidden": [7, 5], "dropout": 0.1}), (4,), 35 + 40 + 60),
        (Model("mlp", {"hidden": []}), (4,), 50),
        (Model("cnn"), (1, 28, 28), 1_199_882),
        (Model("cnn", {"channels": [2, 3], "hidden": 4}), (3, 8, 8), 56 + 57 + 52 + 50),
    ],
)
def test_a_built_in_model_has_the_documented_size(model, shape, parameters):
    assert count(models.build(model, shape, 10, 1)) == parameters


@pytest.mark.parametrize("edge", [1, 2, 3, 5, 6, 7, 8, 32])
def test_the_cnn_takes_images_of_any_size(edge):
    module = models.build(Model("cnn", {"channels": [2, 2]}), (2, edge, edge), 3, 1)
    assert module(torch.zeros(4, 2, edge, edge)).shape == (4, 3)


def test_the_seed_alone_determines_the_weights_and_the_global_state_is_untouched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.build(Model(), (4,), 3, 9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second, third = models.build(Model(), (4,), 3, 9), models.build(Model(), (4,), 3, 10)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=1))
    assert not torch.equal(first[1].weight, third[1].weight)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32)])
def test_a_torchvision_classifier_takes_gray_and_colour(shape):
    module = models.build(Model("torchvision:squeezenet1_1"), shape, 5, 1)
    assert module(torch.zeros(2, *shape)).shape == (2, 5)
    assert module.training


def test_a_factory_gets_shape_classes_and_options():
    reference = f"{__name__}:narrow"
    assert models.build(Model(reference, {"width": 6}), (4,), 3, 1)[1].out_features == 6


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Model("mpl"), (4,), "did you mean 'mlp'"),
        (Model("torchvision:resnet19"), (3, 32, 32), "did you mean 'resnet1"),
        (Model("torchvision:alexnet"), (3, 8, 8), "does not take inputs"),
        (Model("mlp", {"hiden": [3]}), (4,), "hiden"),
        (Model("mlp", {"hidden": 3}), (4,), "must be whole numbers"),
        (Model("mlp", {"hidden": [0]}), (4,), "must be whole numbers"),
        (Model("mlp", {"dropout": 1}), (4,), "below 1"),
        (Model("cnn"), (4,), "needs images"),
        (Model("cnn", {"channels": [3]}), (1, 8, 8), "two numbers"),
        (Model("cnn", {"hidden": "many"}), (1, 8, 8), "must be whole numbers"),
        (Model("linear", {"x": 1}), (4,), "check model.options"),
        (Model(f"{__name__}:text_only"), (4,), "must return a torch Module"),
        (Model(f"{__name__}:wrong_output"), (4,), r"logits \(2, 3\)"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(model, shape, message):
    with pytest.raises(LearnerError, match=message) as caught:
        models.build(model, shape, 3, 1)
    assert caught.value.kind == "model"


# A vector to agree on.


@pytest.mark.parametrize(
    ("start", "part", "values"),
    [
        ([1.5, 2, 3], 0, [1.5]),
        ([1, 2, 3], 2, [3.0]),
        ([[1, 2.5], [3, 4]], 1, [3.0, 4.0]),
    ],
)
def test_values_are_the_parts_own(start, part, values):
    module = models.build(Model("values", {"start": start}), (4,), 3, 1, part)
    assert module.values.tolist() == values
    assert module.values.dtype == torch.float32


def test_values_are_zero_for_the_first_part_by_default():
    assert models.build(Model("values"), (4,), 3, 1).values.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"start": [1.0]}, 1),
        ({"start": 3}, 0),
        ({"start": [None]}, 0),
        ({"start": [["a"]]}, 0),
        ({"start": [{"a": 1}]}, 0),
        ({"start": {"0": 1.0}}, 0),
        ({"strat": [1.0]}, 0),
    ],
)
def test_values_that_are_not_there_for_a_part_say_so(options, part):
    with pytest.raises(LearnerError, match=r"options") as caught:
        models.build(Model("values", options), (4,), 3, 1, part)
    assert caught.value.kind == "model"


def test_only_values_depend_on_the_part():
    one, other = (models.build(Model(), (4,), 3, 9, part) for part in (0, 5))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("option", ["weights", "pretrained", "weights_backbone"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "googlenet"])
def test_no_option_of_a_job_makes_torchvision_download_weights(monkeypatch, name, option):
    asked = []
    weights = vision.torchvision().models.WeightsEnum
    monkeypatch.setattr(weights, "get_state_dict", lambda *a, **k: asked.append(a))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: asked.append(a))
    for value in (True, "DEFAULT", "IMAGENET1K_V1"):
        with contextlib.suppress(LearnerError):
            models.build(Model(f"torchvision:{name}", {option: value}), (3, 224, 224), 3, 1)
    assert asked == []
