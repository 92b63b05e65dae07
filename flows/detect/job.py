"""From a request to a job: headers are read, everything that can be refused is refused, the cost is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from flows.cluster.layout import planned_layout
from flows.detect.embeddings import is_embedding, is_precomputed, nodata_of_embeddings, unit_vectors
from flows.detect.first_pass_plan import FirstPass, plan_first_pass
from flows.detect.request import DetectRequest
from flows.detect.untrained import as_embeddings, choose_untrained
from flows.inference.model import BundleModel, Model, bundle_model
from flows.inference.planned import PlannedSeries
from flows.inference.planning import compare_resolution, doubts_of, encoding_of, how_values_are_read, plan_of
from flows.inference.untrained_model import UntrainedModel, is_untrained
from flows.run.directory import RunDirectory
from flows.run.fields import MosaicSpec
from flows.run.limits import limits
from flows.run.quantities import volume
from storage.errors import InputError
from storage.geometry import grid_facts
from storage.imagery.bands import require_one_meaning, select_bands, taken_by_position
from storage.imagery.dates.acquisition import naive_utc
from storage.imagery.description import Overrides
from storage.imagery.grids import common_grid, needs_resampling, transformation_notes
from storage.imagery.headers.cache import HeaderCache
from storage.imagery.mosaics import Mosaic, open_mosaic
from storage.imagery.rasters import GridReader
from storage.imagery.summary import read_in_words
from storage.places.bucket import ObjectPath
from storage.places.publish import free_bytes, require_free_space, scratch_of
from storage.regions import region_text
from storage.stores.date_names import date_name
from tiling.carrying import chain_order
from tiling.plan import Plan
from tiling.worker import SeriesTask


@dataclass(frozen=True, kw_only=True)
class Job(PlannedSeries):
    """A request whose inputs fit together.

    Attributes:
        mosaics: one for each date, in time order.
        readers: readers of the mosaics on `grid`, with the bundle's bands.
        times: one naive UTC datetime for each date; days from 1970-01-01 on where `dates_known` is False.
        headers: of mosaics of many files, to be kept in the run's directory once it is this run's.
        first_pass: what chooses the cells that the network computes; None = it computes all.
    """

    request: DetectRequest
    mosaics: tuple[Mosaic, ...]
    readers: tuple[GridReader, ...]
    times: tuple[datetime, ...]
    dates_known: bool
    headers: HeaderCache
    first_pass: FirstPass | None = None

    @cached_property
    def dates(self) -> tuple[str, ...]:
        """Names of the dates in the run's store and ledgers."""
        return tuple(date_name(index) for index in range(len(self.mosaics)))

    @property
    def method(self) -> UntrainedModel | None:
        """The method without training that stands in a bundle's place, if any: its statistics are a stage."""
        return self.bundle if isinstance(self.bundle, UntrainedModel) else None

    def tasks(self) -> Iterator[tuple[str, SeriesTask]]:
        """Every block with the one pair that a run has, by the block's name, chain after chain."""
        # the store calls an interval by the date that it begins with
        pairs = ((0, 1, self.dates[0]),)
        ordered = (self.blocks[index] for index in chain_order(self.blocks))
        return ((block.name, SeriesTask(block=block.index, dates=self.dates, pairs=pairs)) for block in ordered)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What the probability depends on beside inputs, grid and bundle; a method's own parameters too."""
        return {
            "bands": [list(reader.bands) for reader in self.readers],
            **how_values_are_read(self.request, self.readers[0].encoding),
            "resampling": self.request.resampling,
            "block": self.blocks.size,
            "window": self.lattice.window,
            "overlap": self.lattice.overlap,
            "dates": [time.isoformat() for time in self.times],
            **self.bundle.parameters(self.request.precision),
            **({"first_pass": self.first_pass.identity} if self.first_pass else {}),
        }

    @property
    def inputs(self) -> tuple[Mosaic, ...]:
        """All mosaics that decide the result: of both dates, and those that a first pass looks at."""
        return (*self.mosaics, *(self.first_pass.mosaics if self.first_pass else ()))

    def identity(self, digests: Sequence[str]) -> dict[str, Any]:
        """Everything that decides the result; what people call mosaics and bundle does not.

        Args:
            digests: SHA-256 of each of :attr:`inputs`.
        """
        return {
            "inputs": [{"sha256": sha256} for sha256 in digests[: len(self.mosaics)]],
            **({"first_pass_inputs": list(beside)} if (beside := digests[len(self.mosaics) :]) else {}),
            "grid": {
                **grid_facts(self.grid),
                "region": None if self.request.grid.region is None else region_text(self.request.grid.region),
            },
            "bundle": {"sha256": self.bundle.digest},
            "parameters": self.parameters,
        }

    def describe(self) -> list[tuple[str, str]]:
        """The plan as (what, how much) lines for a person."""
        plan = self.plan
        resampled = [mosaic.label for mosaic in self.mosaics if needs_resampling(mosaic, self.grid)]
        before, after = (
            f"{mosaic.label} ({time:%Y-%m-%d})" if self.dates_known else mosaic.label
            for mosaic, time in zip(self.mosaics, self.times, strict=True)
        )
        return [
            ("before", before),
            ("read as", read_in_words(self.readers[0])),
            ("after", after),
            ("read as", read_in_words(self.readers[1])),
            self.grid_line,
            ("resampled", ", ".join(resampled) if resampled else "nothing, the grids agree"),
            (
                self.bundle.kind,
                f"{self.request.bundle}, bands {', '.join(self.bundle.band_names)}",
            ),
            ("blocks", f"{len(plan.blocks):,} of {plan.blocks.size} px"),
            (
                "windows",
                f"{plan.windows_computed:,} of {plan.lattice.window} px, neighbours share {plan.lattice.overlap} px",
            ),
            ("reads", f"{volume(plan.bytes_in)} of imagery and masks, uncompressed"),
            ("writes", f"{volume(plan.bytes_out)} of probability; at most {volume(plan.disk_bytes)} on disk"),
            (
                "workers",
                f"{plan.workers} × {plan.lanes} blocks at a time, about {volume(plan.worker_bytes)} each"
                + (", or more if more workers join" if self.request.cluster.is_running else ""),
            ),
            *(
                [("first pass", f"{self.first_pass.rule.words} are looked at; times are of all")]
                if self.first_pass
                else []
            ),
            *self.precision_lines,
            *self.time_lines(plan.expected_seconds),
        ]


