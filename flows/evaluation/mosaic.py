"""Scores of a whole labelled mosaic: as `detect` blends it, and tile by tile, over the same pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dasnet.metrics import IGNORED, Confusion
from dasnet.prediction.bundle import load_bundle, portable_name
from dasnet.prediction.network import Precision
from dasnet.prediction.predictor import DasnetPredictor
from flows.cluster.stage import ConnectCluster, run_stage
from flows.failures import FailedBlocksError
from flows.run.directory import RunDirectory
from flows.run.fields import ClusterConfig
from flows.run.reporting import current_reporter
from storage.datasets.label_values import coding_of, common_coding, histogram
from storage.datasets.scenes import LabelOnGrid, label_on_grid
from storage.imagery.rasters import GridReader
from storage.stores.run_store import NODATA, RunStore, changed_level
from tiling.grid import BlockGrid


@dataclass(frozen=True, kw_only=True)
class MosaicScore:
    """What a bundle reaches on a whole mosaic.

    Attributes:
        mosaic: overlapping windows, blended: what `detect` delivers.
        tiles: each window by itself, side by side: how networks are usually scored.
        unlabelled: share of the mosaic's pixels that are not scored: no label, or nodata.
    """

    mosaic: Confusion
    tiles: Confusion
    unlabelled: float

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {"mosaic": self.mosaic.scores(), "tiles": self.tiles.scores(), "unlabelled": self.unlabelled}


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
        cut=loaded.calibration.distance(loaded.threshold),
        window=loaded.window,
    )


def score_mosaic(
    run: Path,
    label: Path,
    bundle: str,
    *,
    directory: RunDirectory,
    cluster: ConnectCluster,
    config: ClusterConfig,
    precision: Precision,
) -> MosaicScore:
    """Score a finished run of detect.

    Raises:
        InputError: a label that is none, or does not overlap the run.
        FailedBlocksError: blocks that could not be read.
    """
    store = RunStore(RunDirectory(run).store)
    on_grid = label_on_grid(str(label), store.grid)
    if on_grid.raster is not None:
        coding = common_coding({str(label): coding_of(str(label), _values(on_grid.raster, store))})
        on_grid = on_grid.coded(coding)
    blocks = BlockGrid(height=store.height, width=store.width, size=store.block)
    ledger = directory.ledger("score-mosaic")
    ledger.forget_failed("run again")
    result = run_stage(
        "score mosaic",
        cluster=cluster,
        make_tool=lambda layout: partial(
            make_mosaic_scoring_tool,
            store,
            blocks,
            on_grid,
            portable_name(bundle),
            "cuda" if config.kind == "cuda" else "auto",
            precision,
        ),
        items=((block.name, block.index) for block in blocks),
        total=len(blocks),
        ledger=ledger,
        in_flight=config.in_flight,
        retries=2,
        reporter=current_reporter(),
    )
    if result.failed:
        raise FailedBlocksError(result.failed, total=len(blocks), directory=directory.path, again="again")
    found = {"mosaic": Confusion(), "tiles": Confusion()}
    for entry in ledger.entries("done"):
        for name in found:
            tp, fp, fn, tn = entry.facts[name]
            found[name] += Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
    score = MosaicScore(
        mosaic=found["mosaic"],
        tiles=found["tiles"],
        unlabelled=1 - found["mosaic"].total / (store.height * store.width),
    )
    current_reporter().end(f"F1 {score.mosaic.f1:.3f} as a mosaic, {score.tiles.f1:.3f} tile by tile")
    return score


def _values(reader: GridReader, store: RunStore) -> dict[float, int]:
    total: dict[float, int] = {}
    for y in range(0, store.height, store.block):
        rows = slice(y, min(y + store.block, store.height))
        image, known = reader.read(rows=rows, cols=slice(0, store.width))
        for value, count in histogram(image[0][known]).items():
            total[value] = total.get(value, 0) + count
    return total
