"""`--version`, which looks the version up when it is asked for: that takes as long as a call."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class ShowVersion(argparse.Action):
    """Print the program's name and version, and end."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version", **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from daemon.version import VERSION

        print(f"{parser.prog} {VERSION}")
        parser.exit()
