"""Where files live by default, after the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """State, checkpoints and the control socket: $XDG_DATA_HOME/gossipd."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "gossipd"


def default_config_file() -> Path:
    """$XDG_CONFIG_HOME/gossipd/gossipd.toml."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "gossipd" / "gossipd.toml"
