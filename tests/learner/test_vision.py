import sys

import pytest

from learner import vision
from learner.errors import LearnerError


def test_torchvision_works_whatever_its_binary_was_built_for():
    torchvision = vision.torchvision()
    assert hasattr(torchvision.datasets, "MNIST")
    assert vision.torchvision() is torchvision


def test_a_missing_torchvision_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(LearnerError, match="install the torchvision that pairs with torch"):
        vision.torchvision()
