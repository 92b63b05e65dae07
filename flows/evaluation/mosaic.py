"""Scores of a whole labelled mosaic: as `detect` blends it, and tile by tile, over the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dasnet.metrics import Confusion
from flows.evaluation.samples import Scoring
from flows.evaluation.tools import make_mosaic_scoring_tool
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer
from storage.datasets.label_values import coding_of, common_coding, histogram
from storage.datasets.scenes import label_on_grid
from storage.imagery.rasters import GridReader
from storage.stores.run_store import RunStore
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


def score_mosaic(scoring: Scoring, run: Path, label: Path) -> MosaicScore:
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
    make_tool = partial(make_mosaic_scoring_tool, store, blocks, on_grid)
    ledger = scoring.run("score mosaic", make_tool, [(block.name, block.index) for block in blocks])
    totals = {"mosaic": Confusion(), "tiles": Confusion()}
    for entry in ledger.entries("done"):
        for name in totals:
            totals[name] += Confusion.of(entry.facts[name])
    score = MosaicScore(
        mosaic=totals["mosaic"],
        tiles=totals["tiles"],
        unlabelled=1 - totals["mosaic"].total / (store.height * store.width),
    )
    current_observer().end(f"F1 {score.mosaic.f1:.3f} as a mosaic, {score.tiles.f1:.3f} tile by tile")
    return score


def _values(reader: GridReader, store: RunStore) -> dict[float, int]:
    total: dict[float, int] = {}
    for y in range(0, store.height, store.block):
        rows = slice(y, min(y + store.block, store.height))
        image, valid = reader.read(rows=rows, cols=slice(0, store.width))
        for value, count in histogram(image[0][valid]).items():
            total[value] = total.get(value, 0) + count
    return total
