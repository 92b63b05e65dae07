"""The data path in a bucket against that on a disk: blocks ingested, read with their halo, and written, by one process.

python -m benchmarks.object_store [--side 4096] [--block 1024] [--repeat 3]

The bucket is that of a SeaweedFS server on this machine, which takes its share of the same cores and the same disk.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np

from benchmarks.common import machine, scene
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
from storage.places.bucket import Location, ObjectPath
from storage.stores.create import create_store
from storage.stores.run_store import RunStore
from tests.s3_server import BUCKET, S3Server
from tiling.grid import BlockGrid

_HALO = 192
_THREADS = 4


def _rate(blocks: BlockGrid, work: Callable[[int], object], items: Iterable[int]) -> float:
    """Megapixels of the grid a second."""
    began = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, items))
    return blocks.height * blocks.width / (time.perf_counter() - began) / 1e6


def measure(inputs: tuple[Location, Location], output: Location, block: int) -> tuple[float, float, float]:
    """Mpx/s of ingest (two RGB dates), of reading with a halo, and of writing probability."""
    mosaics = [open_mosaic(str(path)) for path in inputs]
    grid = mosaics[0].grid
    blocks = BlockGrid(height=grid.height, width=grid.width, size=block)
    times = [datetime(2000, 1, 1), datetime(2001, 1, 1)]
    create_store(output, grid=grid, times=times, bands=["red", "green", "blue"], dtype="uint8", block=block)
    store = RunStore(output)
    readers = [GridReader(mosaic=mosaic, grid=grid, bands=(1, 2, 3)) for mosaic in mosaics]
    noise = np.random.default_rng(0).integers(0, 255, (1, block, block)).astype(np.uint8)

    def ingest(index: int) -> None:
        box = blocks[index].box
        for date, reader in enumerate(readers):
            image, valid = reader.read(rows=box.rows, cols=box.cols)
            store.write_image(date, image, valid, rows=box.rows, cols=box.cols)

    def read(index: int) -> None:
        rows, cols = blocks[index].box.rows, blocks[index].box.cols
        store.read_series(
            rows=slice(rows.start - _HALO, rows.stop + _HALO), cols=slice(cols.start - _HALO, cols.stop + _HALO)
        )

    def write(index: int) -> None:
        rows, cols = blocks[index].box.rows, blocks[index].box.cols
        pixels = noise[:, : rows.stop - rows.start, : cols.stop - cols.start]
        store.write_probability(pixels, rows=rows, cols=cols)

    ingested, was_read, written = (_rate(blocks, work, range(len(blocks))) for work in (ingest, read, write))
    return ingested, was_read, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3, help="of each, in turn; the best one counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = S3Server(folder / "server")
        server.start()
        try:
            os.environ.update(server.environment())
            local = scene(folder, height=options.side, width=options.side)
            there = (ObjectPath(BUCKET, "before.tif"), ObjectPath(BUCKET, "after.tif"))
            for path, file in zip(there, local, strict=True):
                path.upload(file)
            best = {"disk": (0.0, 0.0, 0.0), "bucket": (0.0, 0.0, 0.0)}
            for number in range(options.repeat):
                for kind, inputs, output in (
                    ("disk", local, folder / f"run-{number}.zarr"),
                    ("bucket", there, ObjectPath(BUCKET, f"run-{number}.zarr")),
                ):
                    found = measure(inputs, output, options.block)
                    best[kind] = tuple(map(max, best[kind], found))  # type: ignore[assignment]
        finally:
            server.kill()
    for kind, (ingest, read, write) in best.items():
        print(
            f"object store: {options.side}×{options.side}, blocks of {options.block} px, {kind}: ingest {ingest:.1f}, "
            f"read with halo {read:.1f}, write {write:.1f} Mpx/s (two RGB dates, {_THREADS} threads); {machine()}"
        )


if __name__ == "__main__":
    main()
