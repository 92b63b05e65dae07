"""What a value is to a bundle that knows the scale of what it was trained on, and where that knowledge comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture
from dasnet.prediction.bundle import random_bundle, save_bundle
from dasnet.prediction.header import Band, read_header
from storage.imagery.description import plain
from tests.attacks.door import holds, image, pixels, planned

STORED = (1e-4, -0.1)
"""Reflectance = number · 0.0001 − 0.1, as Sentinel-2 has it since 2022."""


def scaled(path: Path, scale: float, offset: float) -> Path:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * file.count, (offset,) * file.count
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of random weights, trained, as its header says, on reflectance · 10,000 + 1,000."""
    path = tmp_path_factory.mktemp("bundle") / "reflectance.safetensors"
    bands = tuple(Band(name=f"band{n}", mean=2000, std=800, scale=1e-4, offset=-0.1) for n in (1, 2, 3))
    architecture = Architecture(backbone="mobilenet_v3", head_channels=96, in_bands=3)
    save_bundle(path, random_bundle(architecture, bands, dtype="uint16"))
    return str(path)


def test_a_bundle_keeps_the_scale_of_its_bands(bundle: str) -> None:
    assert [(band.scale, band.offset) for band in read_header(bundle).bands] == [STORED] * 3
    assert plain(Band(name="red", mean=1, std=1).to_dict()) == {"name": "red", "mean": 1, "std": 1}
    with pytest.raises(BundleError, match="both, or none"):
        Band(name="red", mean=1, std=1, scale=1e-4)


def test_both_dates_are_read_as_the_bundle_knows_them(tmp_path: Path, bundle: str) -> None:
    """One reflectance stored in three ways: without an offset, with one, and as floats."""
    counts = pixels(dtype="uint16").astype(np.float64) * 20  # reflectance · 10,000
    truth = counts + 1000
    ways = {
        "plain_20190601.tif": (counts.astype("uint16"), 1e-4, 0.0),
        "offset_20210601.tif": (truth.astype("uint16"), *STORED),
        "float_20220601.tif": ((counts * 0.01).astype("float32"), 0.01, 0.0),
    }
    paths = [scaled(image(tmp_path / name, values), scale, offset) for name, (values, scale, offset) in ways.items()]
    for path in paths:
        job = planned(path, bundle=bundle)
        holds(job, truth)
    job = planned(paths[0], paths[1], bundle=bundle)
    holds(job, truth, date=0)
    holds(job, truth, date=1)
    assert "encoding" in job.parameters and any("read as the bundle's" in warning for warning in job.warnings)


def test_imagery_that_declares_nothing_is_read_as_it_stands(tmp_path: Path, bundle: str) -> None:
    values = pixels(dtype="uint16") * 20
    job = planned(image(tmp_path / "a.tif", values), bundle=bundle)
    holds(job, values)
    assert "encoding" not in job.parameters
