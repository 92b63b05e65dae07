"""What a network sees of a dataset: bands by the split, or as the weights of its encoder have seen them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dasnet.errors import TrainingError
from dasnet.networks.encoders.start_weights import IMAGENET
from dasnet.training.recipes import recipe_named
from flows.training.data import training_data
from flows.training.request import TrainRequest
from storage.datasets.create import create_dataset
from storage.datasets.store import DatasetStore, Samples


def store_of(folder: Path, *, bands: tuple[str, ...] = ("red", "green", "blue"), dtype: str = "uint8") -> DatasetStore:
    """Six samples of noise: four to train on, one to validate, one to test."""
    random, count, side = np.random.default_rng(0), 6, 32
    path = folder / "dataset.zarr"
    create_dataset(
        path,
        sources=["noise"] * count,
        rows=[0] * count,
        cols=[0] * count,
        window=side,
        bands=list(bands),
        dtype=dtype,
        shard=count,
        attrs={},
    )
    store = DatasetStore(path)
    images = random.integers(1, 255, (2, count, len(bands), side, side)).astype(dtype)
    label = (random.random((count, side, side)) < 0.2).astype(np.uint8)
    valid = np.ones((count, 2, side, side), dtype=bool)
    store.write(0, Samples(before=images[0], after=images[1], valid=valid, label=label))
    changed = [int((one == 1).sum()) for one in label]
    store.finish(
        np.array([0, 0, 0, 0, 1, 2], dtype=np.int8),
        changed=changed,
        unchanged=[side * side - n for n in changed],
        attrs={
            "digest": "noise",
            "bands": [{"name": name, "mean": 100.0 + n, "std": 30.0 + n} for n, name in enumerate(bands)],
            "counts": {"train": {"samples": 4, "changed": sum(changed[:4]), "unchanged": 4096 - sum(changed[:4])}},
        },
    )
    return store


def bands_of(store: DatasetStore, **changes: Any) -> list[tuple[str, float, float]]:
    return list(training_data(store, recipe_named("cpu_pretrained", **changes)).bands)


OWN = [("red", 127.5, 127.5), ("green", 127.5, 127.5), ("blue", 127.5, 127.5)]  # (value / 255 − 0.5) / 0.5


@pytest.mark.parametrize("normalisation", ["imagenet", "encoder"])
def test_bands_are_normalised_as_the_encoders_weights_want_them(tmp_path: Path, normalisation: str) -> None:
    store = store_of(tmp_path)
    assert bands_of(store, normalisation=normalisation) == OWN
    residual = bands_of(store, normalisation=normalisation, backbone="timm:resnet18")
    assert residual == [("red", *_of(0.485, 0.229)), ("green", *_of(0.456, 0.224)), ("blue", *_of(0.406, 0.225))]
    ours = bands_of(store, normalisation=normalisation, backbone="resnet50")
    assert ours == [("red", 123.675, 58.395), ("green", 116.28, 57.12), ("blue", 103.53, 57.375)]
    assert bands_of(store, normalisation="dataset")[2] == ("blue", 102.0, 32.0)


def _of(mean: float, deviation: float) -> tuple[Any, Any]:
    return pytest.approx(mean * 255), pytest.approx(deviation * 255)


def test_other_bands_are_normalised_by_the_dataset(tmp_path: Path) -> None:
    store = store_of(tmp_path, bands=("red", "green", "blue", "nir"))
    assert bands_of(store) == [*OWN, ("nir", 103.0, 33.0)]
    (tmp_path / "named").mkdir()
    store = store_of(tmp_path / "named", bands=("nir", "Red", "green", "blue"))
    assert bands_of(store) == [("nir", 100.0, 30.0), ("Red", 127.5, 127.5), *OWN[1:]]


@pytest.mark.parametrize(("bands", "dtype"), [(("red", "green", "blue"), "uint16"), (("pan",), "uint8")])
def test_of_other_images_the_dataset_decides_or_they_are_refused(
    tmp_path: Path, bands: tuple[str, ...], dtype: str
) -> None:
    store = store_of(tmp_path, bands=bands, dtype=dtype)
    assert bands_of(store)[0] == (bands[0], 100.0, 30.0)
    with pytest.raises(TrainingError, match=f"in uint8, .* has {len(bands)} bands of {dtype}: set normalisation to"):
        bands_of(store, normalisation="imagenet")


def test_a_recipe_for_pretrained_encoders_starts_from_what_is_installed() -> None:
    def weights(**asked: Any) -> Path | None:
        return TrainRequest.model_validate({"dataset": "d", "output": "o", **asked}).weights

    assert weights() is None and weights(recipe="paper_cdd") is None
    assert weights(recipe="cpu_pretrained") == weights(recipe="gpu_pretrained") == IMAGENET
    assert weights(recipe="cpu_pretrained", backbone_weights="own.pth") == Path("own.pth")
    assert weights(recipe="cpu_pretrained", changes={"backbone": "mobilenet_v3"}) is None  # no package has any
    assert weights(backbone_weights="own.pth", changes={"backbone": "vgg16"}) == Path("own.pth")
