"""Many files and odd places: lists, archives of files, VRTs, indexes, and names that people give."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine

from storage.imagery.names.spec import named_rasters
from tests.attacks.door import SIDE, image, pixels, planned, refused
from tests.attacks.door import holds as assert_holds

EAST = Affine(10, 0, 500_000 + 10 * SIDE, 0, -10, 5_600_000)
BOTH = np.concatenate([pixels(seed=1), pixels(seed=2)], axis=2)


def two_tiles(folder: Path, *, names: tuple[str, str] = ("a_20190601.tif", "b_20190601.tif")) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    one = image(folder / names[0], pixels(seed=1))
    return [one, image(folder / names[1], pixels(seed=2), transform=EAST)]


def test_a_zip_of_many_tiles(tmp_path: Path) -> None:
    tiles = two_tiles(tmp_path / "tiles")
    path = tmp_path / "tiles.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(tiles[0], "deep/folder/a.tif")
        file.write(tiles[1], "deep/b.tif")
        file.writestr("__MACOSX/._b.tif", b"\0\5\26\7")
        file.writestr("readme.txt", "two tiles")
    assert_holds(planned(path), BOTH)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_a_tar_of_many_tiles(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tiles{suffix}"
    with tarfile.open(path, "w" if suffix == ".tar" else "w:gz") as file:
        for tile in two_tiles(tmp_path / "tiles"):
            file.add(tile, tile.name)
    assert_holds(planned(path), BOTH)


def test_a_zip_without_rasters(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("readme.txt", "nothing")
    refused("a.zip", mosaic=tmp_path / "a.zip")


def _vrt(path: Path, source: str, *, relative: int = 1) -> Path:
    band = (
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="{relative}">{source}'
        f'</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource></VRTRasterBand>'
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>500000, 10, 0, 5600000, 0, -10</GeoTransform>{band}</VRTDataset>"
    )
    return path


def test_a_vrt_of_a_file_outside(tmp_path: Path) -> None:
    secret = image(tmp_path / "secret.tif", pixels(1))
    for source, relative in (("../secret.tif", 1), (str(secret), 0), ("http://127.0.0.1:1/secret.tif", 0)):
        refused("mosaic.vrt", mosaic=_vrt(tmp_path / "below" / "mosaic.vrt", source, relative=relative), bundle="cva")


def test_a_vrt_of_a_vrt_and_one_with_entities(tmp_path: Path) -> None:
    folder = tmp_path / "below"
    inner = _vrt(folder / "inner.vrt", "a.tif")
    image(folder / "a.tif", pixels(1))
    refused("outer.vrt", mosaic=_vrt(folder / "outer.vrt", inner.name), bundle="cva")
    entities = folder / "entities.vrt"
    entities.write_text('<!DOCTYPE x [<!ENTITY s SYSTEM "file:///etc/passwd">]>' + inner.read_text())
    refused("entities.vrt", mosaic=entities, bundle="cva")


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON", "FlatGeobuf", "ESRI Shapefile"])
def test_a_tile_index(tmp_path: Path, driver: str) -> None:
    import geopandas
    from shapely import box

    tiles = two_tiles(tmp_path)
    suffix = {"GPKG": "gpkg", "GeoJSON": "geojson", "FlatGeobuf": "fgb", "ESRI Shapefile": "shp"}[driver]
    path = tmp_path / f"index.{suffix}"
    frame = geopandas.GeoDataFrame(
        {"location": [tile.name for tile in tiles]}, geometry=[box(0, 0, 1, 1), box(1, 0, 2, 1)], crs="EPSG:32631"
    )
    frame.to_file(path, driver=driver, engine="pyogrio")
    assert_holds(planned(path), BOTH)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_any_editor(tmp_path: Path, encoding: str, end: str) -> None:
    tiles = two_tiles(tmp_path, names=("a tile.tif", "b_ü.tif"))
    path = tmp_path / "list.txt"
    lines = ["# two tiles", f'"{tiles[0].name}"', "", f"  {tiles[1].name}  "]
    path.write_bytes(end.join(lines).encode(encoding))
    assert_holds(planned(path), BOTH)


@pytest.mark.parametrize(
    "name", ["a[1].tif", "a (copy) ä.tif", "a*.tif", "a?.tif", "a%20b.tif", "a#b&c.tif", "a'b.tif"]
)
def test_names_that_exist_are_no_patterns(tmp_path: Path, name: str) -> None:
    image(tmp_path / "a1.tif", pixels(seed=9))
    assert_holds(planned(image(tmp_path / name, pixels())), pixels())


def test_a_name_with_a_newline_or_of_another_encoding(tmp_path: Path) -> None:
    odd = image(tmp_path / "good.tif", pixels())
    for name in (b"a\nb.tif", b"a\xff.tif"):
        target = Path(str(tmp_path)) / name.decode("utf-8", "surrogateescape")
        odd.rename(target)
        odd = target
        try:
            job = planned(target)
        except ValueError as error:
            assert "This was not foreseen" not in str(error)
            continue
        assert_holds(job, pixels())


def test_hidden_files_and_dangling_links(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    two_tiles(folder)
    (folder / "._a_20190601.tif").write_bytes(b"\0\5\26\7not a raster")
    (folder / ".hidden.tif").write_bytes(b"")
    assert_holds(planned(folder), BOTH)
    (folder / "gone.tif").symlink_to("nowhere.tif")
    refused("gone.tif", mosaic=folder)


def test_a_folder_that_ends_in_tif(tmp_path: Path) -> None:
    two_tiles(tmp_path / "mosaic.tif")
    assert_holds(planned(tmp_path / "mosaic.tif"), BOTH)


def test_a_folder_in_a_folder_of_tiles(tmp_path: Path) -> None:
    two_tiles(tmp_path / "tiles")
    (tmp_path / "tiles" / "old.tif").mkdir()
    assert_holds(planned(tmp_path / "tiles"), BOTH)


def test_all_tiles_are_empty(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(3):
        image(folder / f"{number}.tif", np.zeros((3, SIDE, SIDE), "uint8"), nodata=0)
    refused("tiles", "nodata", mosaic=folder)


def test_a_file_of_one_strip_is_read_with_its_cost_in_a_warning(tmp_path: Path) -> None:
    side = 2560  # two blocks of a run each way
    values = np.tile(pixels(side=128), (1, side // 128, side // 128))
    path = image(tmp_path / "a.tif", values, compress="deflate", zlevel=1, blockysize=side, interleave="pixel")
    job = planned(path)
    assert any("a.tif" in warning and "times" in warning for warning in job.warnings), job.warnings
    tiled = image(tmp_path / "b.tif", values, compress="deflate", zlevel=1, tiled=True)
    assert not any("b.tif" in warning and "times" in warning for warning in planned(tiled).warnings)


@pytest.mark.parametrize("start", ["file://", "file://localhost"])
def test_addresses_of_files_are_their_paths(tmp_path: Path, start: str) -> None:
    path = image(tmp_path / "my tile.tif", pixels())
    listed = tmp_path / "list.txt"
    listed.write_text(f"{start}{tmp_path}/my%20tile.tif\n")
    for spec in (f"{start}{tmp_path}/my%20tile.tif", str(listed), f"{start}{listed}"):
        assert named_rasters(spec).stacks == ((("", str(path)),),)
    literal = image(tmp_path / "my%20tile.tif", pixels())  # a name as it stands comes first
    assert named_rasters(f"{start}{literal}").stacks == ((("", str(literal)),),)


def test_a_name_that_gdal_would_take_for_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pixels()
    image(tmp_path / "HTTP:x.tif", values)
    monkeypatch.chdir(tmp_path)
    assert_holds(planned("HTTP:x.tif", "HTTP:x.tif", before_date="2019-06-01", after_date="2021-06-01"), values)


def test_a_pipe_is_refused_at_once_and_no_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    refused("pipe.tif", "pipe", mosaic=tmp_path / "pipe.tif")
    image(tmp_path / "a.tif", pixels())
    monkeypatch.chdir(tmp_path)
    for name in ("", " "):
        with pytest.raises(ValueError, match="empty"):
            named_rasters(name)


def test_of_several_layers_the_tile_index_is_read(tmp_path: Path) -> None:
    image(tmp_path / "a.tif", pixels())
    path, place = tmp_path / "index.gpkg", [shapely.box(3, 50, 4, 51)]
    gpd.GeoDataFrame({"style": ["red"]}, geometry=place, crs=4326).to_file(path, layer="layer_styles")
    index = gpd.GeoDataFrame({"location": ["a.tif"]}, geometry=place, crs=4326)
    index.to_file(path, layer="tiles")
    assert named_rasters(path).stacks == ((("", str(tmp_path / "a.tif")),),)
    index.to_file(path, layer="others")
    with pytest.raises(ValueError, match=r"index\.gpkg holds 2 tile indexes \(tiles, others\)"):
        named_rasters(path)
