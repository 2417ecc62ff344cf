"""Loading what a job names as `package.module:name`: a model factory or a data source.

Importing a module runs its code, so the daemon asks its owner first (its configuration lists what
is allowed); by the time a reference arrives here it has been allowed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from learner.errors import Kind, LearnerError
from learner.schema import suggestion


def load(reference: str, *, kind: Kind) -> Callable[..., Any]:
    """The callable behind `package.module:name`.

    Raises LearnerError of `kind` ('model' or 'data') when the module is not there, fails while it
    is imported, lacks the name, or holds something under it that cannot be called.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise LearnerError(kind, _not_found(reference, module_name, error.name or "")) from error
    except Exception as error:
        raise LearnerError(
            kind, f"{reference}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    try:
        found = getattr(module, name)
    except AttributeError:
        public = [word for word in vars(module) if not word.startswith("_")]
        hint = suggestion(name, public) if public else "it is empty"
        raise LearnerError(
            kind, f"{reference}: module {module_name} has no {name!r} ({hint})"
        ) from None
    if not callable(found):
        raise LearnerError(kind, f"{reference}: must be a function or class, not {found!r:.80}")
    return found  # type: ignore[no-any-return]


def _not_found(reference: str, module_name: str, missing: str) -> str:
    advice = "install it in gossipd's environment, or put its folder on PYTHONPATH"
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"{reference}: there is no module {missing!r}; {advice}"
    return f"{reference}: {module_name} imports {missing!r}, which is not there; {advice}"
