"""The run's store: what was written is read, what was lost is noticed."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from storage.stores.create import create_store
from storage.stores.run_store import RunStore

GRID = GeoBox((150, 200), Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000), "EPSG:32631")
BLOCK = 64


def blocks() -> list[tuple[slice, slice]]:
    return [
        (slice(y, min(y + BLOCK, 150)), slice(x, min(x + BLOCK, 200)))
        for y in range(0, 150, BLOCK)
        for x in range(0, 200, BLOCK)
    ]


def create(path: Path, dtype: str = "uint8") -> RunStore:
    times = [datetime(2010, 5, 1), datetime(2020, 6, 1)]
    create_store(path, grid=GRID, times=times, bands=["red", "green"], dtype=dtype, block=BLOCK, chunk=32)
    return RunStore(path)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 2, 150, 200)).astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> RunStore:
    made = create(tmp_path_factory.mktemp("store") / "run.zarr")
    for rows, cols in blocks():
        for time in range(2):
            made.write_image(time, images[time, :, rows, cols], images[time, 0, rows, cols] > 20, rows=rows, cols=cols)
    return made


@settings(max_examples=30, deadline=None)
@given(y=st.integers(-40, 140), x=st.integers(-40, 190), height=st.integers(1, 120), width=st.integers(1, 120))
def test_any_range_is_read_and_beyond_the_grid_is_nothing(
    store: RunStore, images: np.ndarray, y: int, x: int, height: int, width: int
) -> None:
    if y + height <= 0 or x + width <= 0:
        return
    padded = np.pad(images, ((0, 0), (0, 0), (200, 200), (200, 200)))
    there = np.pad(images[:, 0] > 20, ((0, 0), (200, 200), (200, 200)))
    rows, cols = slice(y, y + height), slice(x, x + width)
    found, valid = store.read_series(rows=rows, cols=cols)
    shifted = (slice(y + 200, y + 200 + height), slice(x + 200, x + 200 + width))
    assert np.array_equal(found, padded[(slice(None), slice(None), *shifted)])
    assert np.array_equal(valid, there[(slice(None), *shifted)])


def test_xarray_opens_it_georeferenced_and_without_a_warning(store: RunStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        dataset = xr.open_zarr(store.path)
    assert dataset["image"].dims == ("time", "band", "y", "x")
    assert dataset["change_probability"].dims == ("interval", "y", "x")
    assert dataset.rio.crs.to_epsg() == 32631
    assert dataset.rio.transform() == GRID.affine
    assert str(dataset["time"].to_numpy()[1])[:10] == "2020-06-01"
    assert float(dataset["x"][0]) == 500_000.25


def test_the_store_knows_its_grid_and_travels_light(store: RunStore) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again.grid == GRID
    assert (again.height, again.width, again.block, again.dates, again.bands) == (150, 200, 64, 2, ("red", "green"))
    assert len(pickle.dumps(store)) < 500


def test_probability_keeps_its_bytes_and_is_decoded(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    written = np.random.default_rng(2).integers(0, 256, (1, 150, 200)).astype(np.uint8)
    for rows, cols in blocks():
        block = written[:, rows, cols]
        digest = store.write_probability(block, rows=rows, cols=cols)
        assert digest == hashlib.sha256(np.ascontiguousarray(block).tobytes()).hexdigest()
    assert np.array_equal(store.read_probability(rows=slice(0, 150), cols=slice(0, 200)), written[0])
    decoded = xr.open_zarr(store.path)["change_probability"].to_numpy()
    assert np.array_equal(np.isnan(decoded), written == 255)
    assert np.nanmax(np.abs(decoded - written / 254)) < 1e-6


@pytest.mark.parametrize("value", [0, 255])
def test_a_block_of_nothing_but_fill_values_is_written_all_the_same(tmp_path: Path, value: int) -> None:
    store, (rows, cols) = create(tmp_path / "run.zarr"), blocks()[0]
    store.write_image(0, np.full((2, 64, 64), value, np.uint8), np.zeros((64, 64), bool), rows=rows, cols=cols)
    store.write_image(1, np.full((2, 64, 64), value, np.uint8), np.zeros((64, 64), bool), rows=rows, cols=cols)
    store.write_probability(np.full((1, 64, 64), value, np.uint8), rows=rows, cols=cols)
    assert (store.read_probability(rows=rows, cols=cols) == value).all()
    assert not store.read_series(rows=rows, cols=cols)[1].any()


def test_a_missing_shard_is_an_error_and_never_a_fill_value(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    with pytest.raises(IntegrityError, match=r"image/c/0/0/0/0 is missing"):
        store.read_series(rows=slice(0, 10), cols=slice(0, 10))
    with pytest.raises(IntegrityError, match=r"change_probability/c/0/0/0 is missing"):
        store.read_probability(rows=slice(0, 10), cols=slice(0, 10))


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\0" * len(b)])
def test_a_shard_beyond_reading_can_be_written_anew(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    store, (rows, cols) = create(tmp_path / "run.zarr"), blocks()[0]
    image = np.random.default_rng(3).integers(1, 256, (2, 64, 64)).astype(np.uint8)
    for _ in range(2):
        store.write_image(1, image, image[0] > 20, rows=rows, cols=cols)
        store.write_probability(image[:1], rows=rows, cols=cols)
        found, valid = store.read_images(1, rows=rows, cols=cols)
        assert np.array_equal(found, image) and np.array_equal(valid, image[0] > 20)
        assert np.array_equal(store.read_probability(rows=rows, cols=cols), image[0])
        shards = [path for path in store.path.rglob("c/**/*") if path.is_file() and path.name == "0"]
        assert len([shard.write_bytes(spoil(shard.read_bytes())) for shard in shards]) >= 3


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_types(tmp_path: Path, dtype: str) -> None:
    store, (rows, cols) = create(tmp_path / "run.zarr", dtype), blocks()[0]
    pixels = (np.random.default_rng(3).random((2, 64, 64)) * 60_000).astype(dtype)
    for time in range(2):
        store.write_image(time, pixels, np.ones((64, 64), bool), rows=rows, cols=cols)
    found, _ = store.read_series(rows=rows, cols=cols)
    assert found.dtype == dtype
    assert np.array_equal(found[0], pixels)


@pytest.mark.parametrize("side", [64, 40], ids=["the whole shard", "a part of it, as a halo"])
def test_no_flipped_byte_goes_unnoticed(tmp_path: Path, side: int) -> None:
    """Readers check less when they read less; values that repeat leave the decoder room to be wrong and not to fail."""
    store, (rows, cols) = create(tmp_path / "run.zarr"), blocks()[0]
    written = np.random.default_rng(4).integers(0, 4, (1, 64, 64)).astype(np.uint8)
    store.write_probability(written, rows=rows, cols=cols)
    shard = store.path / "change_probability/c/0/0/0"
    intact = shard.read_bytes()
    part = slice(0, side)
    wrong = []
    for position in range(0, len(intact), 7):
        content = bytearray(intact)
        content[position] ^= 0xFF
        shard.write_bytes(content)
        try:
            found = store.read_probability(rows=part, cols=part)
        except IntegrityError as error:
            assert "bytes have changed" in str(error)
        else:
            # a byte of a chunk that this range does not need
            if not np.array_equal(found, written[0, part, part]):
                wrong.append(position)
    assert wrong == []


@pytest.mark.parametrize("error", [TypeError, MemoryError, RuntimeError, OSError])
def test_an_error_that_is_no_damage_passes_and_touches_nothing(tmp_path: Path, error: type[Exception]) -> None:
    """A full disk, a lack of memory or a mistake of ours is no reason to call stored pixels lost."""

    class Failing:
        basename, name, shape, shards = "image", "/image", (2, 2, 150, 200), (1, 2, 64, 64)

        def __init__(self, array: zarr.Array) -> None:
            self.metadata = array.metadata

        def __getitem__(self, _: object) -> None:
            raise error("scripted")

        def __setitem__(self, _: object, __: object) -> None:
            raise error("scripted")

    store, (rows, cols) = create(tmp_path / "run.zarr"), blocks()[0]
    image = np.random.default_rng(3).integers(1, 256, (2, 64, 64)).astype(np.uint8)
    store.write_image(1, image, image[0] > 20, rows=rows, cols=cols)
    shard = store.path / "image/c/1/0/0/0"
    written = shard.read_bytes()
    failing: Any = Failing(store._image)
    store.__dict__["_image"] = store._for_writing["image"] = failing
    with pytest.raises(error, match="scripted"):
        store.write_image(1, image, image[0] > 20, rows=rows, cols=cols)
    with pytest.raises(error, match="scripted"):
        store.read_images(1, rows=rows, cols=cols)
    assert shard.read_bytes() == written


def test_what_is_not_one_block_is_never_written(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    for rows in (slice(0, 63), slice(1, 65), slice(0, 128)):
        pixels = np.zeros((1, rows.stop - rows.start, 64), dtype=np.uint8)
        with pytest.raises(ValueError, match="not one block of 64 px: two writers"):
            store.write_probability(pixels, rows=rows, cols=slice(0, 64))
