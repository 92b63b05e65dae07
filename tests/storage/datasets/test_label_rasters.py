"""Label rasters as files hold them: types, palettes, alpha, masks, nodata, and grids of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import Resampling, reproject

from storage.datasets.label_descriptions import describe_label
from storage.datasets.label_options import LabelOptions
from storage.datasets.label_rasters import open_label
from storage.datasets.label_readers import label_reader
from storage.datasets.label_rules import rule_of
from storage.errors import InputError, ShortReadError
from tests.rasters import geotiff

SHAPE = np.zeros((96, 80), dtype=np.uint8)
SHAPE[20:50, 30:70] = 1
SHAPE[60:90, 10:25] = 1
WHERE = Affine(1, 0, 500_000, 0, -1, 5_600_000)
GRID = GeoBox(SHAPE.shape, WHERE, "EPSG:32631")


def read(path: Path | str, grid: GeoBox = GRID, **named: tuple[float, ...]) -> NDArray[np.uint8]:
    """A label raster by its own rule, on a grid."""
    label = open_label(str(path))
    rule = rule_of({str(path): label.counts()[0]}, LabelOptions(**named))
    reader, _ = label_reader(label, grid, images=grid, images_path="before.tif")
    return rule.apply(str(path), *reader.read(rows=slice(0, grid.height), cols=slice(0, grid.width)))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]
)
def test_whole_numbers_of_any_type_are_read(tmp_path: Path, dtype: str) -> None:
    if dtype == "float16" and rasterio.__gdal_version__ < "3.11":
        pytest.skip("this GDAL has no float16")
    geotiff(tmp_path / "l.tif", SHAPE[None].astype(dtype))
    np.testing.assert_array_equal(read(tmp_path / "l.tif"), SHAPE)


def test_one_bit_a_pixel(tmp_path: Path) -> None:
    geotiff(tmp_path / "l.tif", SHAPE[None], nbits=1)
    Image.fromarray(SHAPE.astype(bool)).save(tmp_path / "l.png")
    for name in ("l.tif", "l.png"):
        np.testing.assert_array_equal(read(tmp_path / name), SHAPE)


def test_complex_numbers_and_bands_that_differ_are_refused(tmp_path: Path) -> None:
    geotiff(tmp_path / "c.tif", SHAPE[None].astype("complex64"))
    with pytest.raises(InputError, match=r"c\.tif .*complex64"):
        open_label(str(tmp_path / "c.tif"))
    geotiff(tmp_path / "rgb.tif", np.stack([SHAPE * 255, SHAPE, SHAPE]))
    with pytest.raises(InputError, match="is coloured"):
        read(tmp_path / "rgb.tif")


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ({0: (0, 0, 0, 255), 1: (255, 255, 255, 255)}, SHAPE),
        ({0: (255, 255, 255, 255), 1: (0, 0, 0, 255)}, 1 - SHAPE),
        ({0: (0, 0, 0, 255), 1: (255, 0, 0, 255)}, SHAPE),
        ({0: (10, 200, 10, 255), 1: (255, 0, 0, 255)}, SHAPE),
    ],
    ids=["black and white", "white and black", "black and red", "green and red"],
)
def test_a_grey_palette_means_its_greys_another_its_indices(
    tmp_path: Path, colours: dict[int, tuple[int, int, int, int]], expected: NDArray[np.uint8]
) -> None:
    geotiff(tmp_path / "l.tif", SHAPE[None])
    with rasterio.open(tmp_path / "l.tif", "r+") as file:
        file.write_colormap(1, colours)
    picture = Image.fromarray(SHAPE, mode="P")
    picture.putpalette([part for index in sorted(colours) for part in colours[index][:3]])
    picture.save(tmp_path / "l.png")
    for name in ("l.tif", "l.png"):
        np.testing.assert_array_equal(read(tmp_path / name), expected)
        assert any("palette" in note for note in open_label(str(tmp_path / name)).notes)


def test_an_index_without_a_colour_is_not_black(tmp_path: Path) -> None:
    values = SHAPE.copy()
    values[:, 70:] = 255
    geotiff(tmp_path / "l.tif", values[None])
    with rasterio.open(tmp_path / "l.tif", "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 255, 255, 255)})
    with pytest.raises(InputError, match="has the value 255, which has no colour of its own"):
        read(tmp_path / "l.tif")


def test_a_transparent_colour_of_a_palette_is_ignored_or_its_value(tmp_path: Path) -> None:
    values = SHAPE.copy()
    values[:5] = 2
    for name, pixels, clear in (("border", values, 2), ("unchanged", SHAPE, 0)):
        picture = Image.fromarray(pixels, mode="P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 9, 9, 9])
        opacity = bytearray([255, 255, 255])
        opacity[clear] = 0
        picture.save(tmp_path / f"{name}.png", transparency=bytes(opacity))
    border = read(tmp_path / "border.png")
    assert (border[:5] == 255).all() and (border[5:] == SHAPE[5:]).all()
    np.testing.assert_array_equal(read(tmp_path / "unchanged.png"), SHAPE)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_where_unchanged(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(SHAPE * 255).convert(mode)
    grey.putalpha(Image.fromarray(SHAPE * 255))
    grey.save(tmp_path / "l.png")
    np.testing.assert_array_equal(read(tmp_path / "l.png"), SHAPE)


def test_alpha_and_masks_at_the_border_are_ignored(tmp_path: Path) -> None:
    opaque = np.full_like(SHAPE, 255)
    opaque[:9] = 0
    geotiff(tmp_path / "alpha.tif", np.stack([SHAPE, opaque]))
    with rasterio.open(tmp_path / "alpha.tif", "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        geotiff(tmp_path / "mask.tif", SHAPE[None])
        with rasterio.open(tmp_path / "mask.tif", "r+") as file:
            file.write_mask(opaque)
    for name in ("alpha.tif", "mask.tif"):
        label = read(tmp_path / name)
        assert (label[:9] == 255).all() and (label[9:] == SHAPE[9:]).all(), name


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", 0), ("uint8", 1), ("int16", 0)])
def test_nodata_that_is_a_class_is_that_class(tmp_path: Path, dtype: str, nodata: float) -> None:
    geotiff(tmp_path / "l.tif", SHAPE[None].astype(dtype), nodata=nodata)
    np.testing.assert_array_equal(read(tmp_path / "l.tif"), SHAPE)


def test_tiles_all_of_nodata_that_is_a_class_count(tmp_path: Path) -> None:
    for number, rows in enumerate((slice(0, 20), slice(20, 96))):
        part = geotiff(
            tmp_path / f"t{number}.tif",
            SHAPE[None, rows],
            nodata=0,
            transform=WHERE * Affine.translation(0, rows.start),
        )
        assert part.exists()
    np.testing.assert_array_equal(read(tmp_path), SHAPE)


def test_a_zarr_group(tmp_path: Path) -> None:
    y, x = 5_600_000 - 0.5 - np.arange(96), 500_000.5 + np.arange(80)
    array = xr.DataArray(SHAPE, dims=("y", "x"), coords={"y": y, "x": x}, name="image")
    array.rio.write_crs("EPSG:32631").to_dataset().to_zarr(tmp_path / "l.zarr", zarr_format=3, consolidated=False)
    np.testing.assert_array_equal(read(tmp_path / "l.zarr"), SHAPE)


@pytest.mark.parametrize(
    ("transform", "turned"),
    [
        (Affine(1, 0, 500_000, 0, 1, 5_600_000 - 96), SHAPE[::-1]),
        (Affine(-1, 0, 500_080, 0, -1, 5_600_000), SHAPE[:, ::-1]),
    ],
    ids=["south-up", "mirrored"],
)
def test_south_up_and_mirrored_labels_lie_where_they_lie(
    tmp_path: Path, transform: Affine, turned: NDArray[np.uint8]
) -> None:
    geotiff(tmp_path / "l.tif", np.ascontiguousarray(turned)[None], transform=transform)
    np.testing.assert_array_equal(read(tmp_path / "l.tif"), SHAPE)


OTHER_GRIDS: list[dict[str, Any]] = [
    {"transform": Affine(2, 0, 500_010.3, 0, -2, 5_599_990.7)},
    {"transform": Affine(0.5, 0, 500_020.2, 0, -0.5, 5_599_970.1)},
    {"transform": Affine(1, 0, 500_033, 0, -1, 5_599_980)},
    {"crs": "EPSG:4326", "transform": Affine(1.5e-5, 0, 3.0001, 0, -1e-5, 50.55185)},
    {"crs": "EPSG:3857", "transform": Affine(2.3, 0, 333_960.0, 0, -2.3, 6_542_400.0)},
]


@pytest.mark.parametrize("place", OTHER_GRIDS, ids=["coarser", "finer", "whole shift", "degrees", "mercator"])
def test_on_another_grid_it_is_the_nearest_pixel_as_gdal_has_it(tmp_path: Path, place: dict[str, Any]) -> None:
    values = np.random.default_rng(1).integers(0, 2, (1, 60, 70)).astype(np.uint8)
    path = geotiff(tmp_path / "l.tif", values, **place)
    expected = np.full(SHAPE.shape, 255, dtype=np.uint8)
    with rasterio.open(path) as file:
        reproject(
            rasterio.band(file, 1),
            expected,
            dst_transform=WHERE,
            dst_crs="EPSG:32631",
            dst_nodata=255,
            resampling=Resampling.nearest,
            tolerance=0,
        )
    label = open_label(str(path))
    reader, note = label_reader(label, GRID, images=GRID, images_path="before.tif")
    found, state = reader.read(rows=slice(0, 96), cols=slice(0, 80))
    here = np.where(state == 3, 255, found)
    assert (here != 255).mean() > 0.1 and (here != expected).mean() < 0.002
    assert (note is None) == (place == OTHER_GRIDS[2])
    part, _ = reader.read(rows=slice(30, 61), cols=slice(17, 66))
    np.testing.assert_array_equal(part, found[30:61, 17:66])


def test_a_label_elsewhere_or_of_much_larger_pixels_is_refused(tmp_path: Path) -> None:
    for name, transform, words in (
        ("far", Affine(1, 0, 700_000, 0, -1, 5_600_000), r"far\.tif does not overlap before\.tif"),
        ("coarse", Affine(30, 0, 499_000, 0, -30, 5_601_000), r"pixels 30 times as large as those of before\.tif"),
        ("fine", Affine(0.1, 0, 500_000, 0, -0.1, 5_600_000), r"pixels 10 times as small as those of before\.tif"),
    ):
        path = geotiff(tmp_path / f"{name}.tif", SHAPE[None], transform=transform)
        with pytest.raises(InputError, match=words):
            read(path)


def test_a_picture_lies_on_the_images_pixels_or_is_refused(tmp_path: Path) -> None:
    Image.fromarray(SHAPE * 255).save(tmp_path / "l.png")
    _, note = label_reader(open_label(str(tmp_path / "l.png")), GRID, images=GRID, images_path="before.tif")
    assert note is not None and "no georeferencing" in note
    Image.fromarray(SHAPE[:50]).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png has 80 × 50 px, before\.tif has 80 × 96 px"):
        read(tmp_path / "small.png")


def test_a_label_that_is_cut_off_is_an_error_of_its_block(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1, 96, 80)).astype(np.uint8)
    path = geotiff(tmp_path / "l.tif", noise, compress="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises((ShortReadError, InputError)):
        read(path)


def test_a_description_tells_values_rule_and_refusal(tmp_path: Path) -> None:
    values = SHAPE.copy()
    values[:24] = 255
    path = geotiff(tmp_path / "l.tif", values[None])
    described = json.loads(json.dumps(describe_label(str(path)).to_dict()))
    assert {row["value"]: row["share"] for row in described["values"]} == {
        float(value): pytest.approx(float((values == value).mean())) for value in (0, 1, 255)
    }
    assert described["rule"]["ignored"] == [255] and described["refused"] is None and described["looked_at"] == 1
    assert described["crs"] == "EPSG:32631" and (described["width"], described["height"]) == (80, 96)
    odd = geotiff(tmp_path / "odd.tif", (SHAPE + 1)[None])
    refused = describe_label(str(odd))
    assert refused.rule is None and "--changed" in (refused.refused or "")
    assert describe_label(str(odd), LabelOptions(changed=(2,), unchanged=(1,))).refused is None
    with pytest.raises(InputError, match="does not exist"):
        describe_label(str(tmp_path / "none.tif"))
