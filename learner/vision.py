"""Importing torchvision, also where its binary does not fit the installed torch.

The registry's torchvision is built for CUDA. Beside torch's CPU build its compiled operators do not
load, and `import torchvision` dies with `operator torchvision::nms does not exist`, because it
registers fake kernels for operators that nobody declared. Datasets, transforms and classifiers need
none of these operators. So, only when the import fails in just this way, their schemas are declared
here and the import is tried again.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import torch

from learner.errors import LearnerError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A torch Library takes its declarations back when it is collected, so it is kept for good.
_declared: list[torch.library.Library] = []


def torchvision() -> ModuleType:
    """The torchvision package. Raises LearnerError (kind model) if there is none that works."""
    try:
        return _import()
    except ImportError as error:
        raise LearnerError(
            "model",
            f"torchvision cannot be imported ({error}); install the torchvision that pairs with "
            f"torch {torch.__version__} in gossipd's environment",
        ) from error
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    _forget_partial_import()
    _declare_schemas()
    return _import()


def _import() -> ModuleType:
    with warnings.catch_warnings():
        # It warns about the image codecs of its own that did not load; PIL reads our images.
        warnings.simplefilter("ignore")
        importlib.import_module("torchvision.datasets")
        importlib.import_module("torchvision.models")
        return importlib.import_module("torchvision")


def _forget_partial_import() -> None:
    """Half-imported modules would be taken for whole ones by the second attempt."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_schemas() -> None:
    if _declared:
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
