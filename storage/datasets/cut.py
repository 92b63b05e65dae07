"""Cut samples from scenes into a dataset store, and look at them once while they are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.datasets.label_rules import LabelRule
from storage.datasets.scenes import Scene
from storage.datasets.sharpness import Sharpness, sharpness_of
from storage.datasets.store import LEFT_OUT, DatasetStore, Samples
from tiling.conventions import CHANGED, IGNORED, SPLITS, UNCHANGED

_GENEROUS = 2.0
"""Pixels that may be read for one that is wanted."""


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Where one sample lies.

    Attributes:
        scene: index of its scene.
        row, col: upper-left pixel of its window.
        height, width: size of the part of the window that belongs to the sample's zone, from its upper-left corner,
            pixels; what is beyond is nodata.
        split: train, val or test.
    """

    scene: int
    row: int
    col: int
    height: int
    width: int
    split: str


@dataclass(frozen=True, kw_only=True)
class SampleFacts:
    """What was seen of one sample.

    Attributes:
        changed, unchanged, ignored: pixels by label.
        is_kept: False = too much nodata.
        same: both dates are equal, pixel by pixel, although they claim to be two.
        hashes: perceptual hash of each date, hex.
        sums: for each band (valid pixels, sum, sum of squares) over both dates.
        sharpness: of each date; None where nothing can be said of it, as in shards of the version before.
    """

    changed: int
    unchanged: int
    ignored: int
    is_kept: bool
    same: bool
    hashes: tuple[str, str]
    sums: tuple[tuple[int, float, float], ...]
    sharpness: tuple[Sharpness | None, Sharpness | None] = (None, None)

    def to_json(self) -> list[Any]:
        flags = [int(self.is_kept), int(self.same)]
        return [self.changed, self.unchanged, self.ignored, *flags, *self.hashes, self.sums, self.sharpness]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> SampleFacts:
        return cls(
            changed=row[0],
            unchanged=row[1],
            ignored=row[2],
            is_kept=bool(row[3]),
            same=bool(row[4]),
            hashes=(row[5], row[6]),
            sums=tuple((count, total, squares) for count, total, squares in row[7]),
            sharpness=(_sharpness(row, 0), _sharpness(row, 1)),
        )


def _sharpness(row: Sequence[Any], date: int) -> Sharpness | None:
    """That of a date in a row of a ledger, where it has one."""
    written = row[8][date] if len(row) > 8 else None
    return None if written is None else (float(written[0]), float(written[1]))


def cut_samples(
    store: DatasetStore,
    scenes: Mapping[int, Scene],
    cutouts: Sequence[Cutout],
    *,
    first: int,
    rule: LabelRule | None,
    max_nodata: float,
) -> tuple[str, list[SampleFacts]]:
    """Read the samples of one shard and write it; returns its digest and what was seen of each sample.

    Args:
        scenes: those that `cutouts` name, by index.
        first: index of the first sample in the store.
        rule: by which label rasters are read; None where polygons say what changed.
        max_nodata: share of ignored pixels above which a sample is left out.

    Raises:
        ShortReadError: a file delivered fewer pixels than it promised; nothing is written then.
    """
    read = [
        sample for group in _neighbours(cutouts) for sample in _read(store.window, scenes[group[0].scene], group, rule)
    ]
    samples = Samples(
        before=np.stack([s.before for s in read]),
        after=np.stack([s.after for s in read]),
        valid=np.stack([s.valid for s in read]),
        label=np.stack([s.label for s in read]),
    )
    return store.write(first, samples), [look_at(sample, max_nodata=max_nodata) for sample in read]


def look_at(sample: Samples, *, max_nodata: float) -> SampleFacts:
    """Count and hash one sample: its arrays without the leading axis."""
    label = sample.label
    ignored = int((label == IGNORED).sum())
    return SampleFacts(
        changed=int((label == CHANGED).sum()),
        unchanged=int((label == UNCHANGED).sum()),
        ignored=ignored,
        is_kept=ignored <= max_nodata * label.size and ignored < label.size,
        same=bool((sample.before == sample.after).all()),
        hashes=(perceptual_hash(sample.before), perceptual_hash(sample.after)),
        sums=tuple(_sums(sample, band) for band in range(len(sample.before))),
        sharpness=(
            sharpness_of(sample.before, sample.valid[0]),
            sharpness_of(sample.after, sample.valid[1]),
        ),
    )


