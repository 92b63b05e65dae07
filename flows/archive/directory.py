"""Where an archive keeps what: images once, pairs by version, products by cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.archive.job import ArchiveJob, DatedImage, Pair
from flows.run.directory import RunDirectory, require_alike
from tiling.grid import Cell

if TYPE_CHECKING:  # a plan looks at paths alone
    from storage.stores.by_name import ImagesByDate, PairView, ProbabilitiesByPair
    from storage.stores.run_store import RunStore

VERSIONS, IMAGES, PAIRS, CELLS = "versions", "images", "pairs", "cells"
"""Folders: of an archive the first two, of a version the others."""

CUBE, COLLECTION, TIMELINE = "cube.zarr", "collection.json", "timeline.html"
"""What a version has of all cells together."""

LOOK = ".look.npz"
"""In the place of a store's suffix: what the timeline shows of it, small."""

PAIR_PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "item": "item.json",
}
"""What a pair has in each cell."""

CELL_PRODUCTS = {"peak": "peak_probability.tif", "first": "first_change.tif"}
"""What a cell has over all pairs."""


class ArchiveDirectory:
    """``DIR/images/`` and its ledger, and ``DIR/versions/VERSION/`` with pairs, cells and products."""

    def __init__(self, job: ArchiveJob) -> None:
        self.job = job
        self.root = RunDirectory(job.request.output)
        self.version = RunDirectory(job.request.output / VERSIONS / job.version)
        self._cells: dict[str, RunDirectory] = {}

    def image_path(self, image: DatedImage) -> Path:
        """Where a date's store is, or will be."""
        return self.root.path / IMAGES / f"{image.name}.zarr"

    def pair_path(self, pair: Pair) -> Path:
        """Where a pair's store is, or will be."""
        return self.version.path / PAIRS / f"{pair.name}.zarr"

    def image_store(self, image: DatedImage) -> RunStore:
        """A date's pixels."""
        from storage.stores.run_store import RunStore

        return RunStore(self.image_path(image))

    def pair_store(self, pair: Pair) -> RunStore:
        """A pair's probabilities."""
        from storage.stores.run_store import RunStore

        return RunStore(self.pair_path(pair))

    def cell(self, cell: Cell) -> RunDirectory:
        """A cell's ledger, and the folders of its pairs."""
        if cell.name not in self._cells:
            self._cells[cell.name] = RunDirectory(self.version.path / CELLS / cell.name)
        return self._cells[cell.name]

    def products(self, cell: Cell, pair: Pair) -> RunDirectory:
        """Of one pair in one cell."""
        return RunDirectory(self.cell(cell).path / pair.name)

    def view(self, cell: Cell, pair: Pair) -> PairView:
        """A pair's images and probabilities in one cell, as if they were a run's."""
        from storage.stores.by_name import PairView

        return PairView(
            probability=self.pair_store(pair),
            images=(self.image_store(pair.earlier), self.image_store(pair.later)),
            rows=cell.box.rows,
            cols=cell.box.cols,
        )

    @property
    def executions(self) -> dict[str, dict[str, Any]]:
        """By pair: the arithmetic that all of its blocks are computed with."""
        described = self.version.describe() or {}
        # of a version that was begun when all of its pairs had to have one
        one = {pair.name: described["execution"] for pair in self.job.pairs if "execution" in described}
        return {**one, **described.get("executions", {})}

    def require_execution(
        self, pairs: Collection[str], execution: Mapping[str, Any], *, fresh: set[str]
    ) -> Mapping[str, Any]:
        """Note the arithmetic that fresh pairs are begun with; refuse to go on otherwise with others.

        Args:
            fresh: pairs without a finished block; those that are noted are taken out, being begun now.

        Returns:
            `execution`, which a worker that joins later must have as well.

        Raises:
            DifferentRunError: naming a pair and what changed.
        """
        known = self.executions
        begun = fresh & set(pairs)
        for name in set(pairs) - begun:
            require_alike(name, known.get(name, {}), execution)
        self.version.update(executions={**known, **{name: dict(execution) for name in begun}})
        fresh -= begun
        return execution

    @property
    def images(self) -> ImagesByDate:
        """All dates, by name."""
        from storage.stores.by_name import ImagesByDate

        return ImagesByDate(stores={image.name: self.image_store(image) for image in self.job.images})

    @property
    def probabilities(self) -> ProbabilitiesByPair:
        """All pairs, by name."""
        from storage.stores.by_name import ProbabilitiesByPair

        return ProbabilitiesByPair(stores={pair.name: self.pair_store(pair) for pair in self.job.pairs})
