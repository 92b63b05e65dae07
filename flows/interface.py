"""The door for Python: open what a run has made, and make one, in a notebook or a script, without a server.

What is opened is lazy: pixels are read when they are asked for, so a region of any size can be opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.archive.directory import CELL_PRODUCTS, COLLECTION, CUBE, IMAGES, PAIR_PRODUCTS, TIMELINE, VERSIONS
from flows.dataset.directory import DatasetDirectory
from flows.detect.directory import PRODUCTS
from flows.run.directory import RunDirectory
from flows.run.observer import Observer, observed_by
from storage.errors import InputError
from storage.places.bucket import Location, location

if TYPE_CHECKING:
    import geopandas
    import pystac
    import xarray as xr


@dataclass(frozen=True)
class Run:
    """A run directory of :func:`detect` or ``dasnet detect``, on a disk or in a bucket."""

    path: Location

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All arrays of the run with their coordinates and CRS (``.rio.crs``)."""
        from storage.stores.run_store import RunStore

        return RunStore(RunDirectory(self.path).store).open()

    @property
    def probability(self) -> xr.DataArray:
        """(y, x) float: calibrated probability of change in [0, 1]; NaN where a date has no valid pixel."""
        return self.dataset["change_probability"].isel(interval=0)

    @property
    def images(self) -> xr.DataArray:
        """(time, band, y, x) in the mosaics' own type, on the run's grid; 0 where :attr:`valid` is False."""
        return self.dataset["image"]

    @property
    def valid(self) -> xr.DataArray:
        """(time, y, x) bool, True = valid."""
        return self.dataset["valid"]

    @property
    def changes(self) -> geopandas.GeoDataFrame:
        """Changed areas: ``geometry``, ``area_m2``, ``mean_probability``, ``max_probability``."""
        return _polygons(self.path / PRODUCTS["changes"])

    @property
    def report(self) -> Location:
        """The page for a person."""
        return self.path / PRODUCTS["report"]

    @property
    def item(self) -> pystac.Item:
        """The STAC item: inputs, bundle, parameters, checksums."""
        import pystac

        return pystac.Item.from_dict(_json(self.path / PRODUCTS["item"]))


@dataclass(frozen=True)
class ArchiveVersion:
    """What one bundle made of an archive: a directory ``ARCHIVE/versions/VERSION`` of ``dasnet reprocess``."""

    path: Path

    @property
    def probability(self) -> xr.DataArray:
        """(time, y, x) float in [0, 1], NaN = nodata; ``time``, ``start`` and ``end`` of each pair."""
        import rioxarray  # noqa: F401  registers the .rio accessor
        import xarray as xr

        return xr.open_zarr(self.path / CUBE, decode_coords="all")["change_probability"]

    @property
    def images(self) -> xr.DataArray:
        """(time, band, y, x) of all dates that were compared, on the archive's grid, in their own type."""
        import rioxarray  # noqa: F401  registers the .rio accessor
        import xarray as xr

        stores = sorted((self.path.parents[1] / IMAGES).glob("*.zarr"))
        dates = [xr.open_zarr(store, chunks={}, decode_coords="all")["image"] for store in stores]
        return xr.concat(dates, dim="time")

    @property
    def changes(self) -> geopandas.GeoDataFrame:
        """Changed areas of all pairs as of :attr:`Run.changes`, with the ``pair`` and the ``cell`` of each."""
        import geopandas
        import pandas

        parts = [
            _polygons(file).assign(pair=file.parent.name, cell=file.parents[1].name)
            for file in sorted(self.path.glob(f"cells/*/*/{PAIR_PRODUCTS['changes']}"))
        ]
        return geopandas.GeoDataFrame(pandas.concat(parts, ignore_index=True), crs=parts[0].crs)

    @property
    def maps(self) -> dict[str, list[Path]]:
        """Rasters over all pairs, one a cell: ``peak``, the highest probability; ``first``, the day (YYYYMMDD)."""
        return {name: sorted(self.path.glob(f"cells/*/{file}")) for name, file in CELL_PRODUCTS.items()}

    @property
    def report(self) -> Path:
        """The timeline, a page for a person."""
        return self.path / TIMELINE

    @property
    def item(self) -> pystac.Collection:
        """The STAC collection of an item for each pair and cell."""
        import pystac

        return pystac.Collection.from_file(str(self.path / COLLECTION))


