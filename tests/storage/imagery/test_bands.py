"""Which bands are meant: by name, and by position only where names do not speak against it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from storage.datasets.scenes import SceneFiles, open_scene
from storage.errors import InputError
from storage.imagery.bands import common_bands, matching_bands, named_bands, same_bands
from storage.imagery.mosaics import Mosaic, open_mosaic
from tests.rasters import geotiff

RGB = ("red", "green", "blue")


def named(path: Path, *names: str) -> Mosaic:
    """A mosaic whose bands have these descriptions; none where a name is empty."""
    geotiff(path, np.full((len(names), 8, 8), 7, dtype=np.uint8), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        for number, name in enumerate(names, start=1):
            if name:
                dataset.set_band_description(number, name)
    return open_mosaic(path)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("blue", "green", "red"), (3, 2, 1)),
        (("nir", "Red", "vis-green", "blue (480 nm)"), (2, 3, 4)),
        (("B04", "B03", "B02"), (1, 2, 3)),
        (("band1", "band2", "band3"), (1, 2, 3)),
        (("red", "band2", "band3"), (1, 2, 3)),
        (("red", "B03", "B02"), (1, 2, 3)),
        (("B02", "B03", "B04"), (3, 2, 1)),
        (("B05", "B04", "B03", "B02"), (2, 3, 4)),
    ],
)
def test_bands_by_name_else_by_position(names: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    assert matching_bands(named_bands(names), RGB, has="it", needs="the bundle", otherwise="") == numbers


@pytest.mark.parametrize(
    "names",
    [
        ("nir", "red", "green"),
        ("red", "green", "nir"),
        ("band1", "red", "band3"),
        ("red green", "blue", "band3"),
    ],
)
def test_names_that_speak_against_it_are_no_positions(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"it has {len(names)} bands \({', '.join(names)}\), the bundle needs 3"):
        matching_bands(named_bands(names), RGB, has="it", needs="the bundle", otherwise="say which")


@pytest.mark.parametrize(
    "names",
    [
        ("red", "green", "blue", "near infrared"),
        ("coastal_blue", "blue", "green_i", "green", "red", "red edge"),
        ("VV", "VH", "VV_2"),
        ("red", "green", "blue", "B8, central wavelength 842 nm"),
    ],
)
def test_bands_are_their_own_whatever_their_names(names: tuple[str, ...]) -> None:
    """A bundle fits the dataset that it was trained on, in this order and in another."""
    turned = names[::-1]
    count = len(names)
    assert matching_bands(named_bands(names), names, has="", needs="", otherwise="") == tuple(range(1, count + 1))
    assert matching_bands(named_bands(turned), names, has="", needs="", otherwise="") == tuple(range(count, 0, -1))


def test_a_date_that_lost_its_georeferencing_keeps_its_bands(tmp_path: Path) -> None:
    """A picture of three bands is called red, green, blue, whatever is in it."""
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    first, second = geotiff(tmp_path / "a.tif", pixels), geotiff(tmp_path / "b.tif", pixels, crs=None, transform=None)
    with rasterio.open(first, "r+") as dataset:
        for number, name in enumerate(("blue", "green", "red"), start=1):
            dataset.set_band_description(number, name)
    label = geotiff(tmp_path / "label.tif", np.zeros((1, 8, 8), dtype=np.uint8), crs=None, transform=None)
    files = SceneFiles(name="one", before=str(first), after=str(second), label=str(label))
    whole = {"rows": slice(0, 8), "cols": slice(0, 8)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotGeoreferencedWarning)  # it would reach the terminal
        scene = open_scene(files)
        np.testing.assert_array_equal(scene.before.read(**whole)[0], scene.after.read(**whole)[0])
        with pytest.raises(InputError, match=r"b\.tif has no coordinate reference system"):
            open_mosaic(second)


def test_the_other_dates_bands_are_those_of_the_same_names(tmp_path: Path) -> None:
    first = named(tmp_path / "first.tif", *RGB)
    assert same_bands(first, named(tmp_path / "turned.tif", "blue", "green", "red"), (1, 3)) == (3, 1)
    assert same_bands(first, named(tmp_path / "unnamed.tif", "", "", ""), (1, 3)) == (1, 3)
    for name in ("nir", "red edge"):
        other = named(tmp_path / f"{name}.tif", name, "green", "red")
        with pytest.raises(InputError, match=rf"red, green, blue.*{name}.*, green, red\); say with --bands"):
            same_bands(first, other, (1, 2, 3))


def test_bands_of_disjoint_names_are_not_compared_by_number(tmp_path: Path) -> None:
    first = named(tmp_path / "first.tif", "red", "green")
    other = named(tmp_path / "other.tif", "nir", "swir")
    with pytest.raises(InputError, match=r"2 \(red, green\).* 2 \(nir, swir\); say with --bands"):
        common_bands(first, other, (None, None))
    assert common_bands(first, other, ([1, 2], [1, 2])) == ((1, 2), (1, 2))
    assert common_bands(first, named(tmp_path / "unnamed.tif", "", ""), (None, None)) == ((1, 2), (1, 2))
