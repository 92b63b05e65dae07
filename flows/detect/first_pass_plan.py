"""A first pass as it is planned: its method, what it reads, and what it cannot work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from dasnet.baselines.coarse import CELL, FACTOR, SHARE_SEEN
from dasnet.baselines.cva import Cva
from dasnet.baselines.embeddings import EMBEDDINGS
from dasnet.baselines.methods import UNTRAINED
from dasnet.baselines.reweighted import ChiSquared
from dasnet.baselines.statistics import Names
from dasnet.baselines.untrained import UntrainedMethod
from flows.detect.embeddings import embedding_pair, nodata_of_embeddings
from flows.detect.first_pass_rule import FirstPassRule
from flows.detect.request import DetectRequest
from flows.inference.model import Model
from flows.inference.untrained_model import SHEET
from storage.errors import InputError
from storage.imagery.bands import common_bands
from storage.imagery.grids import require_overlap
from storage.imagery.headers.cache import HeaderCache
from storage.imagery.mosaics import Mosaic, open_mosaic
from storage.imagery.rasters import GridReader
from tiling.conventions import LOWEST_COMPUTED, changed_level
from tiling.grid import BlockGrid

_MOST_FITS = 10
"""Fits of an iterated method, each of which reads the pair: the order of cells hardly moves after the first few."""


def sheets_looked_at(*, height: int, width: int) -> BlockGrid:
    """The sheets of a first pass over a grid of so many pixels: whole cells."""
    return BlockGrid(height=height, width=width, size=SHEET * FACTOR)


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """What a first pass looks at.

    Attributes:
        method: without its own threshold, which says nothing here.
        names: of mosaics and bands, for messages.
        grid: of the run, in pixels.
        mosaics: those it looks at beside the pair, in time order; empty = at the pair.
        readers: of these mosaics, on a grid of coarse pixels.
    """

    rule: FirstPassRule
    method: UntrainedMethod
    names: Names
    height: int
    width: int
    mosaics: tuple[Mosaic, ...] = ()
    readers: tuple[GridReader, ...] = ()

    @property
    def cells(self) -> BlockGrid:
        """The lattice of cells, whatever the blocks are."""
        return BlockGrid(height=self.height, width=self.width, size=CELL)

    @property
    def sheets(self) -> BlockGrid:
        """What workers look at, one at a time."""
        return sheets_looked_at(height=self.height, width=self.width)

    @property
    def identity(self) -> dict[str, Any]:
        """What the choice depends on beside the pixels; JSON."""
        own = {"version": self.method.version, **self.method.parameters}
        read = [
            {"bands": list(reader.bands), **({"encoding": reader.encoding.to_dict()} if reader.encoding else {})}
            for reader in self.readers
        ]
        return {
            **self.rule.to_dict(),
            **own,
            "cell": CELL,
            "factor": FACTOR,
            "share_seen": SHARE_SEEN,
            **({"read": read} if read else {}),
        }


def plan_first_pass(
    request: DetectRequest,
    bundle: Model,
    mosaics: Sequence[Mosaic],
    bands: Sequence[Sequence[int]],
    grid: GeoBox,
    headers: HeaderCache,
    warnings: list[str],
) -> FirstPass | None:
    """The first pass that a request asks for, if any.

    Args:
        mosaics, bands: of the pair, and which bands (from 1) of each the bundle takes.
        headers: of mosaics of many files.

    Raises:
        InputError: a method without training has no network to spare, or embeddings that cannot be compared.
    """
    rule = request.first_pass_rule
    if rule is None:
        return None
    if bundle.kind != "bundle":
        raise InputError(
            f"--first-pass {request.first_pass} spares a network, and {request.bundle} is none: leave it out, or give "
            "a bundle"
        )
    if changed_level(bundle.threshold) <= LOWEST_COMPUTED:
        raise InputError(
            f"{request.bundle} calls changed what has a probability of {bundle.threshold:.4g}: below the lowest level "
            "that a run with --first-pass stores for what the network computed"
        )
    height, width = grid.shape
    if rule.takes_mosaics:
        return _of_embeddings(request, rule, grid, headers, warnings)
    before, after = (
        tuple(mosaic.band_names[number - 1] for number in numbers)
        for mosaic, numbers in zip(mosaics, bands, strict=True)
    )
    names = Names(before=mosaics[0].label, after=mosaics[1].label, bands_before=before, bands_after=after)
    method = UNTRAINED[rule.method]
    if isinstance(method, Cva):
        method = replace(method, threshold="unrelated")
    elif isinstance(method, ChiSquared):
        method = replace(method, threshold="chi2", most_fits=min(method.most_fits, _MOST_FITS))
    return FirstPass(rule=rule, method=method, names=names, height=height, width=width)


def _of_embeddings(
    request: DetectRequest, rule: FirstPassRule, grid: GeoBox, headers: HeaderCache, warnings: list[str]
) -> FirstPass:
    opened = []
    for spec in (request.first_pass_before, request.first_pass_after):
        assert spec is not None
        mosaic = open_mosaic(spec, kept=headers)
        silent = nodata_of_embeddings(mosaic, request.said)
        opened.append(mosaic if silent is None else open_mosaic(spec, silent, kept=headers))
    before, after = opened
    for mosaic in opened:
        require_overlap(mosaic, grid, "the run")
    numbers = common_bands(before, after, (None, None))
    pair = embedding_pair(EMBEDDINGS[rule.method], opened, numbers, values=None, resampled=True, warnings=warnings)
    height, width = grid.shape
    coarse = GeoBox((ceil(height / FACTOR), ceil(width / FACTOR)), grid.affine * Affine.scale(FACTOR), grid.crs)
    readers = tuple(
        GridReader(mosaic=mosaic, grid=coarse, bands=chosen, encoding=pair.encoding, resampling="average")
        for mosaic, chosen in zip(opened, numbers, strict=True)
    )
    bands_before, bands_after = (
        tuple(mosaic.band_names[number - 1] for number in chosen)
        for mosaic, chosen in zip(opened, numbers, strict=True)
    )
    return FirstPass(
        rule=rule,
        method=pair.method,
        names=Names(before=before.label, after=after.label, bands_before=bands_before, bands_after=bands_after),
        height=height,
        width=width,
        mosaics=tuple(opened),
        readers=readers,
    )
