"""What a container may use of the machine: cores and memory by control groups, of version 1 and 2.

A container sees all of the machine's cores and memory in the usual places; who goes beyond its share is slowed down, or
killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import psutil

_NO_LIMIT = 1 << 60
"""Bytes from which on a limit of version 1 stands for none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this process may use.

    Attributes:
        cores: CPU cores, by affinity (cpusets) and by the quota of time; part of a core counts as one.
        memory: bytes in all.
        free_memory: bytes that can still be had; what the system keeps of files gives way.
    """

    cores: int
    memory: int
    free_memory: int


def limits(root: Path = Path("/")) -> Limits:
    """The limits of now.

    Args:
        root: folder below which ``proc`` and ``sys`` lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores, whole, free = float(affinity), psutil.virtual_memory().total, psutil.virtual_memory().available
    for controllers, version_2, group in _groups(root):
        if version_2 or "cpu" in controllers:
            cores = min(cores, _quota(group) if version_2 else _quota_1(group))
        if version_2 or "memory" in controllers:
            limit, used = _memory(group) if version_2 else _memory_1(group)
            whole, free = min(whole, limit), min(free, max(limit - used, 0))
    return Limits(cores=max(1, ceil(cores)), memory=whole, free_memory=free)


def _groups(root: Path) -> Iterator[tuple[frozenset[str], bool, Path]]:
    """Controllers, whether they are of version 2, and folder, of this process's groups and all above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        places = [mounted] if not names else [mounted / names, *(mounted / name for name in names.split(","))]
        # with both versions in use, the second has a folder of its own
        top = next(
            (place for place in ([mounted / "unified", *places] if not names else places) if place.is_dir()), None
        )
        if top is None:
            continue
        group = top / path.strip("/")
        if not group.is_dir():  # the path is the host's, and the container sees its own group as the top one
            group = top
        controllers = frozenset(names.split(","))
        yield controllers, not names, group
        while group != top:
            group = group.parent
            yield controllers, not names, group


def _number(file: Path, read: Callable[[str], float], default: float) -> float:
    try:
        return read(file.read_text())
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return default


def _quota(group: Path) -> float:
    """Cores by ``cpu.max``: microseconds of each period, or ``max``."""

    def read(text: str) -> float:
        quota, period = text.split()[:2]
        return float(quota) / float(period)

    return _positive(_number(group / "cpu.max", read, float("inf")))


def _quota_1(group: Path) -> float:
    quota = _number(group / "cpu.cfs_quota_us", float, -1)
    period = _number(group / "cpu.cfs_period_us", float, 100_000)
    return _positive(quota / period if period else -1)


def _positive(cores: float) -> float:
    return cores if cores > 0 else float("inf")


def _memory(group: Path) -> tuple[int, int]:
    """Limit and use without files that give way, in bytes."""
    limit = min(_number(group / name, float, _NO_LIMIT) for name in ("memory.max", "memory.high"))
    used = _number(group / "memory.current", float, 0) - _of_files(group, "inactive_file")
    return round(min(limit, _NO_LIMIT)), round(max(used, 0))


def _memory_1(group: Path) -> tuple[int, int]:
    limit = _number(group / "memory.limit_in_bytes", float, _NO_LIMIT)
    used = _number(group / "memory.usage_in_bytes", float, 0) - _of_files(group, "total_inactive_file")
    return round(min(limit, _NO_LIMIT)), round(max(used, 0))


def _of_files(group: Path, name: str) -> float:
    def read(text: str) -> float:
        return float(next(line.split()[1] for line in text.splitlines() if line.split()[:1] == [name]))

    try:
        return _number(group / "memory.stat", read, 0)
    except StopIteration:
        return 0.0
