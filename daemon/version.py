"""The version of this program, as pyproject.toml says."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("gossipd")
except PackageNotFoundError:  # run from a source tree that was not installed
    VERSION = "0+unknown"
