"""The change-probability mosaic as a Cloud-Optimised GeoTIFF, written strip by strip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy
from rasterio.windows import Window
from rio_cogeo import cog_validate

from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.places.publish import publish, scratch_of
from storage.products.reader import CheckBlock, ProbabilityReader, strips
from storage.reference_systems import crs_words, horizontal_crs, is_same_crs
from tiling.conventions import NODATA, PROBABILITY_SCALE

_GDAL = {
    "GDAL_CACHEMAX": 256,
    "GDAL_TIFF_OVR_BLOCKSIZE": "512",
    # a side-car would hold what the file itself does not, and would be left behind
    "GDAL_PAM_ENABLED": "NO",
}


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


def write_cog(
    reader: ProbabilityReader,
    path: Location,
    *,
    check: CheckBlock | None = None,
    conclude: Callable[[], None] | None = None,
    tags: Mapping[str, str] | None = None,
) -> CogResult:
    """Write the probability as a COG: uint8 scaled by 1/254, nodata 255, overviews that leave nodata out.

    Args:
        check: sees each block as it was read.
        conclude: called when all blocks were seen, before the file gets its name; raises to stop it.
        tags: what else the file says of itself.

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

    layer = Layer(
        dtype="uint8", nodata=NODATA, description="change probability", scale=PROBABILITY_SCALE, tags=tags or {}
    )
    write_layer(path, layer, grid=reader.grid, strips=counted(), conclude=conclude)
    return CogResult(pixels_sha256=total.hexdigest(), histogram=tuple(int(count) for count in histogram))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the values of a COG of one band are.

    Attributes:
        scale: what a stored value is to be multiplied with.
        overviews: GDAL's name of the resampling.
        tags: what else the file says of itself.
    """

    dtype: str
    nodata: int
    description: str
    scale: float = 1.0
    overviews: str = "AVERAGE"
    tags: Mapping[str, str] = field(default_factory=dict)


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
        publish(path, verify=partial(_verify, crs=grid.crs)) as final,
    ):
        draft = Path(folder) / "strips.tif"
        with rasterio.open(draft, "w", **profile) as dataset:
            dataset.scales, dataset.offsets = (layer.scale,), (0.0,)
            dataset.set_band_description(1, layer.description)
            dataset.units = ("1",)
            dataset.update_tags(**layer.tags)
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


def _verify(path: Path, *, crs: CRS | None) -> None:
    valid, errors, _ = cog_validate(path, strict=True, quiet=True)
    if not valid:
        raise IntegrityError(f"{path} was written but is no valid COG: {'; '.join(errors)}")
    with rasterio.open(path) as dataset:
        written = horizontal_crs(dataset.crs.to_wkt()) if dataset.crs is not None else None
    if crs is not None and (written is None or not is_same_crs(written, crs)):
        raise IntegrityError(f"{path} was written with {crs_words(crs)} and holds {crs_words(written)}")
