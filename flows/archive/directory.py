"""The directory of an archive: images once, pairs by version, products by cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.archive.job import IMAGES, ArchiveJob, DatedImage, Pair
from flows.run.directory import RunDirectory, require_alike
from tiling.grid import Cell

if TYPE_CHECKING:  # a plan needs the paths alone, and must not import Zarr
    from storage.stores.by_name import ImagesByDate, PairView, ProbabilitiesByPair
    from storage.stores.run_store import RunStore

VERSIONS, PAIRS, CELLS = "versions", "pairs", "cells"
"""Folders: the first is that of an archive, beside its images; the others are those of a version."""

CUBE, COLLECTION, TIMELINE = "cube.zarr", "collection.json", "timeline.html"
"""Products of a version over all of its cells."""

LOOK = ".look.npz"
"""Ending, in the place of a store's ``.zarr``, of the file with the thumbnail that the timeline shows."""

PAIR_PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "item": "item.json",
}
"""Products of a pair in each cell."""

CELL_PRODUCTS = {"peak": "peak_probability.tif", "first": "first_change.tif"}
"""Products of a cell over all pairs."""


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

    def image_names(self, start: str = "") -> list[str]:
        """Names of the dates' stores on disk that begin with `start`."""
        return sorted(path.stem for path in (self.root.path / IMAGES).glob(f"{start}*.zarr"))

    def pair_names(self, start: str) -> list[str]:
        """Names of the pairs' stores on disk that begin with `start`."""
        return sorted(path.stem for path in (self.version.path / PAIRS).glob(f"{start}*.zarr"))

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
        """The folder with the products of one pair in one cell."""
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
        """The arithmetic that all blocks of a pair are computed with, by the pair's name."""
        record = self.version.describe() or {}
        # a version that an earlier release began has one arithmetic for all of its pairs
        shared = {pair.name: record["execution"] for pair in self.job.pairs if "execution" in record}
        return {**shared, **record.get("executions", {})}

    def require_execution(
        self, pairs: Collection[str], execution: Mapping[str, Any], *, fresh: set[str]
    ) -> Mapping[str, Any]:
        """Record the arithmetic that fresh pairs are begun with; refuse to go on with another one for other pairs.

        Args:
            fresh: pairs without a finished block; those that are begun now are taken out.

        Returns:
            `execution`, which a worker that joins later must have as well.

        Raises:
            DifferentRunError: naming a pair and what changed.
        """
        recorded = self.executions
        begun = fresh & set(pairs)
        for name in set(pairs) - begun:
            require_alike(name, recorded.get(name, {}), execution)
        self.version.update(executions={**recorded, **{name: dict(execution) for name in begun}})
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
