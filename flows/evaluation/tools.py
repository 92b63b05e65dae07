"""What a worker runs to score: distances of samples in bins, probabilities of a mosaic's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.baselines.change_vectors import ChangeVectors
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
"""Of distances over [0, 2]."""


@dataclass(frozen=True, kw_only=True)
class ScoringTool:
    """On a worker: distances of some samples, counted against their labels."""

    store: DatasetStore
    predictor: DasnetPredictor
    cut: float
    vectors: ChangeVectors

    def __call__(self, indices: tuple[int, ...]) -> Mapping[str, Any]:
        samples = self.store.read(indices)
        images = np.stack([samples.before, samples.after], axis=1)
        distances = self.predictor.distances(images, samples.valid)[:, 0]
        sweep = ThresholdSweep(low=0.0, high=2.0, bins=BINS)
        sweep.add(distances.clip(0, 2), samples.label)
        peers = sum(
            self.vectors.count(before, after, label)
            for before, after, label in zip(samples.before, samples.after, samples.label, strict=True)
        )
        return {
            "distances": _sparse(np.stack([sweep.unchanged, sweep.changed])),
            "vectors": _sparse(np.asarray(peers)),
            "samples": [
                [c.tp, c.fp, c.fn, c.tn]
                for distance, label in zip(distances, samples.label, strict=True)
                for c in [Confusion.count(distance >= self.cut, label)]
            ],
        }


def make_scoring_tool(store: DatasetStore, bundle: str, device: str, precision: Precision) -> ScoringTool:
    """Runs once on each worker: loads the model there."""
    torch.set_num_threads(1)
    loaded = load_bundle(bundle)
    return ScoringTool(
        store=store,
        predictor=DasnetPredictor(loaded, device=device, precision=precision),
        cut=loaded.cut,
        vectors=ChangeVectors([band.std for band in loaded.bands]),
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
            "mosaic": [mosaic.tp, mosaic.fp, mosaic.fn, mosaic.tn],
            "tiles": [tiles.tp, tiles.fp, tiles.fn, tiles.tn],
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
