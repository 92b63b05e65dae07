"""The COG against rasterio, GDAL and the array it was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
from rio_cogeo import cog_validate

from storage.errors import IntegrityError
from storage.products.cog import write_cog
from tests.storage.products.memory import MemoryRun


@pytest.fixture
def run() -> MemoryRun:
    rng = np.random.default_rng(4)
    probability = rng.integers(0, 255, (1300, 1700)).astype(np.uint8)
    probability[:400, :500] = 255
    return MemoryRun(probability, block=512)


def test_a_valid_cog_with_the_same_pixels(run: MemoryRun, tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    result = write_cog(run, path)
    assert result.pixels_sha256 == hashlib.sha256(hashlib.sha256(run.probability.tobytes()).digest()).hexdigest()
    assert result.histogram[255] == 200_000
    assert result.valid_pixels == 1300 * 1700 - 200_000
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(1), run.probability)
        assert dataset.nodata == 255
        assert dataset.scales == (pytest.approx(1 / 254),)
        assert dataset.descriptions == ("change probability",)
        assert dataset.transform == run.grid.affine
        assert dataset.crs.to_epsg() == 32631
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.tif"]
    assert len(run.reads) == 12, "each block is read once"


def test_the_digest_is_that_of_the_plates_whatever_the_blocks(run: MemoryRun, tmp_path: Path) -> None:
    total = hashlib.sha256()
    for y in range(0, 1300, 256):
        for x in range(0, 1700, 256):
            total.update(hashlib.sha256(run.probability[y : y + 256, x : x + 256].tobytes()).digest())
    for block in (100, 512, 2048):
        run.block = block
        result = write_cog(run, tmp_path / f"{block}.tif", plate=256, tile=64)
        assert result.pixels_sha256 == total.hexdigest()
        assert result.histogram == tuple(np.bincount(run.probability.ravel(), minlength=256))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_overviews_leave_nodata_out(run: MemoryRun, tmp_path: Path) -> None:
    run.probability[:] = 100
    run.probability[:, 1::2] = 255
    write_cog(run, tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) == {100}


def test_probabilities_are_decoded(run: MemoryRun, tmp_path: Path) -> None:
    write_cog(run, tmp_path / "p.tif")
    decoded = rioxarray.open_rasterio(tmp_path / "p.tif", mask_and_scale=True)
    assert np.isnan(decoded.to_numpy()[0, 0, 0])
    assert decoded.to_numpy()[0, 1000, 1000] == pytest.approx(run.probability[1000, 1000] / 254)


def test_nothing_appears_when_a_block_is_not_what_it_should_be(run: MemoryRun, tmp_path: Path) -> None:
    seen = []

    def conclude() -> None:
        raise IntegrityError("scripted")

    with pytest.raises(IntegrityError, match="scripted"):
        write_cog(
            run, tmp_path / "p.tif", check=lambda rows, cols, pixels: seen.append(pixels.shape), conclude=conclude
        )
    assert len(seen) == 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3072, 2048), (768, 512), (2048, 3072), (512, 768), (513, 512), (1100, 1024)])
def test_images_that_are_one_tile_wide_at_some_level_are_cogs_too(shape: tuple[int, int], tmp_path: Path) -> None:
    """Such a level has blocks as wide as itself, as strips would have."""
    import tifffile

    probability = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_cog(MemoryRun(probability, block=512), tmp_path / "p.tif")
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        assert all(page.is_tiled and page.tile == (512, 512) for page in file.pages)
    with rasterio.open(tmp_path / "p.tif") as file:
        assert np.array_equal(file.read(1), probability)
