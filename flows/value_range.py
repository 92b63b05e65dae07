"""What pseudo-changes take the values of imagery to lie between, against what a dataset holds."""

from __future__ import annotations

from dasnet.augment import highest_value
from dasnet.errors import TrainingError
from storage.dataset_store import DatasetStore

_DIM = 0.25


def require_value_range(store: DatasetStore, *, peak: float, remedy: str) -> None:
    """Refuse to change values that do not fill the range which augmentation takes them to have.

    Brightness, contrast, season, haze and noise are shares of that range: values above it would all become its highest,
    and far below it a veil would be many times as bright as the image.

    Args:
        peak: of augmentation; 0 = the type's own.
        remedy: what else can be done, for the message.

    Raises:
        TrainingError: naming the band and its values. Images of uint8 are taken to fill their range.
    """
    if store.dtype == "uint8" and not peak:
        return
    high = highest_value(store.dtype, peak)
    bands = [(str(band["name"]), float(band["mean"]), float(band["std"])) for band in store.attrs["bands"]]
    advice = f"set augmentation.peak to the highest value, {remedy}"
    for name, mean, std in bands:
        if mean + 2 * std > high or (store.dtype == "float32" and mean - 2 * std < 0):
            raise TrainingError(
                f"{store.path}: band {name} has values about {mean:.4g} ± {std:.4g}, but augmentation takes them "
                f"to lie between 0 and {high:g}: {advice}"
            )
    if store.dtype == "uint16" and all(mean + 4 * std < _DIM * high for _, mean, std in bands):
        name, mean, std = max(bands, key=lambda band: band[1])
        raise TrainingError(
            f"{store.path}: its brightest band, {name}, has values about {mean:.4g} ± {std:.4g}, but augmentation "
            f"takes them to reach {high:g}, where a veil would be many times as bright as the image: {advice}"
        )
