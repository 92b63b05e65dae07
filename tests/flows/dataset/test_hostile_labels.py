"""Labels as people have them, through the whole of `prepare`: the dataset counts what a person would count, or asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from flows.cluster.config import ClusterConfig
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.interface import Dataset
from storage.errors import InputError
from tests.rasters import geotiff

SIDE = 128
Prepare = Callable[..., dict[int, int]]


def squares(changed: float, unchanged: float) -> NDArray[np.float64]:
    """A label with a changed square of 1,600 px."""
    values = np.full((SIDE, SIDE), float(unchanged))
    values[:40, :40] = changed
    return values


@pytest.fixture
def prepare(tmp_path: Path, workers: ClusterConfig) -> Prepare:
    """Prepare a pair with a label in windows of 32 px; pixels of the dataset by class: 1, 0, and 255 = ignored."""
    pixels = np.random.default_rng(0).integers(20, 200, (3, SIDE, SIDE)).astype(np.uint8)
    mosaics = {name: geotiff(tmp_path / f"{name}.tif", pixels) for name in ("before", "after")}

    def run(label: Path, **settings: Any) -> dict[int, int]:
        request = {
            **{name: str(path) for name, path in mosaics.items()},
            "label": label,
            "output": tmp_path / "out",
            "window": 32,
            "split": "blocks",
            "cell": 1,
            "shares": "2,1,1",
            "max_nodata": 0.99,
            "cluster": workers,
            **settings,
        }
        run_preparation(PrepareRequest.model_validate(request))
        values, counts = np.unique(Dataset(tmp_path / "out").samples["label"].to_numpy(), return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    return run


def label(folder: Path, values: NDArray[Any], dtype: str = "uint8", **profile: Any) -> Path:
    return geotiff(folder / "label.tif", values[None].astype(dtype), **profile)


PLAIN = {1: 1600, 0: SIDE * SIDE - 1600}


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64"])
def test_whole_numbers_of_any_type(prepare: Prepare, tmp_path: Path, dtype: str) -> None:
    assert prepare(label(tmp_path, squares(1, 0), dtype)) == PLAIN


def test_one_bit(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare(label(tmp_path, squares(1, 0), nbits=1)) == PLAIN


@pytest.mark.parametrize("nodata", [0, 1])
def test_nodata_that_is_a_class_is_that_class(prepare: Prepare, tmp_path: Path, nodata: int) -> None:
    assert prepare(label(tmp_path, squares(1, 0), nodata=nodata)) == PLAIN


def test_nodata_that_is_none(prepare: Prepare, tmp_path: Path) -> None:
    values = squares(1, 0)
    values[100:, 100:] = 255
    assert prepare(label(tmp_path, values, nodata=255)) == {1: 1600, 255: 784, 0: SIDE * SIDE - 2384}


def test_255_beside_0_and_1_is_ignored(prepare: Prepare, tmp_path: Path) -> None:
    values = squares(1, 0)
    values[100:, 100:] = 255
    assert prepare(label(tmp_path, values)) == {1: 1600, 255: 784, 0: SIDE * SIDE - 2384}


def test_1_and_2_are_asked_about_and_settled(prepare: Prepare, tmp_path: Path) -> None:
    path = label(tmp_path, squares(2, 1))
    with pytest.raises(InputError, match=r"label\.tif.*--changed"):
        prepare(path)
    assert prepare(path, changed="2", unchanged="1") == PLAIN


def test_1_for_unchanged_and_0_for_changed_is_settled(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare(label(tmp_path, squares(0, 1)), changed="0", unchanged="1") == PLAIN


def test_a_value_that_no_option_names(prepare: Prepare, tmp_path: Path) -> None:
    values = squares(2, 1)
    values[100, :50] = 7
    with pytest.raises(InputError, match=r"7"):
        prepare(label(tmp_path, values), changed="2", unchanged="1")


def test_a_palette_in_grey(prepare: Prepare, tmp_path: Path) -> None:
    path = label(tmp_path, squares(1, 0))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 255, 255, 255)})
    assert prepare(path) == PLAIN


def test_alpha_where_nothing_changed(prepare: Prepare, tmp_path: Path) -> None:
    values = squares(255, 0)
    path = geotiff(tmp_path / "label.tif", np.stack([values, values]).astype(np.uint8))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    assert prepare(path) == PLAIN


@pytest.mark.parametrize(("changed", "unchanged"), [(1, 1), (0, 0), (255, 255)])
def test_one_value_alone_is_no_label(prepare: Prepare, tmp_path: Path, changed: int, unchanged: int) -> None:
    with pytest.raises(InputError):
        prepare(label(tmp_path, squares(changed, unchanged)))


def test_more_than_half_ignored(prepare: Prepare, tmp_path: Path) -> None:
    values = squares(1, 0)
    values[:, 50:] = 255
    path = label(tmp_path, values)
    with pytest.raises(InputError, match=r"ignored"):
        prepare(path)
    assert prepare(path, changed="1", unchanged="0", ignored="255")[1] == 1600


def test_a_label_of_another_grid_is_brought_to_it_or_refused(prepare: Prepare, tmp_path: Path) -> None:
    from affine import Affine

    coarse = squares(1, 0)[::2, ::2]
    path = geotiff(
        tmp_path / "label.tif", coarse[None].astype(np.uint8), transform=Affine(2, 0, 500_000, 0, -2, 5_600_000)
    )
    try:
        counts = prepare(path)
    except InputError as error:
        assert "label.tif" in str(error)
        return
    assert counts == PLAIN
