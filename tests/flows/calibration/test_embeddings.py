"""Embeddings with a calibration of their own: fitted on labelled samples, then a bundle like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from dasnet.prediction.header import read_header
from flows.calibration.request import CalibrateRequest
from flows.calibration.run import run_calibration
from flows.cluster.config import ClusterConfig
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.figures.request import FiguresRequest
from flows.figures.run import draw_figures
from storage.datasets.store import open_dataset
from storage.errors import InputError
from tests.dasnet.baselines.test_embeddings import cosine_distance, quantised, restored
from tests.flows.detect.test_embeddings import CHANGED, HEIGHT, WIDTH, annual_layer, vectors
from tests.rasters import geotiff


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two years as int8, and what changed between them; a tenth of the labels is wrong, so that a fit is finite."""
    folder = tmp_path_factory.mktemp("layers")
    label = np.zeros((1, HEIGHT, WIDTH), dtype=np.uint8)
    label[0, *CHANGED] = 1
    label ^= (np.random.default_rng(1).random(label.shape) < 0.1).astype(np.uint8)
    paths = {
        name: annual_layer(folder / f"{name}.tif", quantised(values), nodata=-128)
        for name, values in zip(("before", "after"), vectors(), strict=True)
    }
    with_place = annual_layer(folder / "label.tif", label)
    return {**paths, "label": with_place}


def prepared(layers: dict[str, Path], output: Path, workers: ClusterConfig, **changes: Any) -> Path:
    asked = {**{name: str(path) for name, path in layers.items()}, "output": output, "window": 32, "cluster": workers}
    run_preparation(
        PrepareRequest.model_validate({**asked, "split": "columns:0.4,0.8", "values": "quantised", **changes})
    )
    return output


@pytest.fixture(scope="module")
def data(layers: dict[str, Path], workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(layers, tmp_path_factory.mktemp("datasets") / "quantised", workers)


def levels(run: Path) -> NDArray[np.uint8]:
    return xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()[0]


def test_a_dataset_of_quantised_embeddings_holds_what_they_stand_for(data: Path) -> None:
    store = open_dataset(data)
    assert store.dtype == "float32"
    before = restored(quantised(vectors()[0]))
    index = int(store.indices("train")[0])
    y, x = store.positions()[index]
    np.testing.assert_allclose(store.read([index]).before[0], before[:, y : y + 32, x : x + 32], atol=1e-6)


def test_a_calibrated_bundle_of_embeddings_goes_through_detect(
    layers: dict[str, Path], data: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    summary = run_calibration(CalibrateRequest(bundle="embedding-cosine", dataset=data, output=output, cluster=workers))
    assert summary.fit.after.f1 > 0.7
    assert summary.fit.reliability.error < summary.fit.reliability_before.error
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".safetensors"] == ["mine.safetensors"]
    header = read_header(output)
    assert header.architecture.to_dict() == {"embedding": "cosine", "in_bands": 64}
    assert header.provenance["calibrated"]
    assert output.stat().st_size < 50_000
    run = tmp_path / "run"
    asked = {"before": str(layers["before"]), "after": str(layers["after"]), "output": run, "cluster": workers}
    run_detection(DetectRequest.model_validate({**asked, "bundle": str(output), "window": 64, "block": 128}))
    distance = cosine_distance(*(restored(quantised(values)) for values in vectors()))
    probability = 1 / (1 + np.exp(-(header.calibration.slope * distance + header.calibration.intercept)))
    assert np.abs(levels(run).astype(int) - np.rint(254 * probability)).max() <= 1
    changed = np.zeros((HEIGHT, WIDTH), dtype=bool)
    changed[CHANGED] = True
    assert np.array_equal(levels(run) >= np.ceil(254 * header.threshold), changed)


def test_what_is_no_dataset_of_embeddings_is_refused(
    layers: dict[str, Path], workers: ClusterConfig, tmp_path: Path
) -> None:
    data = prepared(layers, tmp_path / "stored", workers, values="stored")
    asked = CalibrateRequest(bundle="embedding-l2", dataset=data, output=tmp_path / "mine.safetensors", cluster=workers)
    with pytest.raises(InputError, match=r"long, not 1.*--values quantised"):
        run_calibration(asked)
    floats = geotiff(tmp_path / "floats.tif", vectors()[0].astype(np.float32))
    with pytest.raises(InputError, match=r"--values quantised is of int8.*holds float32"):
        prepared({**layers, "before": floats, "after": floats}, tmp_path / "floats", workers)


def test_what_a_bundle_of_embeddings_cannot_do_is_refused(
    layers: dict[str, Path], data: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    run_calibration(CalibrateRequest(bundle="embedding-l2", dataset=data, output=output, cluster=workers))
    with pytest.raises(InputError, match="figures look into layers"):
        draw_figures(FiguresRequest(source=str(output), dataset=data, output=tmp_path / "figures"))
    hundred = annual_layer(tmp_path / "hundred.tif", (100 * vectors()[1]).astype(np.float32))
    asked = {"before": str(layers["before"]), "after": str(hundred), "output": tmp_path / "run", "bundle": str(output)}
    with pytest.raises(InputError, match=r"are 1\S* long.*hundred\.tif \(float32\) 100"):
        resolve(DetectRequest.model_validate(asked))
