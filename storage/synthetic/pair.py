"""Write a synthetic scene as three GeoTIFFs, block by block: memory does not grow with the mosaic."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from storage.errors import InputError
from storage.synthetic.scene import CELL, PseudoChange, Scene
from tiling.conventions import IGNORED

"""Nodata of the truth: either date has none there."""

_ACQUIRED = {"before": "2019-06-21T10:30:00", "after": "2024-09-05T10:30:00"}
_LEFT, _TOP = 448_000.0, 5_412_000.0  # upper-left corner: near Paris in the default CRS


@dataclass(frozen=True, kw_only=True)
class SyntheticPair:
    """The files of a synthetic scene.

    Attributes:
        before, after: RGB uint8, nodata 0.
        change: uint8, 1 = changed, 0 = not changed, 255 = nodata in either date.
    """

    before: Path
    after: Path
    change: Path


def synthesize(
    directory: Path,
    *,
    height: int,
    width: int,
    seed: int = 0,
    resolution: float = 0.5,
    crs: str = "EPSG:32631",
    block: int = 1024,
    pseudo: PseudoChange | None = None,
    collar: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> SyntheticPair:
    """Write ``before.tif``, ``after.tif`` and ``change.tif``: tiled GeoTIFFs on one grid, ZSTD-compressed.

    The pixels depend on `seed`, `pseudo` and their row and column alone; only which of them are nodata depends on the
    mosaic's size.

    Args:
        directory: made if it is not there; files of these names in it are replaced.
        height, width: size of the mosaics, pixels.
        resolution: ground size of a pixel, metres; houses have the size of houses at 0.5.
        crs: a projected one.
        block: side of what is drawn and held at a time, pixels, a multiple of 256.
        pseudo: season, haze, shadows, shift, sensor; None = the default ones.
        collar: leave a corner and a ragged edge of each date without data.
        on_progress: called with the number of pixels after each block.

    Raises:
        InputError: a size, resolution, block or CRS that makes no mosaic, or a directory that cannot be written.
    """
    if min(height, width) < 1:
        raise InputError(f"a mosaic of {height} × {width} px is empty: both must be 1 or more")
    if not 0 < resolution < 1e6:
        raise InputError(f"resolution {resolution} must be a positive number of metres")
    if block < CELL or block % CELL:
        raise InputError(f"block {block} px must be a multiple of {CELL}")
    if seed < 0:
        raise InputError(f"seed {seed} must be 0 or more")
    reference = _projected(crs)
    directory = Path(directory)
    paths = {name: directory / f"{name}.tif" for name in ("before", "after", "change")}
    temporary = {name: directory / f".{name}.{os.getpid()}.tif" for name in paths}
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot make this directory: {error}") from error
    scene = Scene(seed=seed, pseudo=pseudo)
    try:
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(
                    rasterio.open(
                        path,
                        "w",
                        driver="GTiff",
                        height=height,
                        width=width,
                        count=1 if name == "change" else 3,
                        dtype="uint8",
                        nodata=IGNORED if name == "change" else 0,
                        crs=reference,
                        transform=Affine(resolution, 0.0, _LEFT, 0.0, -resolution, _TOP),
                        tiled=True,
                        blockxsize=CELL,
                        blockysize=CELL,
                        compress="zstd",
                        zstd_level=1,
                        interleave="pixel",
                        photometric="minisblack" if name == "change" else "rgb",
                        bigtiff="if_safer",
                    )
                )
                for name, path in temporary.items()
            }
            for name, acquired in _ACQUIRED.items():
                files[name].colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
                files[name].update_tags(ACQUISITIONDATETIME=acquired)
            for rows, cols in _blocks(height, width, block):
                pair = scene.pair(rows, cols)
                window = RasterWindow.from_slices(rows, cols)
                missing = np.zeros(pair.change.shape, dtype=bool)
                for name, image in (("before", pair.before), ("after", pair.after)):
                    if collar:
                        gone = _without_data(rows, cols, height=height, width=width, later=name == "after")
                        image[:, gone] = 0
                        missing |= gone
                    files[name].write(image, window=window)
                pair.change[missing] = IGNORED
                files["change"].write(pair.change, 1, window=window)
                if on_progress is not None:
                    on_progress(pair.change.size)
        for name, path in temporary.items():
            path.replace(paths[name])
    except OSError as error:
        raise InputError(f"{directory}: cannot write the scene there: {error}") from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return SyntheticPair(before=paths["before"], after=paths["after"], change=paths["change"])


def _projected(crs: str) -> CRS:
    try:
        reference = CRS.from_user_input(crs)
    except CRSError as error:
        raise InputError(f"{crs!r} is no coordinate reference system: {error}") from error
    if not reference.is_projected:
        raise InputError(f"{crs!r} is not projected: a synthetic scene is laid out in metres")
    return reference


def _blocks(height: int, width: int, size: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, size):
        for left in range(0, width, size):
            yield slice(top, min(top + size, height)), slice(left, min(left + size, width))


def _without_data(rows: slice, cols: slice, *, height: int, width: int, later: bool) -> NDArray[np.bool_]:
    """(h, w), True where the flight of a date brought nothing home: a corner, and a ragged strip along one side."""
    y = np.arange(rows.start, rows.stop)[:, None]
    x = np.arange(cols.start, cols.stop)[None, :]
    side = min(height, width)
    if later:
        y, x = height - 1 - y, width - 1 - x
    corner = y + 0.7 * x < 0.16 * side
    # The strip's edge steps as the edge of a mosaic of many photographs does.
    photograph = max(side // 9, 1)
    strip = x < 0.012 * side * (1 + (y // photograph * 5) % 4 / 3)
    return np.asarray(corner | strip)
