"""Names of the dates of a run: ``t0``, ``t1``, …; the interval that begins with a date has its name."""

from __future__ import annotations


def date_name(index: int) -> str:
    """Name of the date with a number, from 0."""
    return f"t{index}"


def date_index(name: str) -> int:
    """Number of the date, or of the interval, of a name."""
    return int(name.removeprefix("t"))