@dataclass(frozen=True)
class Dataset:
    """A directory of ``dasnet prepare``: labelled samples."""

    path: Path

    @cached_property
    def samples(self) -> xr.Dataset:
        """``before``, ``after`` (sample, band, y, x), ``valid``, ``label`` (1 changed, 255 ignored), ``split``."""
        from storage.datasets.store import open_dataset

        return open_dataset(self.path).open()

    @property
    def images(self) -> xr.DataArray:
        """(date, sample, band, y, x) in the scenes' own type."""
        import xarray as xr

        dates = [self.samples[name].chunk() for name in ("before", "after")]
        return xr.concat(dates, dim="date").assign_coords(date=["before", "after"])

    @property
    def report(self) -> Path:
        """The page for a person."""
        return DatasetDirectory(self.path).report


def open_run(directory: str | Path) -> Run | ArchiveVersion | Dataset:
    """What lies in a directory: a run, an archive's version (of an archive with one version, it), or a dataset.

    Args:
        directory: a path, or of a run also ``s3://bucket/prefix``.

    Raises:
        InputError: it is none of these, or an archive with several versions, which the message names.
    """
    place = location(str(directory))
    if (place / "run.zarr").exists() or (place / PRODUCTS["probability"]).exists():
        return Run(place)
    if isinstance(place, Path):
        if DatasetDirectory(place).store.exists():
            return Dataset(place)
        if place.parent.name == VERSIONS and (place / CUBE).exists():
            return ArchiveVersion(place)
        versions = sorted(path.parent for path in place.glob(f"{VERSIONS}/*/{CUBE}"))
        if len(versions) == 1:
            return ArchiveVersion(versions[0])
        if versions:
            raise InputError(f"{place} has several versions: open one of {', '.join(map(str, versions))}")
    raise InputError(f"{place} holds no run, no finished version of an archive and no dataset")


def detect(before: Any, after: Any, *, output: Any, observer: Observer | None = None, **settings: Any) -> Run:
    """Two mosaics in, a finished run out; the same call goes on with one that was interrupted.

    Args:
        before, after: a raster file or URL, a folder, a glob, a ``.txt`` list, a Zarr group, or a list of files.
        output: the run directory.
        observer: who is told how far it is; None = this terminal, or notebook.
        settings: fields of :class:`~flows.detect.request.DetectRequest`, as in ``bundle="water-extent"``,
            ``grid={"resolution": 1.0}``, ``cluster={"workers": 2}``.

    Raises:
        pydantic.ValidationError: a setting that does not exist or cannot be.
        InputError, BundleError, ClusterError, RefusedPlanError: what cannot work, before anything starts.
        PlanningError: planning failed in a way that is not foreseen; its cause is what was raised.
        FailedBlocksError: blocks are in quarantine; all others are finished.
    """
    from flows.detect.job import resolve
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection
    from flows.run.context import already_planned
    from flows.run.planning import planning
    from flows.run.terminal import TerminalObserver
    from storage.places.publish import claim_directory

    paths = {name: str(mosaic) if isinstance(mosaic, Path) else mosaic for name, mosaic in _pair(before, after)}
    request = DetectRequest.model_validate({**paths, "output": output, **settings})
    with planning(request):
        job = resolve(request)
    claim_directory(request.output)
    terminal = TerminalObserver()
    try:
        with observed_by(observer or terminal), already_planned(request, job):
            run_detection(request)
    finally:
        terminal.close()
    return Run(request.output)


def _pair(before: Any, after: Any) -> list[tuple[str, Any]]:
    return [
        (name, [str(file) for file in mosaic] if isinstance(mosaic, list | tuple) else mosaic)
        for name, mosaic in (("before", before), ("after", after))
    ]


def _polygons(file: Location) -> geopandas.GeoDataFrame:
    import geopandas

    with file.open("rb") as opened:
        return geopandas.read_parquet(opened)


def _json(file: Location) -> dict[str, Any]:
    import json

    return dict(json.loads(file.read_text()))
