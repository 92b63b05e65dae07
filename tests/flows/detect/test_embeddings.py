"""Mosaics of embeddings as dates: read right, compared, resumed, cut in any way, refused with both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from dasnet.errors import PredictorError
from flows.cluster.config import ClusterConfig
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from storage.errors import InputError
from tests.dasnet.baselines.test_embeddings import cosine_distance, quantised, restored, unit_vectors
from tests.rasters import geotiff

BANDS = [f"A{number:02d}" for number in range(64)]
HEIGHT, WIDTH = 150, 200
CHANGED = (slice(20, 60), slice(90, 150))
TEN_METRES = Affine(10, 0, 500_000, 0, -10, 5_600_000)


def vectors() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Embeddings (64, h, w) of two years; a rectangle is something else in the second."""
    random = np.random.default_rng(7)
    before = unit_vectors(random, 64, HEIGHT, WIDTH)
    after = before + 0.03 * random.normal(size=before.shape)
    after[:, *CHANGED] = unit_vectors(random, 64, 40, 60)
    return before, after / np.linalg.norm(after, axis=0)


def annual_layer(path: Path, pixels: NDArray[Any], **profile: Any) -> Path:
    geotiff(path, pixels, **{"transform": TEN_METRES, "tiled": True, "interleave": "band", **profile})
    with rasterio.open(path, "r+") as file:
        file.descriptions = BANDS[: len(pixels)]
    return path


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two years as int8 with 20 masked rows, and as float32 with 20 rows of NaN."""
    folder = tmp_path_factory.mktemp("layers")
    before, after = vectors()
    paths = {}
    for name, values in (("2020", before), ("2021", after)):
        stored = quantised(values)
        floats = values.astype(np.float32)
        if name == "2020":
            stored[:, :20, :50], floats[:, :20, :50] = -128, np.nan
        paths[f"{name}-int8"] = annual_layer(folder / f"{name}.tif", stored, nodata=-128)
        paths[f"{name}-undeclared"] = annual_layer(folder / f"{name}-undeclared.tif", stored)
        paths[f"{name}-float"] = annual_layer(folder / f"{name}-float.tif", floats, nodata=np.nan)
    return paths


def request(before: Path, after: Path, output: Path, **changes: Any) -> DetectRequest:
    values = {"before": str(before), "after": str(after), "output": output, "bundle": "embedding-cosine", "block": 64}
    return DetectRequest.model_validate({**values, **changes})


def stored_levels(run: Path) -> NDArray[np.uint8]:
    return xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()[0]


def test_int8_is_compared_by_what_it_stands_for(
    layers: dict[str, Path], workers: ClusterConfig, tmp_path: Path
) -> None:
    runs = {}
    for block in (64, 128):
        runs[block] = tmp_path / f"{block}"
        asked = request(layers["2020-int8"], layers["2021-int8"], runs[block], block=block, cluster=workers)
        summary = run_detection(asked)
    levels = stored_levels(runs[64])
    assert np.array_equal(levels, stored_levels(runs[128]))
    before, after = vectors()
    threshold = float(json.loads((runs[64] / "statistics.json").read_text())["state"]["values"]["cut"]) ** 2
    distance = cosine_distance(restored(quantised(before)), restored(quantised(after)))
    expected = np.floor(distance / (distance + threshold) * 254).astype(np.uint8)
    expected[:20, :50] = 255
    # a product that is exact at a level's edge may be rounded to either side of it
    assert np.abs(levels.astype(int) - expected).max() <= 1
    assert np.mean(levels == expected) > 0.999
    changed = np.zeros((HEIGHT, WIDTH), dtype=bool)
    changed[CHANGED] = True
    assert np.array_equal((levels >= 127) & (levels != 255), changed)
    assert summary.nodata_share == pytest.approx(1000 / (HEIGHT * WIDTH))
    assert summary.changed_m2 == pytest.approx(2400 * 100, rel=1e-3)
    store = xr.open_zarr(runs[64] / "run.zarr", mask_and_scale=False)
    assert store["image"].dtype == np.int8
    assert json.loads((runs[64] / "item.json").read_text())["properties"]["processing:lineage"].endswith("Otsu (1979)")


@pytest.mark.parametrize("method", ["embedding-cosine", "embedding-l2"])
def test_years_of_other_types_are_compared_by_value(
    method: str, layers: dict[str, Path], workers: ClusterConfig, tmp_path: Path
) -> None:
    run_detection(
        request(layers["2020-float"], layers["2021-int8"], tmp_path / "run", bundle=method, block=128, cluster=workers)
    )
    levels = stored_levels(tmp_path / "run")
    changed = np.zeros((HEIGHT, WIDTH), dtype=bool)
    changed[CHANGED] = True
    assert np.array_equal((levels >= 127) & (levels != 255), changed)
    assert (levels[:20, :50] == 255).all()
    assert np.count_nonzero(levels == 255) == 1000


def test_what_is_resampled_is_values_and_not_their_roots(layers: dict[str, Path], tmp_path: Path) -> None:
    after = restored(quantised(vectors()[1]))
    coarse = {"resolution": 20.0, "crs": "EPSG:32631"}
    asked = request(layers["2020-int8"], layers["2021-int8"], tmp_path, grid=coarse, resampling="average")
    job = resolve(asked)
    assert job.bundle.dtype == "float32"
    image, valid = job.readers[1].read(rows=slice(0, 75), cols=slice(0, 100))
    assert valid.all()
    np.testing.assert_allclose(image, after.reshape(64, 75, 2, 100, 2).mean(axis=(2, 4)), atol=1e-6)


def test_int8_stays_int8_where_nothing_is_resampled(layers: dict[str, Path], tmp_path: Path) -> None:
    job = resolve(request(layers["2020-int8"], layers["2021-int8"], tmp_path))
    assert (job.bundle.dtype, job.readers[0].encoding) == ("int8", None)
    # 64 bytes a pixel and date, and its mask
    assert job.plan.bytes_in == HEIGHT * WIDTH * 2 * 65
    assert job.bundle.lane_bytes < 2**27


def test_128_below_zero_is_no_data_where_the_file_does_not_say_so(layers: dict[str, Path], tmp_path: Path) -> None:
    job = resolve(request(layers["2020-undeclared"], layers["2021-undeclared"], tmp_path))
    _, valid = job.readers[0].read(rows=slice(0, HEIGHT), cols=slice(0, WIDTH))
    assert not valid[:20, :50].any()
    assert np.count_nonzero(~valid) == 1000


def test_a_scale_in_the_file_wins(layers: dict[str, Path], tmp_path: Path) -> None:
    before, after = vectors()
    linear = []
    for name, values in (("before", before), ("after", after)):
        path = annual_layer(tmp_path / f"{name}.tif", np.rint(values * 200).clip(-127, 127).astype(np.int8))
        with rasterio.open(path, "r+") as file:
            file.scales = (1 / 200,) * 64
        linear.append(path)
    job = resolve(request(*linear, tmp_path / "run"))
    image, _ = job.readers[0].read(rows=slice(60, HEIGHT), cols=slice(0, WIDTH))
    np.testing.assert_allclose(image, before[:, 60:], atol=0.5 / 200 + 1e-6)
    # the other date as AlphaEarth quantises it: both are values
    mixed = resolve(request(linear[0], layers["2021-int8"], tmp_path / "mixed"))
    np.testing.assert_allclose(
        mixed.readers[1].read(rows=slice(0, 9), cols=slice(0, 9))[0], restored(quantised(after))[:, :9, :9], atol=1e-6
    )


def test_part_of_an_embedding_is_compared_with_a_word(layers: dict[str, Path], tmp_path: Path) -> None:
    before, after = vectors()
    most = after[:60].astype(np.float32)
    path = annual_layer(tmp_path / "60.tif", most / np.linalg.norm(most, axis=0))
    job = resolve(request(layers["2020-float"], path, tmp_path / "run"))
    assert [words for words in job.warnings if "60 of its 64 bands" in words and "2020-float" in words]
    few = annual_layer(tmp_path / "20.tif", before[:20].astype(np.float32) * 5)
    with pytest.raises(InputError, match=r"2020-float\.tif \(float32, 20 of 64 bands\)"):
        resolve(request(layers["2020-float"], few, tmp_path / "run"))


def test_embeddings_of_other_scales_are_refused_with_both(layers: dict[str, Path], tmp_path: Path) -> None:
    times_a_hundred = annual_layer(tmp_path / "hundred.tif", (100 * vectors()[1]).astype(np.float32))
    with pytest.raises(InputError, match=r"2020\.tif \(int8\) are 1\S* long.*hundred\.tif \(float32\) 100"):
        resolve(request(layers["2020-int8"], times_a_hundred, tmp_path / "run"))
    job = resolve(request(times_a_hundred, times_a_hundred, tmp_path / "run", bundle="embedding-l2"))
    assert any("not of unit length, but 100" in warning for warning in job.warnings)
    assert job.method is not None and job.method.method.parameters["length"] == 100


def test_int8_that_is_no_quantised_unit_vector_is_refused(layers: dict[str, Path], tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    odd = annual_layer(tmp_path / "odd.tif", random.integers(-120, 121, (64, HEIGHT, WIDTH)).astype(np.int8))
    with pytest.raises(InputError, match=r"odd\.tif holds int8 and declares no scale.*long, not 1\. --values stored"):
        resolve(request(odd, odd, tmp_path / "run"))
    job = resolve(request(odd, odd, tmp_path / "run", values="stored"))
    assert job.bundle.dtype == "int8"
    assert job.method is not None and not job.method.method.parameters["quantised"]


def test_options_that_mean_nothing_to_embeddings_are_refused(layers: dict[str, Path], tmp_path: Path) -> None:
    pair = layers["2020-int8"], layers["2021-int8"]
    with pytest.raises(InputError, match="--stretch 0,1 would bend the vectors"):
        resolve(request(*pair, tmp_path, stretch=(0, 1)))
    with pytest.raises(InputError, match=r"--values physical, but .*2020\.tif.*2021\.tif declares neither"):
        resolve(request(*pair, tmp_path, values="physical"))
    with pytest.raises(InputError, match="has 1 band to compare"):
        resolve(request(*pair, tmp_path, bands=[3]))
    with pytest.raises(PredictorError, match="Otsu's"):
        resolve(request(*pair, tmp_path, threshold="chi2"))
