"""The version that is installed; pyproject.toml is where it is set."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Of the distribution `podbgp`."""
    try:
        return metadata.version("podbgp")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
