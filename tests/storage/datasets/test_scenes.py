"""Scenes: pictures by their pixels, mosaics by their coordinates, labels as rasters, polygons or masks of two dates."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import rasterize
from shapely.geometry import Point, box

from storage.datasets.label_rules import LabelRule
from storage.datasets.label_values import LabelCounts
from storage.datasets.scenes import SceneFiles, label_on_grid, open_image, open_scene
from storage.errors import InputError

RANDOM = np.random.default_rng(0)
NARROW = LabelRule(changed=((1, 1),), unchanged=((0, 0),), why="a test's")
WIDE = LabelRule(changed=((128, 255),), unchanged=((0, 127),), why="a test's")
ALL = {"rows": slice(0, 60), "cols": slice(0, 80)}


def image(height: int = 60, width: int = 80, bands: int = 3, dtype: str = "uint8") -> NDArray[np.generic]:
    return RANDOM.integers(1, 255, (bands, height, width)).astype(dtype)


def write(
    path: Path, pixels: NDArray[np.generic], *, left: float | None = 500_000.0, nodata: float | None = None
) -> str:
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    place = {} if left is None else {"crs": "EPSG:32631", "transform": Affine(2, 0, left, 0, -2, 5_000_000)}
    with rasterio.open(path, "w", dtype=pixels.dtype, nodata=nodata, alpha="no", **profile, **place) as file:
        file.write(pixels)
    return str(path)


def label(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    values = np.zeros((1, height, width), dtype=np.uint8)
    values[:, 10:30, 20:50] = 1
    return values


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_pictures_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    first, second = image(), image()
    for name, pixels in (("a", first), ("b", second)):
        Image.fromarray(np.moveaxis(pixels, 0, -1)).save(tmp_path / f"{name}.{suffix}")
    Image.fromarray(label()[0] * 255).save(tmp_path / "l.png")
    scene = open_scene(
        SceneFiles(
            name="s",
            before=str(tmp_path / f"a.{suffix}"),
            after=str(tmp_path / f"b.{suffix}"),
            label=str(tmp_path / "l.png"),
        )
    )
    assert scene.grid.crs is None and scene.bands == ("red", "green", "blue")
    for reader, pixels in ((scene.before, first), (scene.after, second)):
        found, valid = reader.read(rows=slice(5, 25), cols=slice(7, 80))
        np.testing.assert_array_equal(found, pixels[:, 5:25, 7:80])
        assert valid.all()
    np.testing.assert_array_equal(scene.read_label(WIDE, **ALL), label()[0])
    assert scene.label_counts(**ALL) == {str(tmp_path / "l.png"): LabelCounts(plain={0.0: 4200, 255.0: 600})}


def test_jpeg_pictures_are_those_that_pillow_reads(tmp_path: Path) -> None:
    smooth = np.linspace(0, 250, 80 * 60).reshape(60, 80).astype(np.uint8)
    Image.fromarray(np.stack([smooth] * 3, axis=-1)).save(tmp_path / "a.jpg", quality=90)
    found = open_image(str(tmp_path / "a.jpg"))
    assert found.grid.shape == (60, 80)
    Image.fromarray(label()[0]).save(tmp_path / "l.png")
    path = str(tmp_path / "a.jpg")
    scene = open_scene(SceneFiles(name="s", before=path, after=path, label=str(tmp_path / "l.png")))
    pixels, _ = scene.before.read(**ALL)
    expected = np.moveaxis(np.asarray(Image.open(tmp_path / "a.jpg")), -1, 0)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_the_second_date_and_the_label_come_onto_the_first_grid(tmp_path: Path) -> None:
    wide = image(60, 100)
    before = write(tmp_path / "a.tif", wide[:, :, 10:90], left=500_020.0)
    after = write(tmp_path / "b.tif", wide, left=500_000.0)
    where = np.zeros((1, 60, 100), dtype=np.uint8)
    where[:, :, 30] = 1
    changed = write(tmp_path / "l.tif", where, left=500_000.0)
    scene = open_scene(SceneFiles(name="s", before=before, after=after, label=changed))
    np.testing.assert_array_equal(scene.before.read(**ALL)[0], scene.after.read(**ALL)[0])
    assert np.flatnonzero(scene.read_label(NARROW, **ALL).any(axis=0)).tolist() == [20]


def test_masks_of_two_dates_differ_where_changed_and_nodata_is_unknown(tmp_path: Path) -> None:
    first, second = label(), np.roll(label(), 10, axis=2)
    first[:, :, 0] = 255
    files = SceneFiles(
        name="s",
        before=write(tmp_path / "a.tif", image()),
        after=write(tmp_path / "b.tif", image()),
        label_before=write(tmp_path / "ma.tif", first, nodata=255),
        label_after=write(tmp_path / "mb.tif", second),
    )
    found = open_scene(files).read_label(NARROW, **ALL)
    expected = first[0] ^ second[0]
    expected[:, 0] = 255
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "parquet"])
def test_polygons_are_drawn_as_rasterio_draws_them_whatever_the_window(tmp_path: Path, suffix: str) -> None:
    shapes = [Point(500_060 + 20 * n, 5_000_000 - 60).buffer(9) for n in range(4)] + [
        box(500_000, 4_999_990, 500_012, 5_000_000)
    ]
    frame = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32631").to_crs("EPSG:4326")
    path = tmp_path / f"l.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    files = SceneFiles(
        name="s", before=write(tmp_path / "a.tif", image()), after=write(tmp_path / "b.tif", image()), label=str(path)
    )
    scene = open_scene(files)
    drawn = scene.read_label(NARROW, **ALL)
    back = frame.to_crs("EPSG:32631").geometry
    expected = rasterize(back, out_shape=(60, 80), transform=Affine(2, 0, 500_000, 0, -2, 5_000_000), dtype="uint8")
    assert drawn.any() and (drawn != expected).sum() <= 2  # there and back through degrees
    part = scene.read_label(NARROW, rows=slice(20, 50), cols=slice(10, 60))
    np.testing.assert_array_equal(part, drawn[20:50, 10:60])
    np.testing.assert_array_equal(label_on_grid(str(path), scene.grid, None).read(**ALL), drawn)


def test_a_finer_grid_is_laid_over_the_same_ground(tmp_path: Path) -> None:
    files = SceneFiles(
        name="s",
        before=write(tmp_path / "a.tif", image()),
        after=write(tmp_path / "b.tif", image()),
        label=write(tmp_path / "l.tif", label()),
    )
    scene = open_scene(files, resolution=1.0)
    assert (scene.height, scene.width) == (120, 160)
    found = scene.read_label(NARROW, rows=slice(0, 120), cols=slice(0, 160))
    np.testing.assert_array_equal(found, np.kron(label()[0], np.ones((2, 2), dtype=np.uint8)))


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    pixels = image(bands=4)
    path = write(tmp_path / "a.tif", pixels)
    files = SceneFiles(name="s", before=path, after=path, label=write(tmp_path / "l.tif", label()))
    np.testing.assert_array_equal(open_scene(files, bands=[3, 1]).before.read(**ALL)[0], pixels[[2, 0]])
    with pytest.raises(InputError, match=r"asks for 5, but .* has 4 bands"):
        open_scene(files, bands=[5])


def test_sizes_that_differ_are_refused_with_both(tmp_path: Path) -> None:
    first, other = write(tmp_path / "a.tif", image(), left=None), write(tmp_path / "b.tif", image(61, 80), left=None)
    changed = write(tmp_path / "l.tif", label(), left=None)
    with pytest.raises(InputError, match=r"b\.tif has 80 × 61 px, .*a\.tif has 80 × 60 px"):
        open_scene(SceneFiles(name="s", before=first, after=other, label=changed))
    small = write(tmp_path / "s.tif", label(50, 80), left=None)
    with pytest.raises(InputError, match=r"s\.tif has 80 × 50 px"):
        open_scene(SceneFiles(name="s", before=first, after=first, label=small))


def test_other_bands_and_types_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tif", image())
    changed = write(tmp_path / "l.tif", label())
    with pytest.raises(InputError, match=r"has 3 bands, .* has 4"):
        open_scene(SceneFiles(name="s", before=first, after=write(tmp_path / "b.tif", image(bands=4)), label=changed))
    with pytest.raises(InputError, match=r"has type uint8, .* has uint16"):
        other = write(tmp_path / "c.tif", image(dtype="uint16"))
        open_scene(SceneFiles(name="s", before=first, after=other, label=changed))


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("text.png", "text.png is none of"),
        ("empty.png", "0 bytes"),
        ("gone.png", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            open_image(str(tmp_path / name))
    with pytest.raises(InputError, match="does not overlap"):
        far = write(tmp_path / "far.tif", label(), left=700_000.0)
        path = write(tmp_path / "a.tif", image())
        open_scene(SceneFiles(name="s", before=path, after=path, label=far))
    lines = geopandas.GeoDataFrame(geometry=[Point(0, 0)], crs="EPSG:4326")
    lines.to_file(tmp_path / "points.geojson")
    with pytest.raises(InputError, match="holds no polygon: 1 features"):
        open_scene(SceneFiles(name="s", before=path, after=path, label=str(tmp_path / "points.geojson")))
