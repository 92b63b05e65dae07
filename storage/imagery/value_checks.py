"""Whether the values of a mosaic are what a model takes: looked at before a run in few pixels, in a run in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError, ShortReadError
from storage.imagery.description import Band, encoding_words, scale_words, scales_and_offsets
from storage.imagery.mosaics import Mosaic
from storage.imagery.rasters import read_source
from storage.imagery.values import Encoding, ValueRangeError

_ACROSS, _SIDE = 5, 32
_MOST_CUT = 0.5
"""Share of values that a conversion may cut off: dark water lies a little below what a type can hold."""
_FLATTENED = 8
"""Times as few values as before that a conversion may leave."""
_MEAN_OFF = 8.0
"""Standard deviations by which the mean of what is converted may differ from what a model has seen, without a word."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Few pixels of a mosaic: small windows spread over its first source, read when they are first asked for.

    Attributes:
        numbers: bands (from 1) that are read.
    """

    mosaic: Mosaic
    numbers: tuple[int, ...]

    @property
    def bands(self) -> tuple[Band, ...]:
        return tuple(self.mosaic.bands[number - 1] for number in self.numbers)

    @cached_property
    def pixels(self) -> tuple[NDArray, NDArray[np.bool_]]:
        """Values (C, n, 32) as stored, and valid (n, 32)."""
        source = self.mosaic.sources[0]
        height, width = source.grid.shape
        side_y, side_x = min(_SIDE, height), min(_SIDE, width)
        images, masks = [], []
        for y in np.linspace(0, height - side_y, _ACROSS).astype(int):
            for x in np.linspace(0, width - side_x, _ACROSS).astype(int):
                try:
                    image, valid = read_source(
                        source, self.numbers, rows=slice(y, y + side_y), cols=slice(x, x + side_x)
                    )
                except ShortReadError:
                    continue  # ingest says which pixels are missing
                images.append(image)
                masks.append(valid)
        if not images:
            empty = np.zeros((len(self.numbers), 0, side_x), dtype=self.mosaic.dtype)
            return empty, np.zeros((0, side_x), dtype=bool)
        return np.concatenate(images, axis=1), np.concatenate(masks, axis=0)

    def converted(self, encoding: Encoding) -> NDArray:
        """Values (C, n, 32) in an encoding; raises ValueRangeError as it does."""
        values, valid = self.pixels
        return encoding.convert(values, valid, self.bands, path=self.mosaic.label)


def scales_of(mosaic: Mosaic, numbers: Sequence[int]) -> list[tuple[str, str, tuple[Band, ...]]]:
    """Label, type and bands (from 1, those that are read) of a mosaic, and of each file whose scale is another."""
    own = {scales_and_offsets([source.bands[n - 1] for n in numbers]): source for source in reversed(mosaic.sources)}
    first, *others = sorted(own.values(), key=lambda source: source is not mosaic.sources[0])
    return [
        (mosaic.label, mosaic.dtype, tuple(first.bands[n - 1] for n in numbers)),
        *((source.path, mosaic.dtype, tuple(source.bands[n - 1] for n in numbers)) for source in others),
    ]


def require_values(sample: Sample, encoding: Encoding, *, model: str) -> None:
    """Refuse a mosaic whose type says other values than those of the model.

    Eight bits are not taken for sixteen, nor whole numbers for reflectances, unless a scale or the user says so. Where
    the type could hold them, a few pixels of the mosaic decide.

    Args:
        encoding: how it is read; its type is the model's.
        model: how messages name it.

    Raises:
        InputError: naming the mosaic, both types, values, and what can be done.
    """
    mosaic = sample.mosaic
    if mosaic.dtype == encoding.dtype or encoding.stretch is not None:
        return
    advice = (
        f"--stretch LOW,HIGH says which values become the ends of {encoding.dtype}; or rescale the mosaic, or choose a "
        f"bundle for {mosaic.dtype}"
    )
    stored, wanted = np.dtype(mosaic.dtype), np.dtype(encoding.dtype)
    is_scaled = encoding.bands is not None
    if not is_scaled and (
        (wanted.kind == "f" and stored.kind != "f") or (wanted.itemsize > 1 == stored.itemsize and wanted.kind != "f")
    ):
        raise InputError(f"{mosaic.label} holds {mosaic.dtype}, but {model} takes {encoding.dtype}: {advice}")
    values, valid = sample.pixels
    if not valid.any():
        return
    try:
        sample.converted(encoding)
    except ValueRangeError as error:
        low, high = np.percentile(values[:, valid], (2, 98))
        raise InputError(
            f"{mosaic.label} holds {mosaic.dtype}, but {model} takes {encoding.dtype}: {error}; most values lie "
            f"between {low:g} and {high:g}"
        ) from error


def require_kept(sample: Sample, encoding: Encoding) -> None:
    """Refuse scales by which whole numbers come to nothing: beyond the ends of their type, or all of them one.

    Raises:
        InputError: with values before and after.
    """
    if encoding.bands is None or encoding.dtype == "float32":
        return
    values, valid = sample.pixels
    if not valid.any():
        return
    before, after = values[:, valid], sample.converted(encoding)[:, valid]
    limits = np.iinfo(encoding.dtype)
    is_cut = ((after == limits.min) | (after == limits.max)) & (before != limits.min) & (before != limits.max)
    few = len(np.unique(after)) * _FLATTENED < len(np.unique(before))
    if is_cut.mean() > _MOST_CUT or few:
        raise InputError(
            f"{sample.mosaic.label} holds {before.min():g} … {before.max():g}, which by its scale and offset "
            f"({encoding_words(sample.bands)}) would be {after.min():g} … "
            f"{after.max():g} as {encoding.dtype} of {scale_words(encoding.bands)}: --values stored takes the numbers "
            "as they stand"
        )


def unlike(sample: Sample, encoding: Encoding, expected: Sequence[tuple[float, float]]) -> str:
    """A word where converted values are far from those that a model has seen.

    Args:
        expected: mean and standard deviation of each band in training.
    """
    if sample.mosaic.dtype == encoding.dtype and encoding.stretch is None and encoding.bands is None:
        return ""
    _, valid = sample.pixels
    if not valid.any():
        return ""
    try:
        converted = sample.converted(encoding)
    except ValueRangeError:
        return ""
    means = converted[:, valid].mean(axis=1)
    for band, mean, (usual, spread) in zip(sample.bands, means, expected, strict=True):
        if abs(mean - usual) > _MEAN_OFF * spread:
            return (
                f"{band.name} of {sample.mosaic.label} is about {mean:.4g} as it is read, the model was trained on "
                f"{usual:.4g} ± {spread:.3g}: are scale, offset or --stretch right?"
            )
    return ""
