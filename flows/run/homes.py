"""A user without a home, as a container has it that runs as a number that no list of users names."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

NO_HOME = "/nonexistent"
"""Home of who has none, as the system's own users have it; libraries do without their settings there."""


def name_a_home(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let HOME be :data:`NO_HOME` where this user has no home: libraries would end with an error of their own.

    Processes that are started have it too.
    """
    try:
        Path.home()
    except RuntimeError:
        environment["HOME"] = NO_HOME
