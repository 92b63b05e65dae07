"""Whether a dataset fits a bundle or a recipe: its bands, its class frequencies, its range of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dasnet.errors import TrainingError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.training.augmentation import highest_value
from dasnet.training.class_frequency import ClassFrequency
from flows.dataset.directory import CLASS_FREQUENCIES
from storage.datasets.store import DatasetStore
from storage.errors import InputError
from storage.imagery.bands import matching_bands, named_bands

if TYPE_CHECKING:
    from dasnet.prediction.header import BundleHeader


def training_frequency(store: DatasetStore) -> ClassFrequency:
    """Labelled pixels of the training split: as `dasnet weights` has counted them, else as they were prepared."""
    counts = store.attrs.get(CLASS_FREQUENCIES, store.attrs["counts"])["train"]
    return ClassFrequency(changed=int(counts["changed"]), unchanged=int(counts["unchanged"]))


def fitted(store: DatasetStore, bundle: BundleHeader, *, name: str) -> DatasetStore:
    """The dataset with the bands that a bundle takes, in its order: by name, as `detect` finds them.

    Raises:
        InputError: a dataset of another type, without these bands, or of samples that an imported graph cannot take.
    """
    network = bundle.architecture
    if isinstance(network, ImportedArchitecture) and (why := network.refusal(store.window)):
        raise InputError(
            f"bundle {name} cannot look at samples of {store.window} px, as {store.path} has them: {why}; "
            f"prepare a dataset with --window {network.side}"
        )
    if bundle.dtype != store.dtype:
        raise InputError(f"bundle {name} takes {bundle.dtype}, {store.path} has {store.dtype}")
    numbers = matching_bands(
        named_bands(store.bands),
        [band.name for band in bundle.bands],
        has=str(store.path),
        needs=f"bundle {name}",
        otherwise="prepare a dataset with these bands, by --bands and --band-names",
    )
    return store.with_bands(numbers)


_DIM, _SKEWED = 0.25, 3.0


def require_value_range(store: DatasetStore, *, peak: float, setting: str, otherwise: str) -> None:
    """Refuse to change values that do not fill the range which augmentation takes them to have.

    Brightness, contrast, season, haze and noise are shares of that range: values outside it would all become its lowest
    or highest, and far below its highest a veil would be many times as bright as the image.

    Args:
        peak: highest value, as augmentation has it; 0 = the type's own.
        setting, otherwise: where it is set, and what else can be done, for the message.

    Raises:
        TrainingError: naming the band and its values.
    """
    high, of_type = highest_value(store.dtype, peak), highest_value(store.dtype, 0.0)
    bands = [(str(band["name"]), float(band["mean"]), float(band["std"])) for band in store.attrs["bands"]]
    for name, mean, std in bands:
        # of a skewed band more of the deviation reaches below 0 than any value does
        if store.dtype == "float32" and (mean <= 0 or 2 * std > _SKEWED * mean):
            raise TrainingError(
                f"{store.path}: band {name} has values about {mean:.4g} ± {std:.4g}, so that some seem to lie "
                f"below 0, which pseudo-changes take for the darkest value: shift and scale the images, {otherwise}"
            )
        if (store.dtype == "float32" or high < of_type) and mean + 2 * std > high:
            raise TrainingError(
                f"{store.path}: band {name} has values about {mean:.4g} ± {std:.4g}, but pseudo-changes take them to "
                f"lie between 0 and {high:g}: set {setting} to what is nearly white there, {otherwise}"
            )
    white = max(mean + 4 * std for _, mean, std in bands)
    if store.dtype == "uint16" and white < _DIM * high:
        raise TrainingError(
            f"{store.path}: hardly a value lies above {white:.0f}, but pseudo-changes take them to reach {high:g}, "
            f"where a veil would be many times as bright as the image: set {setting} to what is nearly white there, "
            f"{white:.0f} for example, {otherwise}"
        )