def resolve(request: DetectRequest) -> Job:
    """Open headers, find the common grid, match bands with the bundle, count the cost.

    Raises:
        InputError, BundleError, ClusterError, RefusedPlanError: what cannot work, with the values that clash.
    """
    planned_layout(request.cluster)
    warnings: list[str] = []
    network = None if is_untrained(request.bundle) else bundle_model(request.bundle)
    embeddings = is_embedding(request.bundle) if network is None else is_precomputed(network)
    # a bucket that does not answer would hold up a plan
    headers = HeaderCache(None if isinstance(request.output, ObjectPath) else RunDirectory(request.output).headers)
    before, after = (
        # a date that is given needs none in the name
        _opened(
            spec,
            replace(request.said, date_pattern=None if date else request.date_pattern),
            headers,
            embeddings=embeddings,
        )
        for spec, date in ((request.before, request.before_date), (request.after, request.after_date))
    )
    mosaics = (before, after)
    doubts_of(mosaics, warnings)
    extent = request.grid
    common = partial(common_grid, crs=extent.crs, resolution=extent.resolution, bbox=extent.bbox, region=extent.region)
    bundle: Model
    if network is None:
        bundle, bands = choose_untrained(request, mosaics, warnings)
    else:
        bundle, bands = network, _bands_for(network, request, mosaics, warnings)
    if isinstance(bundle, UntrainedModel) and is_embedding(request.bundle):
        bundle, encoding = as_embeddings(bundle, request, mosaics, bands, common(mosaics), warnings)
    elif embeddings and request.values in (None, "quantised"):
        encoding = unit_vectors(request.bundle, mosaics, bands, warnings)
    else:
        encoding = encoding_of(
            request,
            list(zip(mosaics, bands, strict=True)),
            dtype=bundle.dtype,
            model=f"{bundle.kind} {request.bundle}",
            expected=() if network is None else network.bands,
            warnings=warnings,
        )
    grid = common(mosaics)
    warnings += transformation_notes(mosaics, grid)
    readers = tuple(
        GridReader(
            mosaic=mosaic,
            grid=grid,
            bands=numbers,
            encoding=encoding,
            resampling=request.resampling,
            region=extent.region,
        )
        for mosaic, numbers in zip(mosaics, bands, strict=True)
    )
    first_pass = plan_first_pass(request, bundle, mosaics, bands, grid, headers, warnings)
    times, dates_known = _times(request, mosaics, warnings)
    compare_resolution(grid, bundle, warnings)
    warnings += bundle.notes
    plan = plan_of(request, bundle, grid, dates=2)
    if isinstance(request.output, ObjectPath):
        # products but the COG are drafted here before they are uploaded
        require_free_space(scratch_of(request.output), plan.bytes_out)
    plan.require(
        free_disk=None if isinstance(request.output, ObjectPath) else _disk_for(request.output, plan),
        memory=limits().free_memory if request.cluster.kind == "local" else None,
    )
    return Job(
        request=request,
        mosaics=mosaics,
        readers=readers,
        bundle=bundle,
        grid=grid,
        times=times,
        dates_known=dates_known,
        headers=headers,
        first_pass=first_pass,
        plan=plan,
        warnings=tuple(warnings),
    )


