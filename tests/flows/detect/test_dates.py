"""The dates of a pair: a doubt is a warning of the plan with the option that settles it, and the option settles it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from flows.detect.job import Job, resolve
from flows.detect.request import DetectRequest
from storage.errors import InputError
from tests.rasters import geotiff


def job(folder: Path, before: str, after: str, **options: Any) -> Job:
    """The plan of a pair of two small files of these names."""
    paths = [geotiff(folder / name, np.full((3, 64, 64), 7, np.uint8)) for name in (before, after)]
    asked = {"before": str(paths[0]), "after": str(paths[1]), "output": folder / "run", "bundle": "cva", "block": 64}
    return resolve(DetectRequest.model_validate({**asked, **options}))


def test_a_doubtful_date_is_a_warning_with_the_options_that_settle_it(tmp_path: Path) -> None:
    plan = job(tmp_path, "a_01-06-2019.tif", "b_20210601.tif")
    assert not plan.dates_known
    (doubt,) = [words for words in plan.warnings if "exchanged" in words]
    assert "a_01-06-2019.tif" in doubt and "--before-date" in doubt and "--date-pattern" in doubt
    plan = job(tmp_path, "a_01-06-2019.tif", "b_01-06-2021.tif", date_pattern="%d-%m-%Y")
    assert plan.times == (datetime(2019, 6, 1), datetime(2021, 6, 1))
    assert not [words for words in plan.warnings if "date" in words]


def test_a_date_that_is_given_needs_no_pattern_and_leaves_no_doubt(tmp_path: Path) -> None:
    options = {"before_date": "2019-01-06", "date_pattern": "%Y%m%d"}
    plan = job(tmp_path, "a_01-06-2019.tif", "b_20210601.tif", **options)
    assert plan.times == (datetime(2019, 1, 6), datetime(2021, 6, 1)) and plan.dates_known
    with pytest.raises(InputError, match=r"a_01-06-2019\.tif: --date-pattern '%Y%m%d' does not match its name"):
        job(tmp_path, "a_01-06-2019.tif", "b_20210601.tif", date_pattern="%Y%m%d")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"after_date": "2099-01-01"}, "--after-date 2099-01-01 lies in the future"),
        ({"before_date": "2099-01-01T00:00:00Z"}, "--before-date 2099-01-01 lies in the future"),
        ({"date_pattern": "%m%d"}, "'%m%d' cannot be used: it has no year"),
    ],
)
def test_what_cannot_be_is_refused_as_it_is_typed(tmp_path: Path, option: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        job(tmp_path, "a.tif", "b.tif", **option)
