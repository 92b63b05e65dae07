"""Jobs, the command line, and the door for Python: ``from flows import detect, open_run``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.interface import ArchiveVersion, Dataset, Run, detect, open_run

__all__ = ["ArchiveVersion", "Dataset", "Run", "detect", "open_run"]


def __getattr__(name: str) -> Any:
    """What :mod:`flows.interface` offers, imported when it is asked for: a command needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "detect":  # the package of that name, which can be called
        return import_module("flows.detect")
    return getattr(import_module("flows.interface"), name)
