"""Spares a learner imports that it never uses: seconds of CPU at every start.

torch wraps a few Optimizer methods so that `torch.compile` leaves them alone, and the wrapper
imports the whole compiler (torch._dynamo, sympy, …) the first time one is called: about 1.8 s. A
learner compiles nothing, so the wrapper is told that the function may be called as it is. Where
torch has no such wrapper, nothing happens.
"""

from __future__ import annotations

import torch

WRAPPED = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")


def spare_compiler_import() -> None:
    """Let the wrapped Optimizer methods run without importing the compiler. Idempotent."""
    for name in WRAPPED:
        function = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if function is not None and getattr(function, "__dynamo_disable", None) is None:
            # The wrapper's own cache: what it would call after having imported the compiler.
            setattr(function, "__dynamo_disable", function)
