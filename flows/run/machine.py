"""The machine that a command runs on."""

from __future__ import annotations

import platform
from pathlib import Path

from flows.run.limits import limits


def cores() -> int:
    """CPU cores that this process may use, in a container too."""
    return limits().cores


def machine() -> str:
    """Cores and processor, for a person."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{cores()} cores of {model}"
