"""Which dates of an archive are compared: the pairing rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

RULES = "consecutive, baseline:YYYY-MM-DD or same-season"

_DAYS = 365.25


@dataclass(frozen=True, order=True)
class IndexPair:
    """Two dates by their indices.

    Attributes:
        reported: the one that the pair tells of: no two pairs of a rule tell of the same date. It is the later one, or
            the one beside the baseline.
    """

    reported: int
    earlier: int
    later: int


class PairingError(ValueError):
    """The rule is none, or these dates have no pair by it; the message names them."""


def pairs_of(dates: Sequence[date], rule: str) -> list[IndexPair]:
    """Pairs in the order of the dates that they tell of.

    Args:
        dates: distinct, ascending.
        rule: ``consecutive``: each date with the one before it. ``baseline:DATE``: that date with every other one.
            ``same-season``: each date with the one of an earlier year whose day of the year is nearest, the latest such
            year if several are as near; dates of the first year have none.

    Raises:
        PairingError: no such rule, a baseline that is not among the dates, or no pair at all.
    """
    if list(dates) != sorted(set(dates)):
        raise PairingError(f"dates must be distinct and in time order, not {', '.join(map(str, dates))}")
    if rule == "consecutive":
        pairs = [IndexPair(earlier=index - 1, later=index, reported=index) for index in range(1, len(dates))]
    elif rule == "same-season":
        pairs = [
            IndexPair(earlier=earlier, later=later, reported=later)
            for later in range(len(dates))
            if (earlier := _same_season(dates, later)) is not None
        ]
    elif rule.startswith("baseline:"):
        base = _baseline(dates, rule)
        pairs = [
            IndexPair(earlier=min(base, other), later=max(base, other), reported=other)
            for other in range(len(dates))
            if other != base
        ]
    else:
        raise PairingError(f"pairing rule {rule!r} is none of {RULES}")
    if not pairs:
        raise PairingError(
            f"no two of these dates are a pair by the rule {rule}: {', '.join(map(str, dates)) or 'none'}"
        )
    return sorted(pairs)


def require_rule(rule: str) -> None:
    """Whether there is such a rule, before any date is known; raises PairingError."""
    if rule in ("consecutive", "same-season"):
        return
    if not rule.startswith("baseline:"):
        raise PairingError(f"pairing rule {rule!r} is none of {RULES}")
    _baseline_date(rule)


def _baseline_date(rule: str) -> date:
    text = rule.removeprefix("baseline:")
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError("not YYYY-MM-DD")
        return date.fromisoformat(text)
    except ValueError as error:
        raise PairingError(f"pairing rule {rule!r}: {text!r} is no date ({error})") from error


def _baseline(dates: Sequence[date], rule: str) -> int:
    day = _baseline_date(rule)
    if day not in dates:
        raise PairingError(f"the baseline {day} is not among the dates: {', '.join(map(str, dates))}")
    return list(dates).index(day)


def _same_season(dates: Sequence[date], later: int) -> int | None:
    """The partner of a date: nearest day of the year, round the turn of the year too."""

    def apart(index: int) -> float:
        days = abs(dates[index].timetuple().tm_yday - dates[later].timetuple().tm_yday)
        return min(days, _DAYS - days)

    before = [index for index in range(later) if dates[index].year < dates[later].year]
    return min(before, key=lambda index: (apart(index), -index), default=None)
