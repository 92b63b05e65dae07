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
from storage.datasets.drawn_labels import is_drawn, read_polygons
from storage.datasets.label_options import LabelOptions
from storage.datasets.label_rules import LabelRule, rule_of
from storage.datasets.scenes import georeferenced_label, label_on_grid
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid


@dataclass(frozen=True, kw_only=True)
class MosaicScore:
    """What a bundle reaches on a whole mosaic.

    Attributes:
        mosaic: overlapping windows, blended: what `detect` delivers.
        tiles: each window by itself, side by side: how networks are usually scored.
        unlabelled: share of the mosaic's pixels that are not scored: no label, or nodata.
        rule: by which the label was read; None = polygons.
    """

    mosaic: Confusion
    tiles: Confusion
    unlabelled: float
    rule: LabelRule | None = None

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {
            "mosaic": self.mosaic.scores(),
            "tiles": self.tiles.scores(),
            "unlabelled": self.unlabelled,
            "label": None if self.rule is None else self.rule.to_dict(),
        }


def rule_of_label(label: Path, options: LabelOptions) -> LabelRule | None:
    """How a mosaic's label is read, by all of its values; None for polygons.

    Raises:
        InputError: it is unreadable, lies nowhere, or its values cannot be told.
    """
    path = str(label)
    if is_drawn(path):
        read_polygons(path)
        return None
    counts, _ = georeferenced_label(path).counts()
    return rule_of({path: counts}, options)


def score_mosaic(scoring: Scoring, run: Path, label: Path, rule: LabelRule | None) -> MosaicScore:
    """Score a finished run of detect.

    Args:
        rule: of the label, by :func:`rule_of_label`.

    Raises:
        InputError: a label that does not overlap the run.
        FailedBlocksError: blocks that could not be read.
    """
    store = RunStore(RunDirectory(run).store)
    on_grid = label_on_grid(str(label), store.grid, rule)
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
        rule=rule,
    )
    current_observer().end(f"F1 {score.mosaic.f1:.3f} as a mosaic, {score.tiles.f1:.3f} tile by tile")
    return score