def band_statistics(facts: Iterable[SampleFacts]) -> list[tuple[float, float]]:
    """(mean, standard deviation) of each band over all valid pixels of both dates of the samples."""
    sums = np.sum([fact.sums for fact in facts], axis=0)  # (C, 3)
    count, total, squares = np.maximum(sums[:, 0], 1), sums[:, 1], sums[:, 2]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return [(float(m), float(d)) for m, d in zip(mean, deviation, strict=True)]


def _sums(sample: Samples, band: int) -> tuple[int, float, float]:
    pixels = np.concatenate(
        [image[band][ok] for image, ok in zip((sample.before, sample.after), sample.valid, strict=True)]
    )
    values = pixels.astype(np.float64)
    return len(values), float(values.sum()), float(np.square(values).sum())


def perceptual_hash(image: NDArray[Any]) -> str:
    """64 bits, as hex, that hardly change when an image is compressed, scaled or brightened: (C, h, w) any type."""
    grey = image.astype(np.float32).mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    return str(imagehash.phash(Image.fromarray(scaled.astype(np.uint8))))


def near_duplicates(
    hashes: Sequence[tuple[str, str]], splits: Sequence[int], *, distance: int = 4, limit: int = 200
) -> list[tuple[int, int]]:
    """Pairs of samples of different splits whose both dates look alike: leaks from training to test.

    Args:
        hashes: two of each sample, as in :class:`SampleFacts`.
        splits: the split of each sample; left-out ones are not compared.
        distance: bits of 64 by which each date's hashes may differ. A featureless image has a hash without meaning
            and is not compared.
        limit: pairs returned at most.
    """
    bits = np.array([[int(one, 16), int(other, 16)] for one, other in hashes], dtype=np.uint64).reshape(-1, 2)
    split = np.asarray(splits)
    telling = (np.bitwise_count(bits) >= 8).all(axis=1) & (split != LEFT_OUT)
    pairs: list[tuple[int, int]] = []
    for first in range(len(SPLITS)):
        ours = np.flatnonzero(telling & (split == first))
        theirs = np.flatnonzero(telling & (split > first))
        if not len(theirs):
            continue
        for index in ours:
            near = (np.bitwise_count(bits[theirs] ^ bits[index]) <= distance).all(axis=1)
            pairs += [(int(index), int(other)) for other in theirs[near]]
            if len(pairs) >= limit:
                return pairs[:limit]
    return pairs


def _neighbours(cutouts: Sequence[Cutout]) -> list[list[Cutout]]:
    """Runs of windows of one scene that lie close enough to be read at once: overlapping ones share pixels, and what
    has to be resampled is resampled in large tiles."""
    groups: list[list[Cutout]] = []
    for cutout in cutouts:
        if groups and groups[-1][0].scene == cutout.scene:
            joined = [*groups[-1], cutout]
            (rows, cols), pixels = _extent(joined), sum(c.height * c.width for c in joined)
            if (rows.stop - rows.start) * (cols.stop - cols.start) <= _GENEROUS * pixels:
                groups[-1] = joined
                continue
        groups.append([cutout])
    return groups


def _extent(group: Sequence[Cutout]) -> tuple[slice, slice]:
    return (
        slice(min(c.row for c in group), max(c.row + c.height for c in group)),
        slice(min(c.col for c in group), max(c.col + c.width for c in group)),
    )


def _read(window: int, scene: Scene, group: Sequence[Cutout], rule: LabelRule | None) -> Iterator[Samples]:
    rows, cols = _extent(group)
    rows, cols = slice(rows.start, min(rows.stop, scene.height)), slice(cols.start, min(cols.stop, scene.width))
    dates = [reader.read(rows=rows, cols=cols) for reader in (scene.before, scene.after)]
    labelled = scene.read_label(rule, rows=rows, cols=cols)
    for cutout in group:
        y, x = cutout.row - rows.start, cutout.col - cols.start
        height, width = min(cutout.height, rows.stop - cutout.row), min(cutout.width, cols.stop - cutout.col)
        images = np.zeros((2, len(scene.bands), window, window), dtype=scene.dtype)
        valid = np.zeros((2, window, window), dtype=bool)
        label = np.full((window, window), IGNORED, dtype=np.uint8)
        for date, (image, usable) in enumerate(dates):
            images[date, :, :height, :width] = image[:, y : y + height, x : x + width]
            valid[date, :height, :width] = usable[y : y + height, x : x + width]
        label[:height, :width] = labelled[y : y + height, x : x + width]
        label[~valid.all(axis=0)] = IGNORED
        yield Samples(before=images[0], after=images[1], valid=valid, label=label)
