"""Bands of Zarr groups, wherever their writers put names, wavelengths, scales, nodata and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.door import SIDE, centres, cube, pixels, planned, refused
from tests.attacks.door import holds as assert_holds

COUNTED = {"band": [1, 2, 3]}


def group(path: Path, values: Any, **more: Any) -> Path:
    return cube(path / "a.zarr", values, *centres(SIDE), **more)


@pytest.mark.parametrize(
    "told",
    [
        {"attrs": {"long_name": ["blue", "green", "red"]}, "coords": COUNTED},
        {"coords": {"band": [490.0, 560.0, 665.0]}},
        {"coords": {"band": [490, 560, 665]}},
        {"coords": {"wavelength": ("band", [490, 560, 665]), **COUNTED}},
        {"coords": {"center_wavelength": ("band", [0.49, 0.56, 0.665])}},
        {"dims": ("wavelength", "y", "x"), "coords": {"wavelength": [490, 560, 665]}},
        {"coords": {"common_name": ("band", ["blue", "green", "red"])}},
        {"coords": {"name": ("band", ["Bleu", "Vert", "Rouge"]), **COUNTED}},
    ],
)
def test_names_and_wavelengths_stand_in_many_places(tmp_path: Path, told: dict[str, Any]) -> None:
    assert_holds(planned(group(tmp_path, pixels(), **told)), pixels()[[2, 1, 0]])


def test_a_coordinate_that_counts_bands_is_no_wavelength(tmp_path: Path) -> None:
    assert_holds(planned(group(tmp_path, pixels(), coords=COUNTED)), pixels())


@pytest.mark.parametrize("told", [{"nodata": 0}, {"nodatavals": [0.0, 0.0, 0.0]}, {"missing_value": 0}])
def test_nodata_of_other_writers(tmp_path: Path, told: dict[str, Any]) -> None:
    values = pixels(dtype="uint16")
    values[:, :10] = 0
    assert_holds(planned(group(tmp_path, values, attrs=told)), values, valid=values[0] > 0)


def test_a_scale_for_each_band(tmp_path: Path) -> None:
    scales = {"scales": [1e-4, 2e-4, 1e-4], "offsets": [0.0, 0.0, -0.1]}
    job = planned(group(tmp_path, pixels(dtype="uint16"), attrs=scales))
    assert [(band.scale, band.offset) for band in job.mosaics[0].bands] == [(1e-4, 0), (2e-4, 0), (1e-4, -0.1)]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"scale_factor": [1.0, 2.0]}, ("scale_factor", "[1.0, 2.0]", "3 bands")),
        ({"scale_factor": float("nan")}, ("scale nan",)),
        ({"scale_factor": 0}, ("scale 0",)),
        ({"missing_value": [0, 5]}, ("missing_value", "--nodata")),
        ({"missing_value": "none"}, ("missing_value", "none", "--nodata")),
    ],
)
def test_attributes_that_have_no_meaning(tmp_path: Path, told: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(*words, mosaic=group(tmp_path, pixels(), attrs=told))


def test_a_band_of_a_group_is_a_mask(tmp_path: Path) -> None:
    values = pixels(4)
    values[3] = np.where(np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 60, 0, 255)
    plain = group(tmp_path, values)
    assert_holds(planned(plain, alpha=4), values[:3], valid=values[3] > 0)
    refused("--alpha 9", "4 bands", mosaic=plain, alpha=9)
    named = group(tmp_path / "named", values, coords={"band": ["red", "green", "blue", "alpha"]})
    assert_holds(planned(named), values[:3], valid=values[3] > 0)
