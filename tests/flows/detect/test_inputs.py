"""The main job over the inputs that people have: other types, many files, other grids, regions, Zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom
from rasterio.windows import Window

from dasnet.networks.architectures import Architecture
from dasnet.prediction.bundle import random_bundle, save_bundle
from flows.detect.run import run_detection
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import request_for


def result(output: Path) -> tuple[np.ndarray, dict[str, Any]]:
    with rasterio.open(output / "change_probability.tif") as opened:
        return opened.read(1), dict(opened.profile)


def valid_in_both(pair: SyntheticPair) -> np.ndarray:
    with rasterio.open(pair.before) as before, rasterio.open(pair.after) as after:
        return np.asarray((before.dataset_mask() > 0) & (after.dataset_mask() > 0))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_types_with_four_bands(pair: SyntheticPair, tmp_path: Path, dtype: str) -> None:
    """Four bands, nodata as a value (uint16) or as NaN (float32), through a bundle for just that."""
    bundle = tmp_path / "four.safetensors"
    architecture = Architecture(backbone="mobilenet_v3", head_channels=16, in_bands=4)
    save_bundle(bundle, random_bundle(architecture, dtype=dtype, window=128))
    paths = {}
    for name, source in (("before", pair.before), ("after", pair.after)):
        with rasterio.open(source) as opened:
            pixels = np.concatenate([opened.read(), opened.read([1])]).astype(dtype)
            missing = opened.dataset_mask() == 0
            profile = {**opened.profile, "count": 4, "dtype": dtype, "photometric": "minisblack"}
        pixels = pixels * 200 if dtype == "uint16" else pixels / np.float32(255)
        pixels[:, missing] = 0 if dtype == "uint16" else np.nan
        profile["nodata"] = 0 if dtype == "uint16" else None
        paths[name] = tmp_path / f"{name}.tif"
        with rasterio.open(paths[name], "w", **profile) as written:
            written.write(pixels)
    request = request_for(
        pair, tmp_path / "run", before=str(paths["before"]), after=str(paths["after"]), bundle=str(bundle)
    )
    run_detection(request)
    probability, _ = result(tmp_path / "run")
    assert np.array_equal(probability != 255, valid_in_both(pair))
    assert len(np.unique(probability)) > 2


def test_a_list_of_files_and_a_zarr_group_are_the_same_as_one_file(
    run: Path, pair: SyntheticPair, tmp_path: Path
) -> None:
    quarters = tmp_path / "before"
    quarters.mkdir()
    with rasterio.open(pair.before) as opened:
        for number, (row, col) in enumerate([(0, 0), (0, 450), (350, 0), (350, 450)]):
            window = Window(col, row, 450, 350)
            profile = {**opened.profile, "height": 350, "width": 450, "transform": opened.window_transform(window)}
            with rasterio.open(quarters / f"{number}.tif", "w", **profile) as part:
                part.write(opened.read(window=window))
    group = tmp_path / "after.zarr"
    image = rioxarray.open_rasterio(pair.after)
    assert isinstance(image, xr.DataArray)
    image.drop_vars("band").rename("image").to_dataset().to_zarr(group, zarr_format=3)
    run_detection(request_for(pair, tmp_path / "run", before=str(quarters), after=str(group)))
    assert np.array_equal(result(tmp_path / "run")[0], result(run)[0])


def test_a_region_is_cut_out_and_the_rest_is_nodata(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    """A triangle inside the mosaic: the grid is its bounding box on the mosaic's pixels; values inside are the same
    as of the whole mosaic, except where windows see past the edge."""
    with rasterio.open(pair.before) as opened:
        corners = [opened.transform * corner for corner in ((150, 100), (700, 120), (300, 600), (150, 100))]
        crs = opened.crs
    triangle = {"type": "Polygon", "coordinates": [corners]}
    region = tmp_path / "region.geojson"
    region.write_text(json.dumps(transform_geom(crs, "EPSG:4326", triangle)))
    run_detection(request_for(pair, tmp_path / "run", grid={"region": region}))
    probability, profile = result(tmp_path / "run")
    outside = geometry_mask([triangle], probability.shape, profile["transform"])
    with rasterio.open(pair.before) as opened:
        offset_x, offset_y = ~opened.transform * (profile["transform"].c, profile["transform"].f)
    assert (offset_x, offset_y) == (pytest.approx(round(offset_x)), pytest.approx(round(offset_y)))
    left, top = round(offset_x), round(offset_y)
    both = valid_in_both(pair)[top : top + probability.shape[0], left : left + probability.shape[1]]
    differs = (probability != 255) != (both & ~outside)
    assert differs.sum() <= 20, "only pixel centres on the very edge, by the rounding of two transformations"


def test_another_crs_and_resolution(pair: SyntheticPair, tmp_path: Path) -> None:
    run_detection(request_for(pair, tmp_path / "run", grid={"crs": "EPSG:3035", "resolution": 1.0}))
    probability, profile = result(tmp_path / "run")
    assert profile["crs"].to_epsg() == 3035
    assert profile["transform"].a == 1.0
    with rasterio.open(pair.before) as opened:
        bounds = rasterio.warp.transform_bounds(opened.crs, "EPSG:3035", *opened.bounds)
    assert probability.shape[1] == pytest.approx(bounds[2] - bounds[0], abs=3)
    assert probability.shape[0] == pytest.approx(bounds[3] - bounds[1], abs=3)
    assert 0.5 < (probability != 255).mean() < 1


def test_a_bounding_box_is_the_same_part_of_the_result(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    """The box begins on the lattice of windows, so where the same windows reach, the values are the same."""
    with rasterio.open(pair.before) as opened:
        left, top = opened.transform * (224, 224)
        right, bottom = opened.transform * (224 + 640, 224 + 448)
    run_detection(request_for(pair, tmp_path / "run", grid={"bbox": (left, bottom, right, top)}))
    probability, _ = result(tmp_path / "run")
    assert probability.shape == (448, 640)
    whole, _ = result(run)
    inner = (slice(32, 190), slice(32, 380))
    assert np.array_equal(whole[224:672, 224:864][inner], probability[inner]) and probability[inner].any()
