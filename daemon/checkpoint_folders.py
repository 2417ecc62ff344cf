"""Where the runs' checkpoints lie, and which of them are kept."""

from __future__ import annotations

import shutil
from pathlib import Path


def checkpoint_dir(data_dir: Path, run: str) -> Path:
    """Where a run's checkpoints lie."""
    return data_dir / "checkpoints" / run


def forget_older_runs(current: Path) -> None:
    """Of the runs before the `current` one only the newest keeps its checkpoints."""
    folder = current.parent
    if folder.is_dir():
        others = [path for path in folder.iterdir() if path != current and path.is_dir()]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
            shutil.rmtree(path, ignore_errors=True)
