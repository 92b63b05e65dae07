"""The user's own pattern for dates in names: strptime codes, and * and ? for what else stands there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from storage.errors import InputError
from storage.imagery.dates.candidates import MONTHS, DateCandidate, is_future, time_of

_CODES = {
    "Y": r"(?P<Y>(?:1[89]|2\d)\d{2})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "j": r"(?P<j>\d{3})",
    "b": rf"(?P<mon>{'|'.join(MONTHS)})",
    "H": r"(?P<H>\d{2})",
    "M": r"(?P<M>\d{2})",
    "S": r"(?P<S>\d{2})",
}
_PADDED = {"m": r"(?P<m>\d{2})", "d": r"(?P<d>\d{2})"}
"""Beside another number, where one digit or two cannot be told apart."""
_TOKEN = re.compile(r"%(.?)|(\*)|(\?)|([^%*?]+)")


@dataclass(frozen=True)
class DatePattern:
    """Where the date stands in names, for example ``%Y%j`` or ``*_%d%m%Y_*``; fits anywhere in a name.

    A number at an end of the pattern is a whole number of the name, unless the pattern has a * or ? there.

    Raises:
        InputError: a code that is not known or given twice, no year, or a day without its month.
    """

    text: str

    def __post_init__(self) -> None:
        codes = [token[1] or "" for token in _TOKEN.finditer(self.text) if token[0].startswith("%") and token[1] != "%"]
        unknown = [f"%{code}" for code in codes if code not in _CODES]
        twice = sorted({f"%{code}" for code in codes if codes.count(code) > 1})
        wrong = (
            f"{unknown[0]} is none of {', '.join('%' + code for code in _CODES)}"
            if unknown
            else f"it has {twice[0]} twice"
            if twice
            else "it has no year (%Y or %y)"
            if not {"Y", "y"} & set(codes)
            else "it has two years, %Y and %y"
            if {"Y", "y"} <= set(codes)
            else "it has a day (%d) without its month (%m or %b)"
            if "d" in codes and not {"m", "b"} & set(codes)
            else "it has a month and a day of the year (%j)"
            if "j" in codes and {"m", "b", "d"} & set(codes)
            else "it has two months, %m and %b"
            if {"m", "b"} <= set(codes)
            else "it has a time (%H, %M, %S) without its day, hour or minute"
            if ("H" in codes and not {"d", "j"} & set(codes))
            or ("M" in codes and "H" not in codes)
            or ("S" in codes and "M" not in codes)
            else None
        )
        if wrong:
            raise InputError(f"date pattern {self.text!r} cannot be used: {wrong}")

    @cached_property
    def _expressions(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """The pattern with its * as short, and as long as can be; each looks at all places of a name at once."""
        short, long = (_expression(self.text, star) for star in (".*?", ".*"))
        return re.compile(short, re.IGNORECASE), re.compile(long, re.IGNORECASE)

    def read(self, name: str, *, path: str) -> DateCandidate:
        """The date that the pattern finds in a name.

        Args:
            path: for the message.

        Raises:
            InputError: it does not match, finds several dates, none that the calendar has, or one in the future.
        """
        matches = [match for expression in self._expressions for match in expression.finditer(name)]
        candidates: dict[object, DateCandidate] = {}
        for match in matches:
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            if time := time_of({key: value for key, value in groups.items() if key != "all"}):
                precision: Literal["second", "day", "month", "year"] = (
                    "second"
                    if "H" in groups
                    else "day"
                    if {"d", "j"} & groups.keys()
                    else "month"
                    if {"m", "mon"} & groups.keys()
                    else "year"
                )
                candidates[time] = DateCandidate(time=time, precision=precision, text=f"{time:%Y-%m-%d}")
        past = [candidate for candidate in candidates.values() if not is_future(candidate.time)]
        if len(past) == 1:
            return past[0]
        found = ", ".join(candidate.text for candidate in (past or candidates.values()))
        what = (
            f"finds {len(past)} dates in it ({found}): give more of what stands around the right one"
            if past
            else f"finds {found} in it, which lies in the future"
            if candidates
            else "finds no day that the calendar has in it"
            if matches
            else "does not match its name"
        )
        raise InputError(f"{path}: --date-pattern {self.text!r} {what}")


def _expression(text: str, star: str) -> str:
    """A regular expression of a pattern. It consumes nothing, so that places that overlap are all found."""
    tokens = [token for token in _TOKEN.finditer(text.strip("*")) if token[0]]
    codes = [token[1] for token in tokens]
    parts = []
    for place, token in enumerate(tokens):
        if token[1]:
            beside = [codes[n] for n in (place - 1, place + 1) if 0 <= n < len(codes)]
            padded = any(code and code not in ("b", "%") for code in beside)
            parts.append("%" if token[1] == "%" else (_PADDED if padded else {}).get(token[1]) or _CODES[token[1]])
        else:
            parts.append(star if token[2] else "." if token[3] else re.escape(token[4]))
    starts_with_number = bool(codes and codes[0] and codes[0] not in "b%") and not text.startswith("*")
    ends_with_number = bool(codes and codes[-1] and codes[-1] not in "b%") and not text.endswith("*")
    body = (r"(?<!\d)" if starts_with_number else "") + "".join(parts) + (r"(?!\d)" if ends_with_number else "")
    return rf"(?={body})"
