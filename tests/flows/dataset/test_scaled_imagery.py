"""A dataset of imagery that declares scale and offset, and the bundle that is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from dasnet.training.recipes import recipe_named
from flows.cluster.config import ClusterConfig
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.training.data import training_data
from storage.datasets.store import DatasetStore
from tests.rasters import geotiff

STORED = (1e-4, -0.1)


def scaled(path: Path) -> Path:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (STORED[0],) * file.count, (STORED[1],) * file.count
    return path


def test_a_dataset_tells_its_scale_to_what_is_trained_on_it(tmp_path: Path, workers: ClusterConfig) -> None:
    values = np.random.default_rng(0).integers(1000, 4000, (3, 128, 128)).astype(np.uint16)
    mosaics = {name: scaled(geotiff(tmp_path / f"{name}.tif", values)) for name in ("before", "after")}
    label = np.zeros((1, 128, 128), np.uint8)
    label[:, ::3] = 1
    request = {
        **{name: str(path) for name, path in mosaics.items()},
        "label": geotiff(tmp_path / "label.tif", label),
        "output": tmp_path / "out",
        "window": 32,
        "split": "blocks",
        "cell": 1,
        "shares": "2,1,1",
        "cluster": workers,
    }
    run_preparation(PrepareRequest.model_validate(request))
    store = DatasetStore(tmp_path / "out" / "dataset.zarr")
    assert [(band["scale"], band["offset"]) for band in store.attrs["bands"]] == [STORED] * 3
    assert training_data(store, recipe_named("cpu_small")).scaling == (STORED,) * 3
