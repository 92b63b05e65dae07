"""What the plans of a pair and of an archive share: types, resolutions, geometry and cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from dasnet.prediction.header import Band
from flows.cluster.layout import planned_layout
from flows.inference.model import Model
from flows.inference.request import ComputationRequest, InferenceRequest
from storage.errors import InputError
from storage.geometry import metres_a_pixel
from storage.imagery.description import encoding_words, scales_and_offsets
from storage.imagery.mosaics import Mosaic
from storage.imagery.value_checks import Sample, require_kept, require_values, scales_of, unlike
from storage.imagery.values import Encoding, any_declared, common_scale, require_quantised
from tiling.grid import BlockGrid, WindowLattice
from tiling.plan import Plan

_RESOLUTION_TOLERANCE = 1.5
"""Ratio to the bundle's ground resolution that is worth a warning: the network has never seen objects of that size."""


def encoding_of(
    request: ComputationRequest,
    dates: Sequence[tuple[Mosaic, Sequence[int]]],
    *,
    dtype: str,
    model: str,
    expected: Sequence[Band] = (),
    warnings: list[str],
) -> Encoding | None:
    """How the values of all dates are read; None = as they are stored.

    Args:
        dates: mosaics and the numbers (from 1) of their bands that are read.
        dtype: type that the model takes.
        model: how messages name it.
        expected: the bands of a bundle, in the order of the numbers.
        warnings: gets a line for whatever is converted.

    Raises:
        InputError: values that are not the model's, or dates whose scales contradict each other.
    """
    if request.values == "quantised":
        return _quantised(request, [mosaic for mosaic, _ in dates], dtype=dtype, model=model, warnings=warnings)
    described = [each for mosaic, numbers in dates for each in scales_of(mosaic, numbers)]
    scale, word = common_scale(described, request.values)
    is_declared = any(any_declared(bands) for _, _, bands in described)
    if request.values == "physical" and expected and dtype == "float32" and is_declared:
        scale = ((1.0, 0.0),) * len(expected)
        word = f"values are read as physical ones: {encoding_words(described[0][2])} in the files"
    known = [band.scale is not None for band in expected]
    if request.values != "stored" and expected and all(known):
        # both sides know what a number stands for
        own = tuple((float(band.scale or 1), float(band.offset or 0)) for band in expected)
        if is_declared and any(scales_and_offsets(bands) != own for _, _, bands in described):
            scale, word = own, f"values are read as the bundle's: {encoding_words(described[0][2])} in the files"
    if request.stretch is not None and scale is not None:
        raise InputError(f"--stretch is of stored values, but {word}: --values stored takes the numbers as they stand")
    encoding = Encoding(dtype=dtype, bands=scale, stretch=request.stretch)
    for mosaic, numbers in dates:
        sample = Sample(mosaic=mosaic, numbers=tuple(numbers))
        require_kept(sample, encoding)
        if expected:  # a method without training takes numbers as they are
            require_values(sample, encoding, model=model)
        if converted := encoding.words(mosaic.dtype):
            warnings.append(f"{mosaic.label}: {converted}")
        if expected and (strange := unlike(sample, encoding, [(b.mean, b.std) for b in expected])):
            warnings.append(strange)
    if word:
        warnings.append(word)
    is_plain = scale is None and request.stretch is None and all(mosaic.dtype == dtype for mosaic, _ in dates)
    return None if is_plain else encoding


def _quantised(
    request: ComputationRequest, mosaics: Sequence[Mosaic], *, dtype: str, model: str, warnings: list[str]
) -> Encoding:
    """int8 as AlphaEarth's embeddings have it; raises InputError where the mosaics or the model are others."""
    require_quantised(mosaics)
    if dtype != "float32":
        raise InputError(f"--values quantised makes float32 of {mosaics[0].label}, but {model} takes {dtype}")
    if request.stretch is not None:
        raise InputError("--values quantised and --stretch contradict each other: give one of them")
    encoding = Encoding(dtype="float32", quantised=True)
    warnings += [f"{mosaic.label}: {encoding.words(mosaic.dtype)}" for mosaic in mosaics]
    return encoding


def how_values_are_read(request: ComputationRequest, encoding: Encoding | None) -> dict[str, Any]:
    """What a key has of it: nothing where all is read as it is stored, so that former runs keep their keys."""
    said = request.said.to_dict()
    return {**({"said": said} if said else {}), **({} if encoding is None else {"encoding": encoding.to_dict()})}


def doubts_of(mosaics: Iterable[Mosaic], warnings: list[str]) -> None:
    """Add what was guessed when the headers were read."""
    warnings += [f"{mosaic.label}: {doubt}" for mosaic in mosaics for doubt in mosaic.doubts]


def compare_resolution(grid: GeoBox, bundle: Model, warnings: list[str]) -> None:
    """Add a warning where the grid's pixels are far larger or smaller than those that the bundle was trained on."""
    if bundle.resolution is None:
        return
    metres = metres_a_pixel(grid)
    ratio = metres / bundle.resolution
    if not 1 / _RESOLUTION_TOLERANCE <= ratio <= _RESOLUTION_TOLERANCE:
        warnings.append(
            f"the grid's pixels are about {metres:.3g} m, the bundle was trained at {bundle.resolution:g} m: "
            "expect worse results, or give --resolution"
        )


def plan_of(request: InferenceRequest, bundle: Model, grid: GeoBox, *, dates: int) -> Plan:
    """Geometry and cost of a series of `dates`; raises InputError where windows, overlap or precision do not fit."""
    window = request.window or bundle.window
    overlap = bundle.overlap(window) if request.overlap is None else request.overlap
    if overlap >= window:
        raise InputError(f"overlap {overlap} px must be less than the window, {window} px")
    if why := bundle.refusal(window):
        raise InputError(f"bundle {request.bundle} cannot look at windows of {window} px: {why}; --window says which")
    on_gpu = request.cluster.kind == "cuda"
    if why := bundle.refusal_of_precision(request.precision, window=window, on_gpu=on_gpu):
        raise InputError(f"bundle {request.bundle}: {why}")
    blocks = BlockGrid(height=grid.height, width=grid.width, size=request.block)
    layout = planned_layout(request.cluster, blocks=len(blocks))
    return Plan(
        blocks=blocks,
        lattice=WindowLattice(height=grid.height, width=grid.width, window=window, overlap=overlap),
        dates=dates,
        bands=len(bundle.band_names),
        itemsize=np.dtype(bundle.dtype).itemsize,
        workers=layout.workers,
        lanes=layout.lanes,
        model_bytes=bundle.lane_bytes,
    )
