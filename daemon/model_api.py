"""The control API's methods about the model as it is now: what the learner is asked between two
rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from daemon.learner_process import LearnerDied, LearnerFailed
from daemon.refusals import BAD_PATH, LEARNER_FAILED, NOT_TRAINING, RpcError
from daemon.running import Node
from daemon.session import NotTraining
from learner.messages import Evaluate, Evaluated, Export, Exported


class ModelApi:
    """The model as it is now."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def evaluate(self) -> dict[str, Any]:
        """Evaluate the current model on this peer's held-out data."""
        reply: Evaluated = await self._ask(Evaluate(), Evaluated)
        return asdict(reply)

    async def export(self, path: str) -> dict[str, Any]:
        """Write the current model as safetensors to an absolute path on the daemon's machine."""
        target = _absolute(path)
        if not await trio.Path(target.parent).is_dir():
            message = f"{path!r} must be an absolute path in a folder that exists"
            raise RpcError(BAD_PATH, "bad_path", message)
        reply: Exported = await self._ask(Export(str(target)), Exported)
        return asdict(reply)

    async def import_file(self, path: str) -> dict[str, Any]:
        """Go on from the model of a safetensors file, an absolute path on the daemon's machine."""
        target = _absolute(path)
        with _refusals():
            return asdict(await self._node.session.running().import_model(str(target)))

    async def _ask(self, command: Any, answer: Any) -> Any:
        with _refusals():
            reply, _ = await self._node.session.running().ask(command, answer)
        return reply


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The learner's refusals as the API tells them."""
    try:
        yield
    except NotTraining as error:
        raise RpcError(NOT_TRAINING, "not_training", str(error)) from None
    except (LearnerFailed, LearnerDied) as error:
        kind = error.kind if isinstance(error, LearnerFailed) else "died"
        raise RpcError(LEARNER_FAILED, "learner_failed", str(error), cause=kind) from None


def _absolute(path: str) -> Path:
    """A path on this machine. Raises RpcError (bad_path) where it cannot be one."""
    target = Path(path)
    if not target.is_absolute() or not path.isprintable():
        message = f"{path!r} must be an absolute path in a folder that exists"
        raise RpcError(BAD_PATH, "bad_path", message)
    return target
