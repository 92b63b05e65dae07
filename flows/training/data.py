"""The samples that a rank trains on, in the bands and values of its network."""

from __future__ import annotations

from dasnet.errors import TrainingError
from dasnet.training.recipes import Recipe, TrainingData
from flows.dataset.fitting import training_frequency
from storage.datasets.store import DatasetStore

_IMAGENET = ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))


def training_data(store: DatasetStore, recipe: Recipe) -> TrainingData:
    """What training needs to know of a dataset.

    Raises:
        TrainingError: a band without variation, or a training split of one class.
    """
    bands = tuple((str(b["name"]), float(b["mean"]), float(b["std"])) for b in store.attrs["bands"])
    if recipe.normalisation == "imagenet":
        if len(bands) != 3 or store.dtype != "uint8":
            raise TrainingError(
                f"ImageNet's normalisation is of three bands of uint8, {store.path} has {len(bands)} of {store.dtype}"
            )
        bands = tuple((name, *values) for (name, _, _), values in zip(bands, _IMAGENET, strict=True))
    flat = [name for name, _, std in bands if not std > 0]
    if flat:
        raise TrainingError(f"{store.path}: band {', '.join(flat)} has one value in all of the training split")
    frequency = training_frequency(store)
    try:
        recipe.loss_of(frequency)
    except ValueError as error:
        raise TrainingError(f"{store.path}, training split: {error}") from error
    return TrainingData(
        bands=bands,
        scaling=tuple((b.get("scale"), b.get("offset")) for b in store.attrs["bands"]),
        dtype=store.dtype,
        window=store.window,
        frequency=frequency,
        digest=store.digest,
        resolution=store.resolution,
    )
