"""The run's Zarr store: images and validity of all dates, and the change probability.

::

    run.zarr/
        image               (time, band, y, x)    the mosaics on the run's grid, in their own type
        valid               (time, y, x)          True = the pixel is there
        change_probability  (interval, y, x)      uint8, probability × 254, 255 = nodata
        time, band, y, x, interval_start, interval_end, spatial_ref

An *interval* lies between two consecutive dates, so a series of T dates has T − 1 of them. A shard is one block and has
one writer; inside it are compressed chunks with a checksum each. "No change" and "black" are values: every chunk is
written, and a shard that is missing is an error, never a fill value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError
from odc.geo.geobox import GeoBox
from zarr.codecs import ZstdCodec

from storage.errors import IntegrityError, ObjectStoreError
from storage.geometry import grid_of
from storage.places.bucket import Location, ObjectPath, P
from storage.places.client import explain
from storage.places.publish import sync
from storage.places.zarr_access import reading, zarr_store
from storage.stores.damage import is_damaged
from storage.stores.date_names import date_index, date_name

if TYPE_CHECKING:
    import xarray as xr

# Imagery hardly compresses; a higher level costs more time than it saves disk. The checksum is zstd's own: when zarrs
# reads a part of a shard, it does not look at that of a CRC codec behind it.
COMPRESSORS = (ZstdCodec(level=1, checksum=True),)

# zarrs, which reads files fast, writes no empty chunks, and not by way of a temporary name: so zarr's own writes.
# Whether empty chunks are written is not kept in the store, each process has to ask for it.
WRITING = {"array.write_empty_chunks": True}


def store_exists(path: Location) -> bool:
    """Whether a store was created at `path`; its root's metadata is what appears last."""
    return (path / "zarr.json").exists()


