"""What a worker runs to score: distances of samples in bins, probabilities of a mosaic's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasnet.baselines.scoring import score_untrained
from dasnet.errors import DegenerateStatisticsError
from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.prediction.bundle import load_bundle
from dasnet.prediction.network import Precision
from dasnet.prediction.predictor import DasnetPredictor
from storage.datasets.scenes import LabelOnGrid
from storage.datasets.store import DatasetStore
from storage.stores.run_store import RunStore
from tiling.conventions import IGNORED, NODATA, changed_level
from tiling.grid import BlockGrid

BINS = 4096
"""Bins of distances over [0, 2]."""

CHANGE_VECTORS = "change-vectors"
"""The item that stands for the peer without training, of all samples of the split together."""


@dataclass(frozen=True, kw_only=True)
class ScoringTool:
    """On a worker: distances of some samples, counted against their labels; or change vectors of the whole split."""

    store: DatasetStore
    split: str
    predictor: DasnetPredictor
    cut: float

    def __call__(self, item: tuple[int, ...] | str) -> Mapping[str, Any]:
        return self._change_vectors() if isinstance(item, str) else self._distances(item)

    def _change_vectors(self) -> Mapping[str, Any]:
        try:
            confusion = score_untrained("cva", self.store, self.split).confusion
        except DegenerateStatisticsError:
            return {"confusion": None}  # no two classes of pixels: nothing is called changed
        return {"confusion": astuple(confusion)}

    def _distances(self, indices: tuple[int, ...]) -> Mapping[str, Any]:
        samples = self.store.read(indices)
        images = np.stack([samples.before, samples.after], axis=1)
        distances = self.predictor.distances(images, samples.valid)[:, 0]
        sweep = ThresholdSweep(low=0.0, high=2.0, bins=BINS)
        sweep.add(distances.clip(0, 2), samples.label)
        return {
            "distances": _sparse(np.stack([sweep.unchanged, sweep.changed])),
            "samples": [
                astuple(Confusion.count(distance >= self.cut, label))
                for distance, label in zip(distances, samples.label, strict=True)
            ],
        }


def make_scoring_tool(store: DatasetStore, split: str, bundle: str, device: str, precision: Precision) -> ScoringTool:
    """Runs once on each worker: loads the model there."""
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")
    loaded = load_bundle(bundle)
    return ScoringTool(
        store=store,
        split=split,
        predictor=DasnetPredictor(loaded, device=device, precision=precision, window=store.window),
        cut=loaded.cut,
    )


def _sparse(counts: NDArray[np.int64]) -> list[list[list[int]]]:
    """(2, bins) as [bin, count] pairs of each row."""
    return [[[int(bin), int(row[bin])] for bin in np.flatnonzero(row)] for row in counts]


@dataclass(frozen=True, kw_only=True)
class MosaicScoringTool:
    """On a worker: one block of a finished run against its label."""

    store: RunStore
    blocks: BlockGrid
    label: LabelOnGrid
    predictor: DasnetPredictor
    threshold: float
    cut: float
    window: int

    def __call__(self, index: int) -> Mapping[str, Any]:
        box = self.blocks[index].box
        stored = self.store.read_probability(rows=box.rows, cols=box.cols)
        label = self.label.read(rows=box.rows, cols=box.cols)
        label[stored == NODATA] = IGNORED
        mosaic = Confusion.count(stored >= changed_level(self.threshold), label)
        tiles = Confusion()
        side = self.window
        for y in range(box.y0, box.y1, side):
            images, valid = self.store.read_series(
                rows=slice(y, y + side), cols=slice(box.x0, box.x0 + -(-box.width // side) * side)
            )
            count = images.shape[-1] // side
            cut_up = [images[..., n * side : (n + 1) * side] for n in range(count)]
            usable = [valid[..., n * side : (n + 1) * side] for n in range(count)]
            distance = np.concatenate(list(self.predictor.distances(np.stack(cut_up), np.stack(usable))[:, 0]), axis=1)
            height = min(side, box.y1 - y)
            part = label[y - box.y0 : y - box.y0 + height]
            tiles += Confusion.count(distance[:height, : box.width] >= self.cut, part)
        return {
            "mosaic": astuple(mosaic),
            "tiles": astuple(tiles),
        }


def make_mosaic_scoring_tool(
    store: RunStore, blocks: BlockGrid, label: LabelOnGrid, bundle: str, device: str, precision: Precision
) -> MosaicScoringTool:
    """Runs once on each worker: loads the model there."""
    torch.set_num_threads(1)
    loaded = load_bundle(bundle)
    return MosaicScoringTool(
        store=store,
        blocks=blocks,
        label=label,
        predictor=DasnetPredictor(loaded, device=device, precision=precision),
        threshold=loaded.threshold,
        cut=loaded.cut,
        window=loaded.window,
    )
