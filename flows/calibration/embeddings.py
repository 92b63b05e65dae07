"""The bundle that a calibration of precomputed embeddings begins with: a distance, and nothing fitted yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dasnet.baselines.embeddings import EMBEDDINGS, LENGTH_RATIO
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.bundle import Bundle, save_bundle
from dasnet.prediction.calibration import NOT_CALIBRATED, UNCALIBRATED
from dasnet.prediction.header import Band
from storage.datasets.store import DatasetStore
from storage.errors import InputError
from tiling.conventions import Split

_LOOKED_AT = 8
"""Samples whose vectors are looked at."""


def uncalibrated(method: str, store: DatasetStore, split: Split, path: Path) -> Bundle:
    """Write a bundle that compares the bands of a dataset as embeddings.

    Args:
        method: a key of :data:`dasnet.baselines.embeddings.EMBEDDINGS`.

    Raises:
        InputError: a dataset whose bands are no vectors of unit length.
    """
    _require_unit_vectors(method, store, split)
    architecture = PrecomputedArchitecture(embedding=EMBEDDINGS[method].measure, in_bands=len(store.bands))
    bundle = Bundle(
        state={},
        architecture=architecture,
        bands=tuple(Band(name=name, mean=0.0, std=1.0) for name in store.bands),
        dtype=store.dtype,
        threshold=0.5,
        calibration=UNCALIBRATED,
        window=max(store.window, 32),
        resolution=store.resolution,
        provenance={"embeddings": method},
        card=f"# {architecture.title}\n\nThere is no network in it: the mosaics are the embeddings, a unit vector a "
        f"pixel.\n\nIt is {NOT_CALIBRATED}.\n",
    )
    return save_bundle(path, bundle, half=False)


def _require_unit_vectors(method: str, store: DatasetStore, split: Split) -> None:
    if store.dtype != "float32" or len(store.bands) < 2:
        raise InputError(
            f"{method} compares vectors of float32, but {store.path} has {len(store.bands)} bands of {store.dtype}: "
            "prepare a dataset of embeddings, of int8 with --values quantised"
        )
    samples = store.read([int(index) for index in store.indices(split)[:_LOOKED_AT]])
    for date, (name, images) in enumerate((("before", samples.before), ("after", samples.after))):
        valid = samples.valid[:, date]
        vectors = np.moveaxis(images, 1, 0)[:, valid].astype(np.float64)
        if not vectors.size:
            continue
        length = float(np.median(np.sqrt((vectors**2).sum(axis=0))))
        if not 1 / LENGTH_RATIO <= length <= LENGTH_RATIO:
            raise InputError(
                f"{store.path}: vectors {name} are {length:.4g} long, not 1, so that they are no unit vectors as they "
                "stand: prepare int8 embeddings with --values quantised, or others with the scale of their files"
            )
