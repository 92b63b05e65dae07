"""The change-probability mosaic as a Cloud-Optimised GeoTIFF, written strip by strip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy
from rasterio.windows import Window
from rio_cogeo import cog_validate

from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.places.publish import publish, scratch_of
from storage.stores.run_store import NODATA, PROBABILITY_SCALE

_GDAL = {"GDAL_CACHEMAX": 256, "GDAL_TIFF_OVR_BLOCKSIZE": "512"}


class ProbabilityReader(Protocol):
    """Where products read a finished run from; :class:`storage.stores.run_store.RunStore` is one."""

    @property
    def grid(self) -> GeoBox: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def block(self) -> int: ...

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8: probability × 254, 255 = nodata."""
        ...


CheckBlock = Callable[[slice, slice, NDArray[np.uint8] | None], None]
"""Sees rows, columns and pixels of a block; None where storage has lost it or its bytes cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class CogResult:
    """What a COG holds.

    Attributes:
        pixels_sha256: SHA-256 over the whole array, uint8, row by row.
        histogram: (256,) pixels of each value; the last one is nodata.
    """

    pixels_sha256: str
    histogram: tuple[int, ...]

    @property
    def valid_pixels(self) -> int:
        return sum(self.histogram[:NODATA])


def strips(reader: ProbabilityReader, *, check: CheckBlock | None = None) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """One row of blocks after the other: rows and (h, width) uint8. `check` sees each block before it is used."""
    for y in range(0, reader.height, reader.block):
        rows = slice(y, min(y + reader.block, reader.height))
        strip = np.empty((rows.stop - rows.start, reader.width), dtype=np.uint8)
        for x in range(0, reader.width, reader.block):
            cols = slice(x, min(x + reader.block, reader.width))
            strip[:, cols] = read_checked(reader, rows, cols, check=check)
        yield rows, strip


def read_checked(reader: ProbabilityReader, rows: slice, cols: slice, *, check: CheckBlock | None) -> NDArray[np.uint8]:
    """(h, w) uint8 of one block, shown to `check`; with a check, what storage has lost is nodata for the time being.

    Raises:
        IntegrityError: without a check, what storage has lost or cannot be decoded.
    """
    try:
        pixels = reader.read_probability(rows=rows, cols=cols)
    except IntegrityError:
        if check is None:
            raise
        check(rows, cols, None)
        return np.full((rows.stop - rows.start, cols.stop - cols.start), NODATA, dtype=np.uint8)
    if check is not None:
        check(rows, cols, pixels)
    return pixels


def write_cog(
    reader: ProbabilityReader,
    path: Location,
    *,
    check: CheckBlock | None = None,
    conclude: Callable[[], None] | None = None,
) -> CogResult:
    """Write the probability as a COG: uint8 scaled by 1/254, nodata 255, overviews that leave nodata out.

    Args:
        check: sees each block as it was read.
        conclude: called when all blocks were seen, before the file gets its name; raises to stop it.

    Raises:
        IntegrityError: what was written is not a valid COG.
    """
    total, histogram = hashlib.sha256(), np.zeros(256, dtype=np.int64)

    def counted() -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        for rows, strip in strips(reader, check=check):
            total.update(strip.data)
            for line in strip:  # bincount makes eight bytes of each
                np.add(histogram, np.bincount(line, minlength=256), out=histogram)
            yield rows, strip

    layer = Layer(dtype="uint8", nodata=NODATA, description="change probability", scale=PROBABILITY_SCALE)
    write_layer(path, layer, grid=reader.grid, strips=counted(), conclude=conclude)
    return CogResult(pixels_sha256=total.hexdigest(), histogram=tuple(int(count) for count in histogram))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the values of a COG of one band are.

    Attributes:
        scale: what a stored value is to be multiplied with.
        overviews: GDAL's name of the resampling.
    """

    dtype: str
    nodata: int
    description: str
    scale: float = 1.0
    overviews: str = "AVERAGE"


def write_layer(
    path: Location,
    layer: Layer,
    *,
    grid: GeoBox,
    strips: Iterable[tuple[slice, NDArray[Any]]],
    conclude: Callable[[], None] | None = None,
) -> None:
    """Write a COG strip by strip.

    Args:
        strips: rows and (h, width) pixels, from the top down, all of the grid.
        conclude: called when all strips were written, before the file gets its name; raises to stop it.

    Raises:
        IntegrityError: what was written is not a valid COG.
    """
    height, width = grid.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": layer.dtype,
        "nodata": layer.nodata,
        "crs": str(grid.crs),
        "transform": grid.affine,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "LZW",
        "BIGTIFF": "IF_SAFER",
    }
    if not isinstance(path, ObjectPath):
        for left in path.parent.glob(f".{path.stem}-*"):  # by a process that was killed here, twice as large as the COG
            rmtree(left) if left.is_dir() else left.unlink()
    with (
        rasterio.Env(**_GDAL),
        TemporaryDirectory(prefix=f".{path.stem}-", dir=scratch_of(path)) as folder,
        publish(path, verify=_verify) as final,
    ):
        draft = Path(folder) / "strips.tif"
        with rasterio.open(draft, "w", **profile) as dataset:
            dataset.scales, dataset.offsets = (layer.scale,), (0.0,)
            dataset.set_band_description(1, layer.description)
            dataset.units = ("1",)
            for rows, strip in strips:
                dataset.write(strip, 1, window=Window.from_slices(rows, (0, width)))
        if conclude is not None:
            conclude()
        copy(
            draft,
            final,
            driver="COG",
            COMPRESS="DEFLATE",
            LEVEL="6",
            BLOCKSIZE="512",
            OVERVIEW_RESAMPLING=layer.overviews,
            BIGTIFF="IF_SAFER",
            NUM_THREADS="ALL_CPUS",
        )


def _verify(path: Path) -> None:
    valid, errors, _ = cog_validate(path, strict=True, quiet=True)
    if not valid:
        raise IntegrityError(f"{path} was written but is no valid COG: {'; '.join(errors)}")