class RunStore(Generic[P]):
    """A run's store. Holds nothing but its path until pixels are asked for, so it travels to workers."""

    def __init__(self, path: P) -> None:
        self.path: P = path

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same store."""
        return {"path": self.path.absolute() if isinstance(self.path, Path) else self.path}

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(zarr_store(self.path, complete=True), mode="r")

    @cached_property
    def _for_writing(self) -> dict[str, zarr.Array]:
        with zarr.config.set(WRITING):
            return dict(zarr.open_group(zarr_store(self.path), mode="r+").arrays())

    def _array(self, name: str) -> zarr.Array:
        with reading(self.path):
            array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array

    @cached_property
    def _image(self) -> zarr.Array:
        return self._array("image")

    @cached_property
    def _valid(self) -> zarr.Array:
        return self._array("valid")

    @cached_property
    def _probability(self) -> zarr.Array:
        return self._array("change_probability")

    @cached_property
    def grid(self) -> GeoBox:
        facts = dict(self._group.attrs)["grid"]
        assert isinstance(facts, dict)
        return grid_of(facts)

    @property
    def height(self) -> int:
        return int(self.grid.shape[0])

    @property
    def width(self) -> int:
        return int(self.grid.shape[1])

    @cached_property
    def block(self) -> int:
        """Side of a block, in pixels."""
        return int(str(self._group.attrs["block"]))

    @property
    def dates(self) -> int:
        """T."""
        return int(self._image.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the images."""
        return np.dtype(self._image.dtype)

    @cached_property
    def bands(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.open()["band"].to_numpy())

    @cached_property
    def times(self) -> tuple[np.datetime64, ...]:
        return tuple(self.open()["time"].to_numpy())

    def open(self) -> xr.Dataset:
        """The store as a lazy, georeferenced dataset; probabilities decoded to [0, 1] with NaN for nodata."""
        import rioxarray  # noqa: F401  registers the .rio accessor
        import xarray as xr

        return xr.open_zarr(zarr_store(self.path), chunks=None, decode_coords="all")

    def read_series(
        self, *, rows: slice, cols: slice, dates: slice = slice(None)
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """All dates of a range, or some that follow each other.

        Args:
            rows, cols: pixels of the grid; may reach beyond it.

        Returns:
            images (T, C, h, w) and valid (T, h, w); 0 and False beyond the grid.

        Raises:
            IntegrityError: a shard is missing or its bytes are not those that were written.
        """
        inner_rows, inner_cols = self._inside(rows, cols)
        images = self._read(self._image, (dates, slice(None)), inner_rows, inner_cols)
        valid = self._read(self._valid, (dates,), inner_rows, inner_cols)
        margins = (
            (inner_rows.start - rows.start, rows.stop - inner_rows.stop),
            (inner_cols.start - cols.start, cols.stop - inner_cols.stop),
        )
        if any(any(margin) for margin in margins):
            images = np.pad(images, ((0, 0), (0, 0), *margins))
            valid = np.pad(valid, ((0, 0), *margins))
        return images, valid

    def read_dates(self, names: Sequence[str], *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As :meth:`read_series`, of the dates that are named by :func:`~storage.stores.date_names.date_name`."""
        if list(names) == [date_name(index) for index in range(self.dates)]:
            return self.read_series(rows=rows, cols=cols)
        indices = [date_index(name) for name in names]
        series = [self.read_series(rows=rows, cols=cols, dates=slice(index, index + 1)) for index in indices]
        return np.concatenate([images for images, _ in series]), np.concatenate([valid for _, valid in series])

    def read_images(self, time: int, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """One date of a range inside the grid: image (C, h, w) and valid (h, w)."""
        return (
            self._read(self._image, (slice(time, time + 1), slice(None)), rows, cols)[0],
            self._read(self._valid, (slice(time, time + 1),), rows, cols)[0],
        )

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8 of the first interval: probability × 254, 255 = nodata. Raises IntegrityError as above."""
        return self._read(self._probability, (slice(0, 1),), rows, cols)[0]

    def write_image(
        self, time: int, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice
    ) -> None:
        """Write one block of one date durably: image (C, h, w), valid (h, w). The range is exactly one block."""
        self._require_one_block(rows, cols)
        self._write(self._image, (time, 0), (time, slice(None), rows, cols), image)
        self._write(self._valid, (time,), (time, rows, cols), valid)

    def write_date(self, name: str, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice) -> None:
        """As :meth:`write_image`, of the date that is named by :func:`~storage.stores.date_names.date_name`."""
        self.write_image(date_index(name), image, valid, rows=rows, cols=cols)

    def write_pair(self, name: str, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        """Write one block (h, w) of the interval that begins with date `name`; returns its SHA-256, as hex."""
        self._require_one_block(rows, cols)
        pixels = np.ascontiguousarray(probability, dtype=np.uint8)
        interval = date_index(name)
        self._write(self._probability, (interval,), (interval, rows, cols), pixels)
        return hashlib.sha256(pixels.data).hexdigest()

    def write_probability(self, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        """Write one block of all intervals durably: (T − 1, h, w) uint8; returns the SHA-256 of its bytes, as hex."""
        self._require_one_block(rows, cols)
        pixels = np.ascontiguousarray(probability, dtype=np.uint8)
        for interval in range(len(pixels)):
            self._write(self._probability, (interval,), (interval, rows, cols), pixels[interval])
        return hashlib.sha256(pixels.data).hexdigest()

    def _write(self, array: zarr.Array, leading: tuple[int, ...], where: tuple[Any, ...], values: NDArray[Any]) -> None:
        """Write one shard; `leading`: its place in the dimensions before y and x, `where`: the selection it is."""
        writing = self._for_writing[array.basename]
        ((shard, index),) = self._shards(array, leading, where[-2], where[-1])
        try:
            try:
                writing[where] = values
            except (BaseError, OSError):
                raise
            except Exception:  # zarr reads the shard that it replaces, which may be beyond reading
                if not is_damaged(array, shard, index):
                    raise
                shard.unlink()
                writing[where] = values
        except BaseError as error:
            assert isinstance(self.path, ObjectPath)
            reason = explain(error, bucket=self.path.bucket)
            raise ObjectStoreError(f"{self.path / array.basename}: {reason}") from error
        if isinstance(shard, Path):  # what a bucket has accepted is durable
            sync(shard)
            sync(shard.parent)

    def _inside(self, rows: slice, cols: slice) -> tuple[slice, slice]:
        return (
            slice(max(rows.start, 0), min(rows.stop, self.height)),
            slice(max(cols.start, 0), min(cols.stop, self.width)),
        )

    def _require_one_block(self, rows: slice, cols: slice) -> None:
        for span, length in ((rows, self.height), (cols, self.width)):
            if span.start % self.block or span.stop != min(span.start + self.block, length):
                raise ValueError(
                    f"rows {rows.start}–{rows.stop}, columns {cols.start}–{cols.stop} are not one block of "
                    f"{self.block} px: two writers of one shard would lose each other's pixels"
                )

    def _read(self, array: zarr.Array, leading: tuple[slice, ...], rows: slice, cols: slice) -> NDArray[Any]:
        shards = [
            shard
            for index in range(*leading[0].indices(array.shape[0]))
            for shard in self._shards(array, (index, *(0,) * (len(leading) - 1)), rows, cols)
        ]
        for shard, _ in () if isinstance(self.path, ObjectPath) else shards:
            if not shard.exists():
                raise IntegrityError(f"{shard} is missing: that block was never written, or was lost")
        try:
            return np.asarray(array[(*leading, rows, cols)])
        except (IntegrityError, ObjectStoreError):
            raise
        except Exception as error:  # each codec pipeline has exceptions of its own
            if not any(is_damaged(array, shard, index) for shard, index in shards):
                raise
            raise IntegrityError(
                f"{self.path}/{array.basename} rows {rows.start}–{rows.stop}, columns {cols.start}–{cols.stop}: "
                f"its bytes have changed at rest and cannot be decoded: {error}"
            ) from error

    def _shards(
        self, array: zarr.Array, leading: tuple[int, ...], rows: slice, cols: slice
    ) -> list[tuple[P, tuple[int, ...]]]:
        """Where the shards of a range lie, and which ones of the array they are."""
        indices = [
            (*leading, y, x)
            for y in range(rows.start // self.block, -(-rows.stop // self.block))
            for x in range(cols.start // self.block, -(-cols.stop // self.block))
        ]
        folder = f"{array.name.strip('/')}/c"
        return [(cast(P, self.path / f"{folder}/{'/'.join(map(str, index))}"), index) for index in indices]
