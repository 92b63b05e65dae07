"""Parts of a COG and their join, against a whole-image oracle, GDAL and rio-cogeo."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rio_cogeo import cog_validate

from storage.errors import IntegrityError
from storage.products.cog import probability_layer, write_layer
from storage.products.geotiff.join import join_cog
from storage.products.geotiff.layer import Layer
from storage.products.geotiff.layout import CogLayout
from storage.products.geotiff.tiles import StoredPart, cut_tiles, deflate, encode
from storage.products.plates import Plates

PLATE, TILE = 64, 16
DAYS = Layer(dtype="int32", nodata=-1, description="days", overviews="NEAREST", tags={"WHAT": "days & <nights>"})


def layout_of(pixels: NDArray[Any], *, plate: int = PLATE, tile: int = TILE) -> CogLayout:
    height, width = pixels.shape
    return CogLayout(plates=Plates(height=height, width=width, size=plate), tile=tile)


def grid_of(pixels: NDArray[Any]) -> GeoBox:
    return GeoBox(pixels.shape, Affine(2, 0, 500_000, 0, -2, 5_600_000), "EPSG:32631")


def store(folder: Path, pixels: NDArray[Any], layer: Layer, *, backwards: bool = False) -> Callable[[int], StoredPart]:
    """Write the part of each plate into a file of its own."""
    folder.mkdir(exist_ok=True)
    layout = layout_of(pixels)
    for plate in reversed(list(layout.plates)) if backwards else layout.plates:
        part = encode(pixels[plate.rows, plate.cols], layer, layout=layout, number=plate.number)
        (folder / plate.name).write_bytes(part.to_bytes())
    return lambda number: StoredPart(folder / layout.plates[number].name)


def join(path: Path, pixels: NDArray[Any], layer: Layer, parts: Callable[[int], StoredPart], **more: Any) -> None:
    join_cog(path, layer, grid=grid_of(pixels), parts=parts, plate=PLATE, tile=TILE, **more)


def coarser(pixels: NDArray[Any], layer: Layer) -> NDArray[Any]:
    """Half the resolution, pixel by pixel and in fractions, as the words of the layer say it."""
    height, width = pixels.shape
    result = np.empty((-(-height // 2), -(-width // 2)), dtype=pixels.dtype)
    for y, x in np.ndindex(result.shape):
        corner = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        values = corner[corner != layer.nodata]
        if layer.overviews == "NEAREST":
            result[y, x] = corner[0, 0]
        else:
            result[y, x] = np.floor(values.astype(float).mean() + 0.5) if values.size else layer.nodata
    return result


def check_against_oracle(path: Path, pixels: NDArray[Any], layer: Layer) -> None:
    """All levels, read by GDAL and by tifffile, are those of the whole image."""
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset, tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1 + len(dataset.overviews(1))
        assert np.array_equal(dataset.read(1), pixels)
        assert np.array_equal(tiff.pages[0].asarray(), pixels)
        for level in range(len(dataset.overviews(1))):
            assert max(pixels.shape) > TILE, "levels go on while one tile does not hold the image"
            pixels = coarser(pixels, layer)
            with rasterio.open(path, OVERVIEW_LEVEL=level) as overview:
                assert np.array_equal(overview.read(1), pixels)
                assert overview.nodata == layer.nodata
            assert np.array_equal(tiff.pages[level + 1].asarray(), pixels)
        assert max(pixels.shape) <= TILE


@st.composite
def images(draw: st.DrawFn) -> tuple[NDArray[Any], Layer]:
    height, width = draw(st.integers(1, 3 * PLATE)), draw(st.integers(2, 3 * PLATE))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    holes = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    layer: Layer = draw(st.sampled_from([probability_layer(), replace(probability_layer(), overviews="NEAREST"), DAYS]))
    values = rng.integers(0, 255, (height, width)) if layer.dtype == "uint8" else rng.integers(0, 2**31, holes.shape)
    return np.where(holes, layer.nodata, values).astype(layer.dtype), layer


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image=images())
def test_every_level_is_that_of_the_whole_image(image: tuple[NDArray[Any], Layer], tmp_path: Path) -> None:
    pixels, layer = image
    join(tmp_path / "a.tif", pixels, layer, store(tmp_path / "parts", pixels, layer))
    check_against_oracle(tmp_path / "a.tif", pixels, layer)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 255, (150, 200)).astype(np.uint8)
    pixels[:70, 30:90] = 255
    return pixels


def test_the_same_bytes_whatever_the_order_the_strips_and_the_format_of_parts(
    pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    layer = probability_layer({"FIRST_PASS": "none"})
    join(tmp_path / "a.tif", pixels, layer, store(tmp_path / "forth", pixels, layer))
    join(tmp_path / "b.tif", pixels, layer, store(tmp_path / "back", pixels, layer, backwards=True))
    for height in (1, 13, 64, 150):
        rows = [slice(y, min(y + height, 150)) for y in range(0, 150, height)]
        strips = [(some, pixels[some]) for some in rows]
        path = tmp_path / f"{height}.tif"
        write_layer(path, layer, grid=grid_of(pixels), strips=strips, plate=PLATE, tile=TILE)
        assert path.read_bytes() == (tmp_path / "a.tif").read_bytes()
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()


def test_what_the_file_says_of_itself(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    days = pixels.astype(np.int32)
    join(tmp_path / "a.tif", days, DAYS, store(tmp_path / "parts", days, DAYS))
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert (dataset.dtypes, dataset.nodata, dataset.units) == (("int32",), -1, ("1",))
        assert (dataset.scales, dataset.offsets, dataset.descriptions) == ((1.0,), (0.0,), ("days",))
        assert (dataset.crs.to_epsg(), dataset.transform) == (32631, grid_of(pixels).affine)
        assert dataset.tags() == {"AREA_OR_POINT": "Area", "WHAT": "days & <nights>"}
        assert dataset.compression.value == "DEFLATE" and dataset.block_shapes == [(TILE, TILE)]
    with rasterio.open(tmp_path / "a.tif", OVERVIEW_LEVEL=0) as overview:
        assert overview.transform == grid_of(pixels).affine * Affine.scale(2)


def test_levels_lie_coarsest_first_and_directories_before_all_tiles(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    layer = probability_layer()
    join(tmp_path / "a.tif", pixels, layer, store(tmp_path / "parts", pixels, layer))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        spans = [
            (min(page.dataoffsets), max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))))
            for page in tiff.pages
        ]
        assert not tiff.is_bigtiff
        assert [page.offset for page in tiff.pages] == sorted(page.offset for page in tiff.pages)
        assert max(page.offset for page in tiff.pages) < spans[-1][0]
    finest_last = spans[::-1]
    assert all(end == start for (_, end), (start, _) in pairwise(finest_last))
    assert finest_last[-1][1] == (tmp_path / "a.tif").stat().st_size


def test_one_byte_more_than_a_classic_tiff_holds_makes_a_bigtiff(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    layer = probability_layer()
    parts = store(tmp_path / "parts", pixels, layer)
    join(tmp_path / "a.tif", pixels, layer, parts)
    size = (tmp_path / "a.tif").stat().st_size
    join(tmp_path / "just.tif", pixels, layer, parts, most_classic=size)
    assert (tmp_path / "just.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()
    join(tmp_path / "big.tif", pixels, layer, parts, most_classic=size - 1)
    with tifffile.TiffFile(tmp_path / "big.tif") as tiff:
        assert tiff.is_bigtiff
    check_against_oracle(tmp_path / "big.tif", pixels, layer)
    with rasterio.open(tmp_path / "a.tif") as classic, rasterio.open(tmp_path / "big.tif") as big:
        assert (classic.profile, classic.tags(), classic.units) == (big.profile, big.tags(), big.units)


def test_plates_and_tiles_of_the_usual_size(tmp_path: Path) -> None:
    """Three plates across, where the level at 1/8 has tiles of two plates, and nothing fits evenly."""
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 4, (2049, 5003)).astype(np.uint8)
    strips = [(slice(y, min(y + 512, 2049)), pixels[y : y + 512]) for y in range(0, 2049, 512)]
    layer = probability_layer()
    write_layer(tmp_path / "a.tif", layer, grid=grid_of(pixels), strips=strips)
    assert cog_validate(tmp_path / "a.tif", strict=True, quiet=True)[0]
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.block_shapes == [(512, 512)] and len(dataset.overviews(1)) == 4
        assert np.array_equal(dataset.read(1), pixels)
    for level in range(4):
        height, width = (-(-side // 2) * 2 for side in pixels.shape)
        even = np.full((height, width), np.nan)
        even[: pixels.shape[0], : pixels.shape[1]] = pixels
        pixels = np.floor(np.nanmean(even.reshape(height // 2, 2, width // 2, 2), axis=(1, 3)) + 0.5).astype(np.uint8)
        with rasterio.open(tmp_path / "a.tif", OVERVIEW_LEVEL=level) as overview:
            assert np.array_equal(overview.read(1), pixels)


def _damaged(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "is truncated"),
        (lambda content: content[:40], "is truncated"),
        (lambda content: content[:-1], "is truncated"),
        (lambda content: content[: len(content) // 2], "is truncated"),
        (lambda content: b"PK" + content[2:], "is no part of this COG: kind"),
        (lambda content: _damaged(content, 70), "header"),
        (lambda content: _damaged(content, 300), "is damaged: bytes"),
        (lambda content: _damaged(content, len(content) - 1), "is damaged: bytes"),
    ],
)
def test_a_part_that_is_not_what_was_written_is_refused(
    damage: Callable[[bytes], bytes], words: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    layer = probability_layer()
    parts = store(tmp_path / "parts", pixels, layer)
    path = parts(5).path
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match=words) as error:
        join(tmp_path / "a.tif", pixels, layer, parts)
    assert str(path) in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parts"]


def test_parts_of_something_else_are_refused(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    layer = probability_layer()
    parts = store(tmp_path / "parts", pixels, layer)
    with pytest.raises(IntegrityError, match="number 1, not 0"):
        join(tmp_path / "a.tif", pixels, layer, lambda number: parts({0: 1, 1: 0}.get(number, number)))
    with pytest.raises(IntegrityError, match="overviews 'AVERAGE', not 'NEAREST'"):
        join(tmp_path / "a.tif", pixels, replace(layer, overviews="NEAREST"), parts)
    with pytest.raises(IntegrityError, match="height 150, not 140"):
        join(tmp_path / "a.tif", pixels[:140], layer, parts)
    parts(3).path.unlink()
    with pytest.raises(IntegrityError, match=r"r00000c00003, a part of a COG, is missing"):
        join(tmp_path / "a.tif", pixels, layer, parts)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parts"]


def test_a_join_that_is_stopped_leaves_nothing_and_drafts_of_killed_ones_go(
    pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    layer = probability_layer()
    parts = store(tmp_path / "parts", pixels, layer)
    (tmp_path / ".a-killed.tif").write_bytes(b"half")

    def conclude() -> None:
        raise IntegrityError("scripted")

    with pytest.raises(IntegrityError, match="scripted"):
        join(tmp_path / "a.tif", pixels, layer, parts, conclude=conclude)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parts"]


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_streams_are_those_of_zlib(dtype: str) -> None:
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 200, (40, 33)).astype(dtype)
    layer = Layer(dtype=dtype, nodata=np.iinfo(dtype).max, description="any")
    padded = np.full((48, 48), layer.nodata, dtype=dtype)
    padded[:40, :33] = pixels
    streams = deflate(cut_tiles(pixels, layer, tile=16))
    for number, stream in enumerate(streams):
        y, x = divmod(number, 3)
        tile = padded[16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        assert zlib.decompress(stream) == struct.pack(f"<256{'B' if dtype == 'uint8' else 'i'}", *tile.ravel().tolist())


def test_what_cannot_be_cut_is_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"plates of 48 px are no power of two of tiles of 16 px"):
        layout_of(pixels, plate=48)
    with pytest.raises(ValueError, match="tiles of 24 px"):
        layout_of(pixels, plate=48, tile=24)
    with pytest.raises(ValueError, match=r"plate r00000c00003 has 64 × 8 px of uint8, not 64 × 64 of uint8"):
        encode(pixels[:64, :64], probability_layer(), layout=layout_of(pixels), number=3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dtype": "float32"}, "whole numbers"),
        ({"dtype": "int32"}, "can be a mean"),
        ({"nodata": 256}, "is no value of uint8"),
    ],
)
def test_layers_that_cannot_be_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(probability_layer(), **wrong)
