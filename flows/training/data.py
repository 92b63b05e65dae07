"""The samples that a rank trains on, in the bands and values of its network."""

from __future__ import annotations

from dasnet.errors import TrainingError
from dasnet.networks.architectures import timm_name
from dasnet.training.recipes import Recipe, TrainingData
from flows.dataset.fitting import training_frequency
from storage.datasets.store import DatasetStore

BandStatistics = tuple[str, float, float]
"""A band's name, and mean and standard deviation in the images' units."""
_IMAGENET: tuple[tuple[float, float], ...] = ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))


_RGB = ("red", "green", "blue")
_WHITE = 255.0


def _as_weights_want(
    bands: tuple[BandStatistics, ...], store: DatasetStore, recipe: Recipe
) -> tuple[BandStatistics, ...]:
    """Red, green and blue by the mean and deviation of the images that the encoder's weights have seen, others as they
    are. Which three: by name, else the first, as weights are brought onto other numbers of bands.
    """
    if len(bands) < len(_RGB) or store.dtype != "uint8":
        if recipe.normalisation == "encoder":
            return bands
        raise TrainingError(
            f"ImageNet's normalisation is of red, green and blue in uint8, {store.path} has {len(bands)} bands of "
            f"{store.dtype}: set normalisation to encoder, or to dataset"
        )
    statistics = _IMAGENET
    if (name := timm_name(recipe.backbone or "")) is not None:
        from dasnet.networks.encoders.timm_encoder import normalisation_of

        mean, std = normalisation_of(name)
        statistics = tuple((m * _WHITE, s * _WHITE) for m, s in zip(mean, std, strict=True))
    names = [name.lower() for name, _, _ in bands]
    places = [names.index(colour) for colour in _RGB] if set(_RGB) <= set(names) else range(len(_RGB))
    changed = list(bands)
    for place, values in zip(places, statistics, strict=True):
        changed[place] = (bands[place][0], *values)
    return tuple(changed)


def training_data(store: DatasetStore, recipe: Recipe) -> TrainingData:
    """What training needs to know of a dataset.

    Raises:
        TrainingError: a band without variation, or a training split of one class.
    """
    bands = tuple((str(b["name"]), float(b["mean"]), float(b["std"])) for b in store.attrs["bands"])
    if recipe.normalisation != "dataset":
        bands = _as_weights_want(bands, store, recipe)
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
