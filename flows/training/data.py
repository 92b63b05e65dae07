"""The samples that a rank trains on, in the bands and values of its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dasnet.errors import TrainingError
from dasnet.networks.architectures import timm_name
from dasnet.training.recipes import Recipe, TrainingData
from flows.dataset.fitting import fitted, training_frequency
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError

if TYPE_CHECKING:
    from dasnet.prediction.header import BundleHeader

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
        from dasnet.networks.encoders.timm_network import normalisation_of

        mean, std = normalisation_of(name)
        statistics = tuple((m * _WHITE, s * _WHITE) for m, s in zip(mean, std, strict=True))
    names = [name.lower() for name, _, _ in bands]
    places = [names.index(colour) for colour in _RGB] if set(_RGB) <= set(names) else range(len(_RGB))
    changed = list(bands)
    for place, values in zip(places, statistics, strict=True):
        changed[place] = (bands[place][0], *values)
    return tuple(changed)


def dataset_of(path: Path, header: BundleHeader | None, *, name: str = "") -> DatasetStore:
    """The dataset, with the bands of the bundle called `name` that training goes on from, in its order.

    Raises:
        InputError: no dataset, or one of another type, of other bands, or whose values are of another scale.
    """
    store = open_dataset(path)
    if header is None:
        return store
    store = fitted(store, header, name=name)
    require_one_scale(store, header, name=name)
    return store


def require_one_scale(store: DatasetStore, header: BundleHeader, *, name: str) -> None:
    """Refuse values of another scale than those that the bundle called `name` has learnt from, with InputError."""
    for band, (scale, offset) in zip(header.bands, _scaling(store), strict=True):
        if None not in (band.scale, scale) and (band.scale, band.offset) != (scale, offset):
            raise InputError(
                f"{store.path}: band {band.name} is value · {scale} + {offset}, bundle {name} has learnt from values "
                f"· {band.scale} + {band.offset}: prepare the dataset from imagery of the bundle's scale"
            )


def _scaling(store: DatasetStore) -> tuple[tuple[float | None, float | None], ...]:
    """(scale, offset) of each band that is read."""
    described = store.attrs["bands"]
    numbers = store.chosen or range(1, len(described) + 1)
    return tuple((described[n - 1].get("scale"), described[n - 1].get("offset")) for n in numbers)


def training_data(store: DatasetStore, recipe: Recipe, header: BundleHeader | None = None) -> TrainingData:
    """What training needs to know of a dataset.

    Args:
        header: of the bundle that training goes on from: values are normalised as its network knows them.

    Raises:
        TrainingError: a band without variation, or a training split of one class.
    """
    bands = tuple((str(b["name"]), float(b["mean"]), float(b["std"])) for b in store.attrs["bands"])
    if header is not None:
        bands = tuple((band.name, band.mean, band.std) for band in header.bands)
    elif recipe.normalisation != "dataset":
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
        scaling=_scaling(store),
        dtype=store.dtype,
        window=store.window,
        frequency=frequency,
        digest=store.digest,
        resolution=store.resolution,
    )