def _opened(spec: MosaicSpec, said: Overrides, headers: HeaderCache, *, embeddings: bool) -> Mosaic:
    mosaic = open_mosaic(spec, said, kept=headers)
    if embeddings and (silent := nodata_of_embeddings(mosaic, said)):
        return open_mosaic(spec, silent, kept=headers)
    return mosaic


def _bands_for(
    bundle: BundleModel, request: DetectRequest, mosaics: tuple[Mosaic, ...], warnings: list[str]
) -> list[tuple[int, ...]]:
    if request.threshold is not None:
        raise InputError(
            f"--threshold {request.threshold} is for a method without training: {request.bundle} has its own, "
            f"{bundle.threshold:.4g}, from its validation"
        )
    explicit = request.bands_of_each
    own_options = (request.before_bands and "--before-bands", request.after_bands and "--after-bands")
    options = [own or "--bands" for own in own_options]
    numbers = [
        select_bands(mosaic, bundle.band_names, own, option=option)
        for mosaic, own, option in zip(mosaics, explicit, options, strict=True)
    ]
    for mosaic, own, chosen, option in zip(
        mosaics, explicit, numbers, ("--before-bands", "--after-bands"), strict=True
    ):
        if own is None and (word := taken_by_position(mosaic, bundle.band_names, chosen, option=option)):
            warnings.append(word)
    if request.bands is not None and not any(own_options):
        instead = "say with --before-bands and --after-bands which ones to use of each"
        require_one_meaning(mosaics, numbers, option="--bands", instead=instead)
    return numbers


def _disk_for(output: Path, plan: Plan) -> int:
    """Bytes on the disk of a run directory that the run may have: free ones, and those of its finished blocks."""
    free = free_bytes(output.resolve())
    if free >= plan.disk_bytes:
        return free
    directory, blocks = RunDirectory(output), len(plan.blocks)
    ingested = directory.ledger("ingest").count("done") / (plan.dates * blocks)
    inferred = directory.ledger("infer").count("done") / blocks
    return free + round(ingested * plan.bytes_in + inferred * plan.bytes_out)


def _times(
    request: DetectRequest, mosaics: tuple[Mosaic, ...], warnings: list[str]
) -> tuple[tuple[datetime, ...], bool]:
    """A date for each mosaic, and whether it is known; days from 1970-01-01 on where one is not, or they contradict."""
    options = (request.before_date, request.after_date)
    dates = [option or mosaic.date for option, mosaic in zip(options, mosaics, strict=True)]
    placeholders = tuple(datetime(1970, 1, 1 + index) for index in range(len(dates)))
    times = tuple(naive_utc(date) for date in dates if date is not None)
    warnings += [
        f"{mosaic.label}: {mosaic.acquired.doubt}; give {name}, or --date-pattern, to settle it"
        for mosaic, option, name in zip(mosaics, options, ("--before-date", "--after-date"), strict=True)
        if option is None and mosaic.acquired.doubt
    ]
    if len(times) < len(dates):
        undated = ", ".join(mosaic.label for mosaic, date in zip(mosaics, dates, strict=True) if date is None)
        warnings.append(
            f"no date is known of {undated}: give --before-date and --after-date to have it in the products"
        )
        return placeholders, False
    if times[0] < times[-1]:
        return times, True
    before, after = f"{times[0]:%Y-%m-%d}", f"{times[-1]:%Y-%m-%d}"
    if None not in options:
        raise InputError(f"--before-date {before} must be earlier than --after-date {after}")
    warnings.append(
        f"by its name or header {mosaics[0].label} ({before}) is not older than {mosaics[-1].label} ({after}): give "
        "--before-date and --after-date to set this right"
    )
    return placeholders, False
