"""A method without training in a bundle's place, chosen for the bands of two mosaics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from odc.geo.geobox import GeoBox

from dasnet.baselines.embeddings import EmbeddingDistance
from dasnet.baselines.methods import untrained_named
from dasnet.baselines.statistics import Names
from flows.detect.embeddings import embedding_pair, is_embedding
from flows.detect.request import DetectRequest
from flows.inference.untrained_model import UntrainedModel
from storage.errors import InputError
from storage.imagery.bands import common_bands, require_one_meaning
from storage.imagery.grids import needs_resampling
from storage.imagery.mosaics import Mosaic
from storage.imagery.values import Encoding, working_type


def choose_untrained(
    request: DetectRequest, mosaics: Sequence[Mosaic], warnings: list[str]
) -> tuple[UntrainedModel, list[tuple[int, ...]]]:
    """The method of a request, and the bands (from 1) of either mosaic.

    Raises:
        InputError: mosaics of different types, no common bands, or an option that says nothing to a method.
        PredictorError: a threshold that the method cannot take.
    """
    network_options = {
        "--window": request.window,
        "--overlap": request.overlap,
        "--batch": request.batch,
        "--compile": request.compile or None,
        "--precision": None if request.precision == "auto" else request.precision,
    }
    if options := [f"{option} {value}" for option, value in network_options.items() if value is not None]:
        raise InputError(f"{request.bundle} has no network, so {', '.join(options)} means nothing to it: leave it out")
    method = untrained_named(request.bundle, threshold=request.threshold)
    before, after = mosaics
    embeddings = is_embedding(method.name)
    if embeddings and request.stretch is not None:
        low, high = request.stretch
        raise InputError(f"--stretch {low:g},{high:g} would bend the vectors that {method.name} compares: leave it out")
    if not (embeddings or _alike(before, after) or request.stretch or request.values):
        raise InputError(
            f"{before.label} holds {before.dtype}, but {after.label} holds {after.dtype}: rescale one of them, or say "
            "--values stored where the same number means the same in both, --values physical where one is what the "
            "scale and offset of the other make of its numbers"
        )
    numbers = common_bands(before, after, request.bands_of_each)
    if request.bands is not None and not (request.before_bands or request.after_bands):
        instead = "say with --before-bands and --after-bands which ones to compare"
        require_one_meaning(mosaics, numbers, option="--bands", instead=instead)
    left_out = [
        f"{band} of {mosaic.label}"
        for mosaic, compared in zip(mosaics, numbers, strict=True)
        for number, band in enumerate(mosaic.band_names, start=1)
        if request.bands_of_each == (None, None) and number not in compared
    ]
    if left_out:
        warnings.append(f"bands that only one date has are left out: {', '.join(left_out)}")
    bands_before, bands_after = (
        tuple(mosaic.band_names[number - 1] for number in compared)
        for mosaic, compared in zip(mosaics, numbers, strict=True)
    )
    unique = bands_before if len(set(bands_before)) == len(bands_before) else [f"band{n}" for n in numbers[0]]
    model = UntrainedModel(
        method=method,
        names=Names(before=before.label, after=after.label, bands_before=bands_before, bands_after=bands_after),
        band_names=tuple(unique),
        dtype=working_type([mosaic.dtype for mosaic in mosaics]) if request.stretch is None else "uint8",
    )
    return model, list(numbers)


def as_embeddings(
    model: UntrainedModel,
    request: DetectRequest,
    mosaics: Sequence[Mosaic],
    numbers: Sequence[Sequence[int]],
    grid: GeoBox,
    warnings: list[str],
) -> tuple[UntrainedModel, Encoding | None]:
    """The model of a method that compares embeddings, and how their numbers are read; raises InputError."""
    assert isinstance(model.method, EmbeddingDistance)
    pair = embedding_pair(
        model.method,
        mosaics,
        numbers,
        values=request.values,
        resampled=any(needs_resampling(mosaic, grid) for mosaic in mosaics),
        warnings=warnings,
    )
    if pair.encoding is not None:
        words = [(mosaic.label, pair.encoding.words(mosaic.dtype)) for mosaic in mosaics]
        warnings += [f"{label}: {converted}" for label, converted in words if converted]
    return replace(model, method=pair.method, dtype=pair.dtype), pair.encoding


def _alike(before: Mosaic, after: Mosaic) -> bool:
    """Whether numbers of the two can be compared: one type, two of the same width, or scales that both declare."""
    one, other = np.dtype(before.dtype), np.dtype(after.dtype)
    declared = [all(band.scale != 1 or band.offset for band in mosaic.bands) for mosaic in (before, after)]
    is_integer = [kind.kind != "f" for kind in (one, other)]
    return (
        one == other
        or all(declared)
        or is_integer == [False, False]
        or (all(is_integer) and one.itemsize == other.itemsize)
    )
