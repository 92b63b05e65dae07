"""Which dates are compared."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.pairing import PairingError, pairs_of, require_rule

NAIP = [date(2009, 7, 25), date(2012, 6, 29), date(2014, 7, 7), date(2015, 9, 17), date(2017, 7, 11), date(2019, 7, 8)]


def by_rule(dates: list[date], rule: str) -> list[tuple[int, int]]:
    return [(pair.earlier, pair.later) for pair in pairs_of(dates, rule)]


ascending = st.lists(st.dates(date(1985, 1, 1), date(2030, 12, 31)), min_size=2, max_size=20, unique=True).map(sorted)


@given(ascending)
def test_consecutive_pairs_form_a_chain(dates: list[date]) -> None:
    assert by_rule(dates, "consecutive") == [(n, n + 1) for n in range(len(dates) - 1)]


@given(ascending, st.data())
def test_a_baseline_meets_every_other_date_once_earlier_first(dates: list[date], data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(dates))
    pairs = pairs_of(dates, f"baseline:{base}")
    assert [dates[pair.reported] for pair in pairs] == [day for day in dates if day != base]
    assert all({dates[pair.earlier], dates[pair.later]} == {base, dates[pair.reported]} for pair in pairs)
    assert all(pair.earlier < pair.later for pair in pairs)


@given(ascending)
def test_same_season_has_no_nearer_day_of_the_year_in_an_earlier_year(dates: list[date]) -> None:
    try:
        pairs = by_rule(dates, "same-season")
    except PairingError:
        assert len({day.year for day in dates}) == 1
        return
    partner = {late: early for early, late in pairs}

    def apart(one: date, other: date) -> float:
        # independent of the formula: both days laid into the same leap year, the nearest of three turns
        days = [(date(2024, 1, 1) + timedelta(day.timetuple().tm_yday - 1)) for day in (one, other)]
        return min(abs((days[0] - days[1]).days + turn) for turn in (-365.25, 0, 365.25))

    for late, day in enumerate(dates):
        earlier = [n for n in range(late) if dates[n].year < day.year]
        assert (late in partner) == bool(earlier)
        if earlier:
            assert dates[partner[late]].year < day.year
            assert apart(dates[partner[late]], day) == min(apart(dates[n], day) for n in earlier)


def test_same_season_by_hand() -> None:
    assert by_rule(NAIP, "same-season") == [(0, 1), (1, 2), (0, 3), (2, 4), (2, 5)]
    # the turn of the year: 2 January is near 30 December, not near 1 July
    dates = [date(2010, 7, 1), date(2010, 12, 30), date(2012, 1, 2)]
    assert by_rule(dates, "same-season") == [(1, 2)]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("weekly", "none of consecutive"),
        ("baseline:2011-01-01", "not among the dates: 2009-07-25"),
        ("baseline:July", "'July' is no date"),
        ("baseline:2011-13-01", "is no date"),
    ],
)
def test_a_rule_that_gives_nothing_says_why(rule: str, words: str) -> None:
    with pytest.raises(PairingError, match=words):
        pairs_of(NAIP, rule)


def test_rules_are_checked_before_dates_are_known() -> None:
    require_rule("consecutive")
    require_rule("baseline:2009-07-25")
    for wrong in ("weekly", "baseline:", "baseline:2009"):
        with pytest.raises(PairingError):
            require_rule(wrong)


def test_one_date_or_dates_out_of_order_are_refused() -> None:
    with pytest.raises(PairingError, match="no two"):
        pairs_of(NAIP[:1], "consecutive")
    with pytest.raises(PairingError, match="time order"):
        pairs_of(NAIP[::-1], "consecutive")
