"""What headers cost: `dasnet info` of a file, and a mosaic of very many small tiles beside one file of the same pixels.

Part of `python -m benchmarks.door --headers`. A tile is made by exchanging the corner in the bytes of the first one, so
that a hundred thousand take seconds to write. A block of the mosaic is compared with the same block of one file, and of
a mosaic of no more tiles than the block touches: what is above the latter is the price of the number of tiles. Shifted,
each tile is resampled by itself, so its outermost pixels are not those of one file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from benchmarks.common import machine, timed
from benchmarks.startup import median, seconds

_TILE, _BLOCK = 64, 2048
_CORNER = (500_000.0, 5_600_000.0)
_INFO_BAR, _BLOCK_BAR = 1.2, 1.1


def measure(folder: Path, *, tiles: int, runs: int) -> None:
    """Print a line for each figure, with what it should be at most."""
    _info(folder, runs)
    _tiles(folder, isqrt(tiles), runs)


def _info(folder: Path, runs: int) -> None:
    path = folder / "image.tif"
    pixels = np.random.default_rng(0).integers(1, 255, (3, 512, 512)).astype(np.uint8)
    _write(path, pixels, _CORNER)
    imports = ["-c", "import rasterio, xarray"]
    command = ["-m", "flows", "info", str(path)]
    seconds(imports)  # from disk once, for all
    seconds(command)
    unit = median(runs, lambda: seconds(imports))
    took = median(runs, lambda: seconds(command))
    print(
        f"dasnet info of a file: {took / unit:.2f} times the import of rasterio and xarray ({unit:.2f} s), at most "
        f"{_INFO_BAR:g}; {machine()}",
        flush=True,
    )


def _tiles(folder: Path, side: int, runs: int) -> None:
    from storage.imagery.mosaics import open_mosaic

    tile = np.random.default_rng(1).integers(1, 255, (1, _TILE, _TILE)).astype(np.uint8)
    tiles = _tiles_in(folder / "tiles", tile, rows=range(side), cols=range(side))
    whole = folder / "whole.tif"
    _write(whole, np.tile(tile, (1, side, side)), _CORNER)
    mosaic, took = timed(lambda: open_mosaic(tiles))
    print(f"opening {side * side:,} tiles of {_TILE} px: {took:.1f} s; {machine()}", flush=True)
    one, took = timed(lambda: open_mosaic(whole))
    count = min(_BLOCK // _TILE, side)
    first = (side - count) // 2
    near = range(max(first - 1, 0), min(first + count + 1, side))
    few = open_mosaic(_tiles_in(folder / "few", tile, rows=near, cols=near))
    for name, shift in (("aligned", 0.0), ("shifted by half a pixel", 0.5)):
        grid = GeoBox(one.grid.shape, one.grid.affine * Affine.translation(shift, shift), one.grid.crs)
        block = slice(first * _TILE, (first + count) * _TILE)
        read = {
            label: _reader(which, grid, block)
            for label, which in (("many tiles", mosaic), ("few tiles", few), ("one file", one))
        }
        image = {label: reading() for label, reading in read.items()}
        seams = float(np.mean(image["many tiles"] != image["one file"]))
        assert np.array_equal(image["many tiles"], image["few tiles"])
        times = {label: median(runs, lambda reading=reading: timed(reading)[1]) for label, reading in read.items()}  # type: ignore[misc]
        print(
            f"a block of {count * _TILE} px {name}: {times['many tiles'] * 1e3:.0f} ms, "
            f"{times['many tiles'] / times['few tiles']:.2f} of the same from {len(near) ** 2:,} tiles (at most "
            f"{_BLOCK_BAR:g}), {times['many tiles'] / times['one file']:.2f} of one file's; "
            f"{seams:.2%} of its pixels are other ones than of one file; {machine()}",
            flush=True,
        )


def _reader(mosaic: Any, grid: GeoBox, block: slice) -> Callable[[], NDArray[Any]]:
    """Reads a square block; what the first call opens stays open as on a worker."""
    from storage.imagery.rasters import GridReader

    reader = GridReader(mosaic=mosaic, grid=grid, bands=(1,))
    return lambda: reader.read(rows=block, cols=block)[0]


def _write(path: Path, pixels: NDArray[np.uint8], corner: tuple[float, float]) -> Path:
    bands, height, width = pixels.shape
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256} if height >= 256 else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs="EPSG:32631",
        transform=Affine(1, 0, corner[0], 0, -1, corner[1]),
        **layout,
    ) as file:
        file.write(pixels)
    return path


def _tiles_in(folder: Path, tile: NDArray[np.uint8], *, rows: range, cols: range) -> Path:
    folder.mkdir()
    content = bytearray(_write(folder.parent / "first.tif", tile, _CORNER).read_bytes())
    at = content.index(struct.pack("<2d", *_CORNER))
    for row in rows:
        for col in cols:
            struct.pack_into("<2d", content, at, _CORNER[0] + col * _TILE, _CORNER[1] - row * _TILE)
            (folder / f"{row:04d}-{col:04d}.tif").write_bytes(content)
    return folder
