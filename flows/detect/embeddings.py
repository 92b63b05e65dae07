"""Mosaics of precomputed embeddings: how their numbers are read, and what of them cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dasnet.baselines.embeddings import EMBEDDINGS, LENGTH_RATIO, EmbeddingDistance, require_one_scale
from dasnet.baselines.statistics import Names
from dasnet.errors import DegenerateStatisticsError
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.header import BundleHeader
from storage.errors import InputError
from storage.imagery.description import Overrides, encoding_words
from storage.imagery.mosaics import Mosaic
from storage.imagery.value_checks import Sample
from storage.imagery.values import Encoding, any_declared
from tiling.conventions import QUANTISED_NODATA, Values

_FEWEST_BANDS = 2


@dataclass(frozen=True, kw_only=True)
class EmbeddingPair:
    """Two dates of embeddings, how they are read, and by which method they are compared.

    Attributes:
        dtype: what is stored and handed to the method: int8 where that is what both hold, else float32.
        encoding: how values are read; None = as they are stored.
        method: with the quantisation and the usual length of these vectors.
    """

    dtype: str
    encoding: Encoding | None
    method: EmbeddingDistance


def is_embedding(method: str) -> bool:
    """Whether a method compares embeddings."""
    return method in EMBEDDINGS


def is_precomputed(bundle: BundleHeader) -> bool:
    """Whether a bundle has the calibration of embeddings that are there already, and no network."""
    return isinstance(bundle.architecture, PrecomputedArchitecture)


def unit_vectors(
    bundle: str, mosaics: Sequence[Mosaic], numbers: Sequence[Sequence[int]], warnings: list[str]
) -> Encoding | None:
    """How embeddings are read for a bundle that was calibrated on them: always as values, in float32.

    Raises:
        InputError: as :func:`embedding_pair`.
    """
    method = EMBEDDINGS["embedding-cosine"]  # a bundle brings vectors to length 1, whatever its measure
    pair = embedding_pair(method, mosaics, numbers, values=None, resampled=True, warnings=warnings)
    if pair.encoding is not None:
        words = [(mosaic.label, pair.encoding.words(mosaic.dtype)) for mosaic in mosaics]
        warnings += [f"{label}: {converted}, for {bundle}" for label, converted in words if converted]
    return pair.encoding


def nodata_of_embeddings(mosaic: Mosaic, said: Overrides) -> Overrides | None:
    """What is to be said of a mosaic of int8 that declares no nodata: -128 is none in quantised embeddings.

    None = nothing, the file says it, or the user.
    """
    rules = [source.validity for source in mosaic.sources]
    silent = all(rule is None or rule.says_nothing for rule in rules)
    if mosaic.dtype != "int8" or said.nodata is not None or not silent or any_declared(mosaic.bands):
        return None
    return replace(said, nodata=QUANTISED_NODATA)


def embedding_pair(
    method: EmbeddingDistance,
    mosaics: Sequence[Mosaic],
    numbers: Sequence[Sequence[int]],
    *,
    values: Values | None,
    resampled: bool,
    warnings: list[str],
) -> EmbeddingPair:
    """How two mosaics of embeddings are read.

    int8 is AlphaEarth's quantisation, unless its file declares a scale, or the user says that numbers stand for
    themselves. It stays int8 in the run's store, a quarter of the place, where both dates hold it on the run's own
    grid: what is resampled must be values, and not their roots.

    Args:
        numbers: bands (from 1) of each mosaic.
        resampled: whether any of them does not lie on the grid's pixels.
        warnings: gets a line where vectors are not of unit length.

    Raises:
        InputError: vectors of the two dates are of other scales, or int8 that is no quantised unit vector.
    """
    for mosaic, compared in zip(mosaics, numbers, strict=True):
        if len(compared) < _FEWEST_BANDS:
            raise InputError(
                f"{mosaic.label} has {len(compared)} band to compare, an embedding is a vector of {_FEWEST_BANDS} or "
                "more"
            )
    declared = [
        any_declared([mosaic.bands[number - 1] for number in compared])
        for mosaic, compared in zip(mosaics, numbers, strict=True)
    ]
    if values == "physical" and not all(declared):
        silent = ", ".join(mosaic.label for mosaic, says in zip(mosaics, declared, strict=True) if not says)
        raise InputError(f"--values physical, but {silent} declares neither scale nor offset: leave the option out")
    quantised = values in (None, "quantised") and any(
        mosaic.dtype == "int8" and not says for mosaic, says in zip(mosaics, declared, strict=True)
    )
    physical = any(declared) and values != "stored"
    scale = ((1.0, 0.0),) * len(numbers[0]) if physical else None
    reading = Encoding(dtype="float32", bands=scale, quantised=quantised)
    lengths = [
        _length(Sample(mosaic=mosaic, numbers=tuple(compared)), reading)
        for mosaic, compared in zip(mosaics, numbers, strict=True)
    ]
    _require_comparable(mosaics, numbers, lengths, reading)
    warnings += [
        f"{mosaic.label}: {len(compared)} of its {len(mosaic.bands)} bands are compared; part of an embedding has "
        "another direction than all of it"
        for mosaic, compared in zip(mosaics, numbers, strict=True)
        if len(compared) < len(mosaic.bands)
    ]
    length = _usual(lengths)
    if length != 1:
        what = "cosine does not mind" if method.measure == "cosine" else f"distances are in units of {length:g}"
        shown = " and ".join(
            f"{found:.4g} in {mosaic.label}" for mosaic, found in zip(mosaics, lengths, strict=True) if found
        )
        warnings.append(f"vectors are not of unit length, but {shown}: {what}")
    if resampled and method.measure == "l2":
        warnings.append(
            "vectors that are resampled become shorter where neighbours differ, and embedding-l2 sees that: "
            "embedding-cosine does not"
        )
    kinds = [mosaic.dtype for mosaic in mosaics]
    stays = not physical and not resampled and set(kinds) == {"int8"}
    dtype = "int8" if stays else "float32"
    fitted = replace(method, quantised=quantised and stays, length=length)
    is_plain = stays or (not physical and not quantised and set(kinds) == {"float32"})
    return EmbeddingPair(dtype=dtype, encoding=None if is_plain else reading, method=fitted)


def _length(sample: Sample, reading: Encoding) -> float | None:
    """Median length of a few vectors; None where none is valid in them."""
    _, valid = sample.pixels
    if not valid.any():
        return None
    vectors = sample.converted(reading)[:, valid].astype(np.float64)
    return float(np.median(np.sqrt((vectors**2).sum(axis=0))))


def _require_comparable(
    mosaics: Sequence[Mosaic], numbers: Sequence[Sequence[int]], lengths: Sequence[float | None], reading: Encoding
) -> None:
    before, after = lengths
    for mosaic, length in zip(mosaics, lengths, strict=True):
        if length is None:
            continue
        if length == 0:
            raise InputError(
                f"{mosaic.label} holds vectors of length 0 where it was looked at: these are no embeddings"
            )
        is_quantised = reading.quantised and mosaic.dtype == "int8" and not any_declared(mosaic.bands)
        if is_quantised and not 1 / LENGTH_RATIO <= length <= LENGTH_RATIO:
            raise InputError(
                f"{mosaic.label} holds int8 and declares no scale; read as AlphaEarth quantises unit vectors, "
                f"sign(v) · (v / 127.5)², its vectors would be {length:.4g} long, not 1. --values stored takes the "
                "numbers as they stand, or write scale and offset into the file"
            )
    if before is None or after is None:
        return
    try:
        require_one_scale(
            before,
            after,
            names=Names(
                before=_described(mosaics[0], numbers[0]),
                after=_described(mosaics[1], numbers[1]),
                bands_before=(),
                bands_after=(),
            ),
        )
    except DegenerateStatisticsError as error:
        raise InputError(str(error)) from error


def _described(mosaic: Mosaic, numbers: Sequence[int]) -> str:
    scale = f", {encoding_words(mosaic.bands)}" if any_declared(mosaic.bands) else ""
    part = f", {len(numbers)} of {len(mosaic.bands)} bands" if len(numbers) < len(mosaic.bands) else ""
    return f"{mosaic.label} ({mosaic.dtype}{scale}{part})"


def _usual(lengths: Sequence[float | None]) -> float:
    """1 for unit vectors, else the mean of both dates to three digits, so that a few pixels do not move it."""
    known = [length for length in lengths if length is not None]
    if not known or all(abs(length - 1) <= LENGTH_RATIO - 1 for length in known):
        return 1.0
    return float(f"{np.mean(known):.3g}")
