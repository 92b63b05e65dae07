"""Files that lie: each is refused from its header, by name and with the values, in under a second."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from storage.errors import InputError
from storage.imagery.mosaics import open_mosaic
from tests.rasters import geotiff


def raster(path: Path, pixels: np.ndarray | None = None, **profile: object) -> Path:
    """A georeferenced RGB GeoTIFF of 256 × 256 px."""
    random = np.random.default_rng(0)
    return geotiff(
        path, random.integers(1, 255, (3, 256, 256)).astype(np.uint8) if pixels is None else pixels, **profile
    )


def refused(path: Path | str, *words: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        open_mosaic(path)
    assert time.monotonic() - began < 1.0
    for word in words:
        assert word in str(caught.value)


def test_missing_empty_and_not_a_raster(tmp_path: Path) -> None:
    refused(tmp_path / "nope.tif", "nope.tif", "does not exist")
    (tmp_path / "empty.tif").touch()
    refused(tmp_path / "empty.tif", "empty.tif", "0 bytes")
    (tmp_path / "text.tif").write_text("no pixels here")
    refused(tmp_path / "text.tif", "text.tif", "GTiff")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "without rasters")
    refused(str(tmp_path / "*.img"), "no file matches")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_truncated(tmp_path: Path, share: float, driver: str) -> None:
    whole = raster(tmp_path / "whole.tif", driver=driver).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(len(whole) * share)])
    refused(cut, "cut.tif")


def test_truncated_envi(tmp_path: Path) -> None:
    path = raster(tmp_path / "scene.img", driver="ENVI")
    path.write_bytes(path.read_bytes()[:100_000])
    refused(path, "scene.img", "100,000", "truncated")


def test_a_vrt_under_the_name_of_a_tiff(tmp_path: Path) -> None:
    secret = raster(tmp_path / "secret.tif")
    text = (
        '<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>500000, 1, 0, 5600000, 0, -1</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for name in ("trojan.tif", "honest.vrt"):
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, name)


def _patch_tag(path: Path, tag: int, value: int) -> None:
    """Overwrite the value of a LONG or SHORT tag in the first directory of a classic little-endian TIFF."""
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0]
    for entry in range(struct.unpack_from("<H", content, start)[0]):
        at = start + 2 + 12 * entry
        if struct.unpack_from("<H", content, at)[0] == tag:
            struct.pack_into("<HII", content, at + 2, 4, 1, value)
    path.write_bytes(content)


@pytest.mark.parametrize("side", [200_000, 2_000_000_000])
def test_a_header_that_claims_absurd_size(tmp_path: Path, side: int) -> None:
    path = raster(tmp_path / "huge.tif", tiled=True, blockxsize=256, blockysize=256)
    _patch_tag(path, 256, side)
    _patch_tag(path, 257, side)
    refused(path, "huge.tif")


def test_a_header_that_claims_an_absurd_tile(tmp_path: Path) -> None:
    path = raster(tmp_path / "tile.tif", tiled=True, blockxsize=256, blockysize=256)
    for tag in (256, 257, 322, 323):
        _patch_tag(path, tag, 1_000_000)
    refused(path, "tile.tif")


def test_large_and_almost_empty_is_no_attack(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=3,
        height=24_000,
        width=24_000,
        dtype="uint8",
        crs="EPSG:32631",
        tiled=True,
        transform=Affine(1, 0, 0, 0, -1, 0),
        compress="zstd",
        sparse_ok=True,
    ) as dataset:
        dataset.write(np.full((3, 512, 512), 7, np.uint8), window=rasterio.windows.Window(0, 0, 512, 512))
    assert open_mosaic(path).grid.shape == (24_000, 24_000)


def _without_crs(path: Path) -> Path:
    return raster(path, crs=None)


def _rotated(path: Path) -> Path:
    return raster(path, transform=Affine.translation(500_000, 5_600_000) @ Affine.rotation(10) @ Affine.scale(1, -1))


def _nowhere(path: Path) -> Path:
    return raster(path, transform=Affine.identity())


def _all_nodata(path: Path) -> Path:
    return raster(path, np.zeros((3, 256, 256), np.uint8), nodata=0)


def _all_nan(path: Path) -> Path:
    return raster(path, np.full((3, 256, 256), np.nan, np.float32))


def _complex(path: Path) -> Path:
    return raster(path, np.zeros((1, 64, 64), np.complex64))


def _complex(path: Path) -> Path:
    return raster(path, np.ones((1, 64, 64), np.complex64))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (_without_crs, "no coordinate reference system"),
        (_rotated, "rotated geotransform"),
        (_nowhere, "geotransform"),
        (_all_nodata, "no valid pixel"),
        (_all_nan, "no valid pixel"),
        (_complex, "complex64"),
        (_complex, "complex64"),
    ],
)
def test_rasters_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], Path], word: str) -> None:
    refused(make(tmp_path / "a.tif"), "a.tif", word)


def test_files_that_do_not_make_one_mosaic(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif", np.ones((2, 64, 64), np.uint8))
    refused(tmp_path, "do not make one mosaic", "a.tif has 3 bands", "b.tif has 2")


def test_one_valid_pixel_is_found_wherever_it_is(tmp_path: Path) -> None:
    pixels = np.zeros((3, 256, 256), np.uint8)
    pixels[:, 201, 77] = 5
    assert open_mosaic(raster(tmp_path / "a.tif", pixels, nodata=0)).grid.shape == (256, 256)
