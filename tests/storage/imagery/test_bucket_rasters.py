"""Mosaics and run stores in a bucket: the same pixels and the same bytes as on a disk; what is lost is noticed."""

from __future__ import annotations

import pickle
from datetime import datetime
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import InputError, IntegrityError, ReplacedError
from storage.imagery.identity.digests import digest_mosaic
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import read_source
from storage.places.bucket import ObjectPath
from storage.places.zarr_access import zarr_store
from storage.products.cog import write_cog
from storage.stores.create import create_store
from storage.stores.run_store import RunStore, store_exists
from tests.s3_server import OWNER, READER, S3Server, use

GRID = GeoBox((100, 150), Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000), "EPSG:32631")
BLOCK = 64
BLOCKS = [
    (slice(y, min(y + BLOCK, 100)), slice(x, min(x + BLOCK, 150)))
    for y in range(0, 100, BLOCK)
    for x in range(0, 150, BLOCK)
]


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a mask in a file beside it."""
    path = tmp_path_factory.mktemp("raster") / "site_20200601.tif"
    rng = np.random.default_rng(1)
    profile = {
        "driver": "GTiff",
        "height": 100,
        "width": 150,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32631",
        "transform": GRID.affine,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "w", **profile) as written:
        written.write(rng.integers(0, 256, (3, 100, 150)).astype(np.uint8))
        written.write_mask(rng.random((100, 150)) > 0.2)
    return path


def upload(raster: Path, folder: ObjectPath) -> ObjectPath:
    for file in raster.parent.iterdir():
        (folder / file.name).upload(file)
    return folder / raster.name


def test_a_raster_and_its_mask_are_read_as_from_a_disk(bucket: ObjectPath, raster: Path) -> None:
    assert Path(f"{raster}.msk").exists()
    there, here = open_mosaic(str(upload(raster, bucket))), open_mosaic(raster)
    assert (there.grid, there.bands, there.dtype, there.date) == (here.grid, here.bands, here.dtype, here.date)
    rows, cols = slice(3, 90), slice(10, 140)
    for found, expected in zip(
        read_source(there.sources[0], (3, 1), rows=rows, cols=cols),
        read_source(here.sources[0], (3, 1), rows=rows, cols=cols),
        strict=True,
    ):
        assert np.array_equal(found, expected)
    assert sorted(there.sources[0].files) == [str(bucket / raster.name), str(bucket / f"{raster.name}.msk")]


def test_the_ways_to_name_a_mosaic(bucket: ObjectPath, raster: Path) -> None:
    path = upload(raster, bucket / "tiles")
    (bucket / "list.txt").write(f"# a comment\ntiles/{raster.name}\n{path}\n".encode())
    for spec, files in (
        (str(path), 1),
        (f"{bucket}/tiles", 1),
        (f"{bucket}/tiles/", 1),
        (f"{bucket}/t*/*_2020*.tif", 1),
        (f"{bucket}/list.txt", 2),
        ([str(path), str(raster)], 2),
    ):
        mosaic = open_mosaic(spec)
        assert len(mosaic.sources) == files
        assert mosaic.grid == open_mosaic(raster).grid


def test_a_zarr_group(bucket: ObjectPath, raster: Path) -> None:
    with rasterio.open(raster) as opened:
        pixels = opened.read()
    image = xr.DataArray(pixels, dims=("band", "y", "x"), name="image").rio.write_crs("EPSG:32631")
    image = image.assign_coords(
        y=5_600_000 - 0.5 * (np.arange(100) + 0.5), x=500_000 + 0.5 * (np.arange(150) + 0.5)
    ).chunk({"y": 50})
    image.to_dataset().to_zarr(zarr_store(bucket / "site_2020.zarr"), zarr_format=3, consolidated=False)
    mosaic = open_mosaic(f"{bucket}/site_2020.zarr")
    assert mosaic.date == datetime(2020, 1, 1)
    found, valid = read_source(mosaic.sources[0], (1, 2, 3), rows=slice(20, 70), cols=slice(5, 9))
    assert np.array_equal(found, pixels[:, 20:70, 5:9])
    assert valid.all()
    digest = digest_mosaic(mosaic)
    sleep(1.1)  # an answer has whole seconds
    chunk = bucket / "site_2020.zarr" / "image" / "c" / "0" / "1" / "0"
    chunk.write(chunk.read_bytes())
    read_source(mosaic.sources[0], (1,), rows=slice(0, 50), cols=slice(5, 9))
    with pytest.raises(ReplacedError, match=r"image/c/0/1/0 was replaced since the run was planned \(modified"):
        read_source(mosaic.sources[0], (1,), rows=slice(20, 70), cols=slice(5, 9))
    (bucket / "site_2020.zarr" / "image" / "c" / "0" / "0" / "0").write(b"other bytes")
    with pytest.raises(
        InputError, match=r"site_2020\.zarr was replaced since the run was planned \(what lies below it"
    ):
        digest_mosaic(mosaic)
    assert digest_mosaic(open_mosaic(f"{bucket}/site_2020.zarr")) != digest


def test_a_digest_follows_the_content(bucket: ObjectPath, raster: Path) -> None:
    mosaic = open_mosaic(str(upload(raster, bucket)))
    digest = digest_mosaic(mosaic)
    upload(raster, bucket)
    assert digest_mosaic(mosaic) == digest, "uploaded again, the same content"
    (bucket / f"{raster.name}.msk").write(b"another mask")
    with pytest.raises(InputError, match=r"\.msk was replaced since the run was planned \(size .*entity tag"):
        digest_mosaic(mosaic)


def test_mosaics_that_cannot_be_opened(
    bucket: ObjectPath, raster: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upload(raster, bucket)
    (bucket / "empty.tif").write(b"")
    (bucket / "text.tif").write(b"no raster")
    for spec, word in (
        (f"{bucket}/missing.tif", "missing.tif does not exist"),
        (f"{bucket}/missing_*.tif", "no object matches"),
        (f"{bucket}/empty.tif", "is empty"),
        (f"{bucket}/text.tif", "is none of GTiff"),
        ("s3://nowhere/before.tif", "there is no bucket nowhere"),
        ([f"{bucket}/missing.tif"], "does not exist"),
    ):
        with pytest.raises(InputError, match=word):
            open_mosaic(spec)
    use(s3_server, monkeypatch, READER)
    assert open_mosaic(str(path)).grid == GRID, "who may read needs no right to write"
    use(s3_server, monkeypatch, ("nobody", "no-secret"))
    with pytest.raises(InputError, match="access denied") as refused:
        open_mosaic(str(path))
    assert "no-secret" not in str(refused.value)


def create(path: Path | ObjectPath) -> RunStore:
    times = [datetime(2010, 5, 1), datetime(2020, 6, 1)]
    create_store(path, grid=GRID, times=times, bands=["red", "green"], dtype="uint8", block=BLOCK, chunk=32)
    return RunStore(path)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 2, 100, 150)).astype(np.uint8)


def test_a_store_in_a_bucket_is_that_on_a_disk(bucket: ObjectPath, images: np.ndarray, tmp_path: Path) -> None:
    assert not store_exists(bucket / "run.zarr")
    there, here = create(bucket / "run.zarr"), create(tmp_path / "run.zarr")
    assert store_exists(there.path)
    there = pickle.loads(pickle.dumps(there))
    assert not any(secret.encode() in pickle.dumps(there) for secret in OWNER)
    for rows, cols in BLOCKS:
        digests = set()
        for store in (there, here):
            for time in range(2):
                image = images[time, :, rows, cols]
                store.write_image(time, image, image[0] > 20, rows=rows, cols=cols)
            digests.add(store.write_probability(images[:1, 0, rows, cols] // 255 * 255, rows=rows, cols=cols))
        assert len(digests) == 1
    rows, cols = slice(-20, 90), slice(50, 170)
    for found, expected in zip(
        there.read_series(rows=rows, cols=cols), here.read_series(rows=rows, cols=cols), strict=True
    ):
        assert np.array_equal(found, expected)
    stored = {str(path.relative_to(there.path)): path.read_bytes() for path, _ in there.path.walk()}
    on_disk = {str(file.relative_to(here.path)): file.read_bytes() for file in here.path.rglob("*") if file.is_file()}
    assert stored == on_disk, "the very same objects"
    write_cog(there, bucket / "there.tif")
    write_cog(here, tmp_path / "here.tif")
    assert (bucket / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()
    assert (there.grid, there.block, there.bands, there.times) == (here.grid, here.block, here.bands, here.times)


def test_a_store_that_was_half_created_does_not_exist(bucket: ObjectPath, tmp_path: Path) -> None:
    store = create(bucket / "run.zarr")
    (store.path / "zarr.json").unlink()
    assert not store_exists(store.path)
    create(bucket / "run.zarr")
    assert store_exists(store.path)


def test_a_missing_shard_is_an_error_and_never_a_fill_value(bucket: ObjectPath) -> None:
    store = create(bucket / "run.zarr")
    with pytest.raises(
        IntegrityError, match=rf"{bucket}/run\.zarr/image/c/[01]/0/0/0 is missing"
    ):  # whichever date answers first
        store.read_series(rows=slice(0, 10), cols=slice(0, 10))
    rows, cols = BLOCKS[0]
    store.write_probability(np.full((1, 64, 64), 255, np.uint8), rows=rows, cols=cols)
    assert (store.read_probability(rows=rows, cols=cols) == 255).all()
    (store.path / "change_probability" / "c" / "0" / "0" / "0").unlink()
    for part in (slice(0, 64), slice(10, 20)):
        with pytest.raises(IntegrityError, match="change_probability/c/0/0/0 is missing"):
            store.read_probability(rows=part, cols=part)


@pytest.mark.parametrize("side", [64, 40], ids=["the whole shard", "a part of it, as a halo"])
def test_no_flipped_byte_goes_unnoticed(bucket: ObjectPath, side: int) -> None:
    store, (rows, cols) = create(bucket / "run.zarr"), BLOCKS[0]
    written = np.random.default_rng(4).integers(0, 4, (1, 64, 64)).astype(np.uint8)
    store.write_probability(written, rows=rows, cols=cols)
    shard = store.path / "change_probability" / "c" / "0" / "0" / "0"
    intact = shard.read_bytes()
    part = slice(0, side)
    for position in range(0, len(intact), 37):
        content = bytearray(intact)
        content[position] ^= 0xFF
        shard.write(bytes(content))
        try:
            found = store.read_probability(rows=part, cols=part)
        except IntegrityError as error:
            assert "bytes have changed" in str(error)
        else:
            assert np.array_equal(found, written[0, part, part]), position
