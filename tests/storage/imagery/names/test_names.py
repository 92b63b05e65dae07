"""What a name stands for, however somebody else's editor, system or tool wrote it."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from storage.errors import InputError
from storage.imagery.mosaics import Mosaic, open_mosaic
from storage.imagery.names.spec import named_rasters
from storage.imagery.rasters import GridReader
from tests.rasters import geotiff

TILES = np.random.default_rng(1).integers(1, 255, (4, 3, 32, 32)).astype(np.uint8)


def tiles(folder: Path, count: int = 2, **profile: object) -> list[Path]:
    """Tiles side by side from west to east."""
    folder.mkdir(exist_ok=True)
    place = Affine(1, 0, 500_000, 0, -1, 5_600_000)
    return [
        geotiff(folder / f"t{n}.tif", TILES[n], **{"transform": place * Affine.translation(32 * n, 0), **profile})
        for n in range(count)
    ]


def read(mosaic: Mosaic) -> np.ndarray:
    reader = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=tuple(range(1, len(mosaic.bands) + 1)))
    return reader.read(rows=slice(0, mosaic.grid.height), cols=slice(0, mosaic.grid.width))[0]


def paths(spec: object) -> list[str]:
    return [path for stack in named_rasters(spec).stacks for _, path in stack]  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_list_is_read_however_an_editor_wrote_it(tmp_path: Path, encoding: str, quote: str) -> None:
    first, second = tiles(tmp_path)
    second = second.rename(tmp_path / "ein Bild ü.tif")
    text = f"# tiles\r\n{quote}{first.name}{quote}\r\n\r\n  {quote}{second.name}{quote}  \r\n"
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    assert paths(tmp_path / "list.txt") == [str(first), str(second)]


def test_a_table_is_a_list_by_its_column_of_paths(tmp_path: Path) -> None:
    first, second = tiles(tmp_path)
    (tmp_path / "a.csv").write_text(f'id,Path\n1,{first.name}\n2,"{second.name}"\n')
    (tmp_path / "b.csv").write_text(f"{first.name}\n{second.name}\n")
    (tmp_path / "c.csv").write_text("id,name\n1,x\n")
    assert paths(tmp_path / "a.csv") == paths(tmp_path / "b.csv") == [str(first), str(second)]
    with pytest.raises(InputError, match="columns id, name"):
        paths(tmp_path / "c.csv")
    (tmp_path / "d.txt").write_bytes(bytes(range(256)) * 3)
    with pytest.raises(InputError, match=r"d\.txt is no text"):
        paths(tmp_path / "d.txt")


def test_hidden_files_and_folders_that_end_like_rasters_do_not_count(tmp_path: Path) -> None:
    kept = tiles(tmp_path)
    (tmp_path / "._t0.tif").write_bytes(b"\0\5\26\7")
    (tmp_path / ".hidden.tif").write_bytes(b"x")
    (tmp_path / "old.tif").mkdir()
    (tmp_path / "t0.tif.aux.xml").write_text("<PAMDataset/>")
    assert paths(tmp_path) == paths(f"{tmp_path}/*.tif*") == [str(path) for path in kept]
    (tmp_path / "gone.tif").symlink_to("nowhere.tif")
    with pytest.raises(InputError, match=r"gone\.tif is a link to nowhere\.tif, which does not exist"):
        paths(tmp_path)


def test_brackets_blanks_and_newlines_in_names_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "a [1] b"
    first, second = tiles(folder)
    first = first.rename(folder / "x[0]\n.tif")
    assert paths(first) == [str(first)]
    assert paths(f"{folder}/*.tif") == sorted([str(first), str(second)])
    assert np.array_equal(read(open_mosaic(first)), TILES[0])


def test_a_name_that_gdal_cannot_take_is_refused_in_a_line_that_can_be_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tif")
    tiles(tmp_path)[0].rename(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.tif\n")
    for spec in (tmp_path / name, tmp_path, tmp_path / "list.txt", [tmp_path / name]):
        with pytest.raises(InputError, match=r"caf\\udce9\.tif is no UTF-8") as refusal:
            open_mosaic(spec)
        assert str(refusal.value).encode()
        assert "\n" not in str(refusal.value)


def vrt(path: Path, bands: str, *, size: int = 64, extra: str = "", head: str = "") -> Path:
    path.write_text(
        f'{head}<VRTDataset rasterXSize="{size}" rasterYSize="32"><SRS dataAxisToSRSAxisMapping="1,2">EPSG:32631</SRS>'
        f"<GeoTransform>500000, 1, 0, 5600000, 0, -1</GeoTransform>{extra}{bands}</VRTDataset>"
    )
    return path


def band(number: int, sources: str, *, said: str = "") -> str:
    return f'<VRTRasterBand dataType="Byte" band="{number}">{said}{sources}</VRTRasterBand>'


def piece(name: str, number: int, x: int, *, kind: str = "SimpleSource", more: str = "", width: int = 32) -> str:
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{number}</SourceBand>'
        f'<SourceProperties RasterXSize="32" RasterYSize="32" DataType="Byte" BlockXSize="32" BlockYSize="32"/>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="32"/>'
        f'<DstRect xOff="{x}" yOff="0" xSize="{width}" ySize="32"/>{more}</{kind}>'
    )


def test_a_vrt_of_whole_files_is_the_list_of_them(tmp_path: Path) -> None:
    tiles(tmp_path / "below", nodata=0)
    source = "below/t0.tif", "below/t1.tif"
    bands = "".join(
        band(
            n,
            "".join(
                piece(name, n, 32 * x, kind="ComplexSource", more="<NODATA>0</NODATA>") for x, name in enumerate(source)
            ),
            said="<NoDataValue>0</NoDataValue><ColorInterp>Gray</ColorInterp>",
        )
        for n in (1, 2, 3)
    )
    path = vrt(tmp_path / "mosaic_20190601.vrt", bands)
    mosaic = open_mosaic(path)
    with rasterio.open(path) as dataset:
        assert np.array_equal(read(mosaic), dataset.read())
    assert f"{mosaic.date:%Y%m%d}" == "20190601"


def test_what_a_vrt_draws_last_lies_on_top(tmp_path: Path) -> None:
    tiles(tmp_path, transform=Affine(1, 0, 500_000, 0, -1, 5_600_000))
    bands = "".join(band(n, piece("t0.tif", n, 0) + piece("t1.tif", n, 0)) for n in (1, 2, 3))
    path = vrt(tmp_path / "a.vrt", bands, size=32)
    with rasterio.open(path) as dataset:
        assert np.array_equal(read(open_mosaic(path)), dataset.read())


def test_a_vrt_of_one_file_a_band_is_a_stack(tmp_path: Path) -> None:
    for n in range(3):
        geotiff(tmp_path / f"b{n}.tif", TILES[n, :1])
    bands = "".join(
        band(n + 1, piece(f"b{n}.tif", 1, 0), said=f"<Description>{name}</Description>")
        for n, name in enumerate(("nir", "red", "green"))
    )
    mosaic = open_mosaic(vrt(tmp_path / "separate.vrt", bands, size=32))
    assert mosaic.band_names == ("nir", "red", "green")
    assert np.array_equal(read(mosaic), TILES[:3, 0])


def whole(**more: str) -> str:
    return "".join(band(n, piece("t0.tif", n, 0), **more) for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("bands", "more", "words"),
    [
        (whole(), {"head": '<!DOCTYPE x [<!ENTITY e "e">]>'}, "DOCTYPE"),
        (whole(said="<LUT>0:0</LUT>"), {}, "LUT"),
        (whole(said="<NoDataValue>7</NoDataValue>"), {}, "NoDataValue 7"),
        (whole(said="<Scale>0.5</Scale>"), {}, "Scale 0.5"),
        (whole(said="<ColorInterp>Alpha</ColorInterp>"), {}, "ColorInterp Alpha"),
        (whole().replace("t0.tif", "../t0.tif"), {}, "outside of the VRT's folder"),
        (whole().replace("t0.tif", "/vsicurl/http://x/t0.tif"), {}, "no local one"),
        (whole().replace("t0.tif", "https://x/t0.tif"), {}, "no local one"),
        (whole().replace("t0.tif", "x.vrt"), {}, "a VRT itself"),
        (whole().replace("t0.tif", "absent.tif"), {}, r"absent\.tif, which does not exist"),
        (whole().replace('xOff="0"', 'xOff="8"'), {}, "SrcRect"),
        (whole(), {"extra": "<GCPList/>"}, "GCPList"),
        (whole().replace('band="1"', 'band="1" subClass="VRTRawRasterBand"'), {}, "VRTRawRasterBand"),
        (whole().replace("<SourceBand>1", "<SourceBand>2"), {}, "SourceBand 2"),
        (whole().replace('<DstRect xOff="0"', '<DstRect xOff="5"'), {}, "lies by itself"),
        (whole().replace("SimpleSource", "KernelFilteredSource"), {}, "KernelFilteredSource"),
        ("", {}, "VRTRasterBand"),
        (whole() + "<x>", {}, "cannot be read as a VRT"),
    ],
)
def test_whatever_else_a_vrt_says_is_refused_by_name(
    tmp_path: Path, bands: str, more: dict[str, str], words: str
) -> None:
    tiles(tmp_path / "folder")
    tiles(tmp_path)
    (tmp_path / "folder" / "link.tif").symlink_to(tmp_path / "t1.tif")
    path = vrt(tmp_path / "folder" / "a.vrt", bands, **more)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words) as refusal:
        open_mosaic(path)
    assert "a.vrt" in str(refusal.value)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_a_packed_file_is_a_mosaic_of_its_rasters(tmp_path: Path, suffix: str) -> None:
    files = tiles(tmp_path)
    path = tmp_path / f"scene 2019-06-01{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, f"in/{file.name}")
            packed.writestr("__MACOSX/in/._t0.tif", b"x")
            packed.writestr("readme.txt", b"x")
    else:
        with tarfile.open(path, "w:gz" if suffix != ".tar" else "w") as tar:
            for file in files:
                tar.add(file, f"./in/{file.name}")
    mosaic = open_mosaic(path)
    assert np.array_equal(read(mosaic), np.concatenate(TILES[:2], axis=2))
    assert [source.files for source in mosaic.sources] == [(str(path),)] * 2
    assert f"{mosaic.date:%Y%m%d}" == "20190601"


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.tif", bytes(1000))
    data = path.read_bytes()
    # the directory claims 3 GB
    path.write_bytes(data.replace((1000).to_bytes(4, "little"), (3_000_000_000).to_bytes(4, "little")))


def _outside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../etc/a.tif", b"x")


def _empty(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", b"x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_bomb, "unpacks to more than 3,000,000,000"),
        (_outside, "outside of it"),
        (_empty, "holds no raster"),
        (lambda path: path.write_bytes(b"PK\3\4 no zip"), "cannot be read as a zip file"),
        (lambda path: path.write_bytes(b""), "cannot be read as a zip file"),
    ],
)
def test_a_packed_file_that_cannot_be_read_is_refused(tmp_path: Path, make: object, words: str) -> None:
    make(tmp_path / "a.zip")  # type: ignore[operator]
    with pytest.raises(InputError, match=words) as refusal:
        open_mosaic(tmp_path / "a.zip")
    assert "a.zip" in str(refusal.value)


def test_a_bomb_of_a_tar_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.tif")
    header.size = 5 * 2**40
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header.tobuf() + bytes(1024)))
    with pytest.raises(InputError, match=r"a\.tgz has .* bytes and says that it unpacks to more"):
        open_mosaic(tmp_path / "a.tgz")


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb"])
def test_a_tile_index_is_a_list_relative_to_itself(tmp_path: Path, suffix: str) -> None:
    tiles(tmp_path)
    frame = geopandas.GeoDataFrame(
        {"location": ["t0.tif", "t1.tif"]}, geometry=[box(0, 0, 1, 1), box(1, 0, 2, 1)], crs="EPSG:4326"
    )
    frame.to_file(tmp_path / f"index{suffix}")
    assert np.array_equal(read(open_mosaic(tmp_path / f"index{suffix}")), np.concatenate(TILES[:2], axis=2))
    frame.rename(columns={"location": "place"}).to_file(tmp_path / f"other{suffix}")
    with pytest.raises(InputError, match=r"no field 'location', but place"):
        open_mosaic(tmp_path / f"other{suffix}")
    if suffix == ".gpkg":
        text = "<GDALTileIndexDataset><IndexDataset>index.gpkg</IndexDataset>{}</GDALTileIndexDataset>"
        (tmp_path / "a.gti").write_text(text.format("<LocationField>location</LocationField>"))
        (tmp_path / "b.gti").write_text(text.format("<ResX>5</ResX>"))
        assert len(open_mosaic(tmp_path / "a.gti").sources) == 2
        with pytest.raises(InputError, match="its ResX is not understood"):
            open_mosaic(tmp_path / "b.gti")


def test_items_in_a_parquet_file_are_a_list_of_their_rasters(tmp_path: Path) -> None:
    tiles(tmp_path)
    assets = [
        {"image": {"href": f"./t{n}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]},
         "preview": {"href": f"./t{n}.png", "type": "image/png", "roles": ["thumbnail"]}}
        for n in range(2)
    ]  # fmt: skip
    pq.write_table(pa.table({"id": ["a", "b"], "assets": assets}), tmp_path / "items.parquet")
    assert np.array_equal(read(open_mosaic(tmp_path / "items.parquet")), np.concatenate(TILES[:2], axis=2))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet is no list of rasters"):
        open_mosaic(tmp_path / "other.parquet")
