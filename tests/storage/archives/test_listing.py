"""Archives: STAC catalogues, tables, folders and lists, to the files of each day."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geom import box

from storage.archives.listing import read_archive
from storage.errors import InputError
from storage.imagery.bands import select_bands
from storage.imagery.identity.digests import digest_mosaic
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
from storage.places.bucket import ObjectPath
from tests.s3_server import S3Server, use

WEST, EAST = 448_000.0, 448_640.0


def raster(
    path: Path,
    *,
    left: float = WEST,
    crs: str = "EPSG:32631",
    bands: int = 3,
    value: int = 100,
    nodata: int | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=64,
        width=64,
        count=bands,
        dtype="uint8",
        crs=crs,
        transform=Affine(10, 0, left, 0, -10, 5_412_000),
        nodata=nodata,
    ) as file:
        file.write(np.full((bands, 64, 64), value, dtype=np.uint8))
    return path


def item(name: str, path: Path, time: datetime, *, left: float = WEST) -> pystac.Item:
    with rasterio.open(path) as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    geometry = json.loads(json.dumps(box(*bounds, "EPSG:4326").json))
    found = pystac.Item(id=name, geometry=geometry, bbox=list(bounds), datetime=time, properties={})
    found.add_asset("image", pystac.Asset(href=str(path), media_type=pystac.MediaType.COG, roles=["data"]))
    found.add_asset("look", pystac.Asset(href="look.tif", media_type=pystac.MediaType.GEOTIFF, roles=["thumbnail"]))
    return found


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Three days, the second one of two items beside each other, in a self-contained catalogue with relative links."""
    root = pystac.Catalog(id="archive", description="dates")
    collection = pystac.Collection(
        id="images",
        description="dates",
        extent=pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])),
    )
    root.add_child(collection)
    for name, day, left in (
        ("c", datetime(2019, 9, 4, 15, tzinfo=UTC), WEST),
        ("a", datetime(2009, 8, 18, tzinfo=UTC), WEST),
        ("b-east", datetime(2014, 7, 20, 16, 1, tzinfo=UTC), EAST),
        ("b-west", datetime(2014, 7, 20, 16, tzinfo=UTC), WEST),
    ):
        collection.add_item(item(name, raster(tmp_path / "cat" / "images" / name / f"{name}.tif", left=left), day))
    root.normalize_hrefs(str(tmp_path / "cat"))
    root.make_all_asset_hrefs_relative()
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return tmp_path / "cat" / "catalog.json"


def test_a_catalogue_gives_its_days_in_order_and_items_of_one_day_make_one_mosaic(catalogue: Path) -> None:
    found = read_archive(catalogue)
    assert [files.day for files in found] == [date(2009, 8, 18), date(2014, 7, 20), date(2019, 9, 4)]
    assert [len(files.paths) for files in found] == [1, 2, 1]
    middle = found[1]
    assert {source.id for source in middle.items} == {"b-east", "b-west"}
    assert all(source.href is not None and Path(source.href).exists() for source in middle.items)
    mosaic = middle.open()
    assert mosaic.grid.shape == (64, 128)
    assert mosaic.date == datetime(2014, 7, 20, 16)


def test_an_item_collection_and_a_single_item_are_archives_too(catalogue: Path, tmp_path: Path) -> None:
    items = list(pystac.Catalog.from_file(str(catalogue)).get_items(recursive=True))
    for one in items:
        one.make_asset_hrefs_absolute()
    everything = tmp_path / "items.json"
    pystac.ItemCollection(items).save_object(str(everything))
    from_collection = read_archive(everything)
    assert [files.paths for files in from_collection] == [files.paths for files in read_archive(catalogue)]
    single = next(Path(found.get_self_href() or "") for found in items if found.id == "a")
    assert [files.day for files in read_archive(single)] == [date(2009, 8, 18)]


def test_relative_assets_of_an_item_collection_are_beside_it(tmp_path: Path) -> None:
    path = raster(tmp_path / "sub" / "one.tif")
    found = item("one", path, datetime(2020, 1, 2, tzinfo=UTC))
    content = found.to_dict(include_self_link=False)
    content["assets"]["image"]["href"] = "./sub/one.tif"
    content["links"] = []
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [content]}))
    assert [Path(p) for files in read_archive(tmp_path / "items.json") for p in files.paths] == [path]


def test_dates_and_region_choose(catalogue: Path) -> None:
    inner = read_archive(catalogue, start=date(2009, 8, 19), end=date(2019, 9, 4))
    assert [files.day.year for files in inner] == [2014, 2019]
    middle = read_archive(catalogue, start=date(2014, 1, 1), end=date(2014, 12, 31))[0]
    with rasterio.open(next(p for p in middle.paths if "east" in p)) as file:
        left, bottom, right, top = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    # a sliver of the eastern item alone
    east = box(right - (right - left) / 10, bottom, right, top, "EPSG:4326")
    assert [source.id for files in read_archive(catalogue, outline=east) for source in files.items] == ["b-east"]


def test_a_table_names_dates_that_files_do_not_tell(tmp_path: Path) -> None:
    for name in ("one.tif", "two.tif", "three.tif"):
        raster(tmp_path / "in" / name)
    table = tmp_path / "in" / "archive.csv"
    table.write_text("date,path\n2012-07-31,two.tif\n2010-06-29T16:30:00+02:00,one.tif\n2012-07-31,three.tif\n")
    found = read_archive(table)
    assert [(files.time, [Path(p).name for p in files.paths]) for files in found] == [
        (datetime(2010, 6, 29, 14, 30), ["one.tif"]),
        (datetime(2012, 7, 31), ["three.tif", "two.tif"]),
    ]


def test_a_folder_a_pattern_and_a_list_take_dates_from_names(tmp_path: Path) -> None:
    for name in ("m_20140720.tif", "m_20090818.tif", "m_20190904.tif"):
        raster(tmp_path / name)
    days = [date(2009, 8, 18), date(2014, 7, 20), date(2019, 9, 4)]
    assert [files.day for files in read_archive(tmp_path)] == days
    assert [files.day for files in read_archive(f"{tmp_path}/m_*.tif")] == days
    some = [str(tmp_path / "m_20190904.tif"), str(tmp_path / "m_20090818.tif")]
    assert [files.day for files in read_archive(some)] == [days[0], days[2]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.json", "", "cannot be read as STAC"),
        ("list.json", "[1, 2]", "cannot be read as STAC"),
        ("other.json", '{"type": "Topology"}', "cannot be read as STAC"),
        ("bare.json", '{"type": "Catalog"}', "cannot be read as STAC: a Catalog has a list of links"),
        ("items.json", '{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', "cannot be read as STAC"),
        ("none.json", '{"type": "FeatureCollection", "features": []}', "holds no imagery"),
        ("a.csv", "when,where\n1,2\n", "needs the columns date and path; it has when, where"),
        ("b.csv", "date,path\nsummer,a.tif\n", "line 2: 'summer' is no date"),
        ("c.csv", "date,path\n2020-01-01,\n", "line 2: no path"),
        ("d.csv", "date,path\n", "holds no imagery"),
        ("e.csv", 'date,path\n2019-06-01,"a.tif', "line 2: unexpected end of data"),
    ],
)
def test_what_is_no_archive_is_refused_with_its_name(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_archive(path)
    assert name in str(caught.value)


def in_bands(tmp_path: Path, *names: str) -> Path:
    """An item collection of one item with a raster for each band, one pixel of one of them without data."""
    paths = {
        name: raster(tmp_path / f"{name}.tif", bands=1, value=10 * number, nodata=0)
        for number, name in enumerate(names, start=1)
    }
    with rasterio.open(paths["green"], "r+") as file:
        file.write(np.zeros((1, 1), dtype=np.uint8), 1, window=rasterio.windows.Window(7, 5, 1, 1))
    found = item("one", paths["green"], datetime(2020, 1, 2, tzinfo=UTC))
    found.assets = {
        name: pystac.Asset(href=str(path), media_type=pystac.MediaType.COG, roles=["data"])
        for name, path in paths.items()
    }
    pystac.ItemCollection([found]).save_object(str(tmp_path / "items.json"))
    return tmp_path / "items.json"


def test_bands_may_be_assets_of_their_own(tmp_path: Path) -> None:
    items = in_bands(tmp_path, "red", "green", "blue", "nir")
    with pytest.raises(
        InputError, match=r"4 raster assets \(blue, green, nir, red\): say .* \(--asset red,green,blue\)"
    ):
        read_archive(items)
    with pytest.raises(InputError, match="has no asset 'swir'; it has blue, green, nir, red"):
        read_archive(items, asset="red,swir")
    (files,) = read_archive(items, asset="nir, red,green")
    mosaic = files.open()
    assert mosaic.band_names == ("nir", "red", "green")
    assert mosaic.grid.shape == (64, 64)
    assert select_bands(mosaic, ["green", "nir"], None) == (3, 1)
    image, valid = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=(3, 1)).read(rows=slice(4, 8), cols=slice(6, 10))
    assert list(zip(*np.nonzero(~valid), strict=True)) == [(1, 1)]
    assert (image[:, valid] == np.array([[20], [40]])).all()
    assert set(digest_mosaic(mosaic).files) == {str(tmp_path / f"{name}.tif") for name in ("nir", "red", "green")}


def test_which_file_holds_which_band_and_which_lies_on_top_is_in_the_digest(tmp_path: Path) -> None:
    items = in_bands(tmp_path, "red", "green", "blue")
    orders = ("red,green,blue", "blue,green,red")
    one, other = (digest_mosaic(read_archive(items, asset=order)[0].open()) for order in orders)
    assert one.files == other.files and one.sha256 != other.sha256
    assert digest_mosaic(read_archive(items, asset=orders[0])[0].open()) == one
    below, above = (str(raster(tmp_path / f"{name}.tif", value=value)) for name, value in (("a", 1), ("b", 2)))
    assert digest_mosaic(open_mosaic([below, above])).sha256 != digest_mosaic(open_mosaic([above, below])).sha256


def test_what_is_wrong_with_a_date_that_is_not_wanted_is_nobodys_trouble(catalogue: Path, tmp_path: Path) -> None:
    later = [files.day for files in read_archive(catalogue)][1:]
    (old,) = (Path(path) for path in read_archive(catalogue)[0].paths)
    old.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_archive(catalogue)[0].open()
    assert [files.day for files in read_archive(catalogue, start=later[0])] == later

    folder = tmp_path / "folder"
    raster(folder / "20200101.tif")
    (folder / "19990101.tif").write_bytes(b"")
    (files,) = read_archive(folder, start=date(2000, 1, 1))
    assert files.day == date(2020, 1, 1)
    for span in ({"start": date(1990, 1, 1)}, {}):
        broken, whole = read_archive(folder, **span)
        with pytest.raises(InputError, match=r"19990101\.tif is empty"):
            broken.open()
        assert whole.open().date == datetime(2020, 1, 1)


def test_bands_of_one_image_lie_on_one_grid(tmp_path: Path) -> None:
    items = in_bands(tmp_path, "red", "green")
    raster(tmp_path / "red.tif", left=WEST + 10, bands=1)
    (files,) = read_archive(items, asset="red,green")
    with pytest.raises(InputError, match=r"red\.tif has grid 64 × 64 px of 10 at 448010.*green\.tif has .* at 448000"):
        files.open()


def test_a_day_across_two_utm_zones_is_one_mosaic(tmp_path: Path) -> None:
    """Each pixel has the value of the tile in which pyproj finds its centre."""
    to_west = pyproj.Transformer.from_crs("EPSG:32632", "EPSG:32631", always_xy=True)
    left, _ = to_west.transform(280_000, 5_412_000)
    west = raster(tmp_path / "west_20200102.tif", left=round(left, -1) - 500, value=100)
    east = raster(tmp_path / "east_20200102.tif", left=280_000, crs="EPSG:32632", value=200)
    table = tmp_path / "archive.csv"
    table.write_text(f"date,path\n2020-01-02,{west.name}\n2020-01-02,{east.name}\n")
    (files,) = read_archive(table)
    assert [Path(path).name for path in files.paths] == [east.name, west.name]
    mosaic = files.open()
    height, width = mosaic.grid.shape
    image, valid = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=(1, 2, 3), resampling="nearest").read(
        rows=slice(0, height), cols=slice(0, width)
    )
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = mosaic.grid.affine * (x, y)

    def depth(path: Path) -> NDArray[np.float64]:
        """Metres from the tile's edge inwards."""
        with rasterio.open(path) as file:
            box, crs = file.bounds, file.crs
        u, v = pyproj.Transformer.from_crs(str(mosaic.grid.crs), str(crs), always_xy=True).transform(x, y)
        return np.minimum.reduce([u - box.left, box.right - u, v - box.bottom, box.top - v])

    in_east, in_west = depth(east), depth(west)
    clear = (abs(in_east) > 10) & (abs(in_west) > 10)  # a pixel's width from any edge
    expected = np.where(in_east > 0, 200, np.where(in_west > 0, 100, 0))
    assert {0, 100, 200} == set(np.unique(expected))
    assert np.array_equal(image[0][clear], expected[clear])
    assert np.array_equal(valid[clear], expected[clear] > 0)


def test_a_catalogue_is_read_over_http_and_what_a_server_lacks_is_refused(catalogue: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(catalogue.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        found = read_archive(f"{address}/catalog.json")
        assert [files.day for files in found] == [files.day for files in read_archive(catalogue)]
        assert all(path.startswith(f"{address}/images/") for files in found for path in files.paths)
        with pytest.raises(InputError, match=r"nothing\.json cannot be read as STAC: .*404"):
            read_archive(f"{address}/nothing.json")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(InputError, match=r"catalog\.json cannot be read as STAC"):
        read_archive(f"{address}/catalog.json")


def test_what_items_lack_is_said_with_what_they_have(catalogue: Path) -> None:
    with pytest.raises(InputError, match=r"no asset 'red'; it has image, look"):
        read_archive(catalogue, asset="red")
    with pytest.raises(InputError, match=r"no date left, between 2020-01-01 and the last.*2009-08-18, 2014-07-20"):
        read_archive(catalogue, start=date(2020, 1, 1))
    with pytest.raises(InputError, match="2020-01-01, is after the last one, 2019-01-01"):
        read_archive(catalogue, start=date(2020, 1, 1), end=date(2019, 1, 1))
    target = next(catalogue.parent.rglob("a.json"))
    content = json.loads(target.read_text())
    content["assets"]["second"] = dict(content["assets"]["image"])
    target.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"item a in .* has 2 raster assets \(image, second\): say with --asset"):
        read_archive(catalogue)
    assert len(read_archive(catalogue, asset="image")) == 3
    target.unlink()
    with pytest.raises(InputError, match="cannot be read as STAC"):
        read_archive(catalogue)


def no_datetime(found: dict[str, Any]) -> None:
    found["properties"]["datetime"] = None


def no_id(found: dict[str, Any]) -> None:
    del found["id"]


def image(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["assets"]["image"].update(changes)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_datetime, "STAC item two in {file} has no date: neither datetime nor start_datetime"),
        (lambda found: found["properties"].update(datetime="yesterday"), "two in {file}: its date 'yesterday' is none"),
        (lambda found: found.update(properties=None), "two in {file}: its properties must be a JSON object, not null"),
        (no_id, "{file} cannot be read as STAC: item 2 in it has no id"),
        (image(href=""), "two in {file}: its asset 'image' has no href"),
        (image(href=None), "two in {file}: its asset 'image' has no href"),
        (
            lambda found: found["assets"].update(image=5),
            "its asset 'image' must be a JSON object, not 5",
        ),
        (image(href="./gone.tif"), "two in {file}: its asset 'image', {folder}/gone.tif, does not exist"),
        (image(href="./*.tif"), "two in {file}: its asset 'image', {folder}/*.tif, does not exist"),
        (image(href="."), "is a folder, not a raster"),
        (
            lambda found: found.update(geometry={"type": "Polygon", "coordinates": "x"}),
            "two in {file} has a geometry that",
        ),
    ],
)
def test_a_bad_item_among_good_ones_is_named(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    features = []
    for number, name in enumerate(("one", "two", "three")):
        moment = datetime(2018 + number, 6, 1, tzinfo=UTC)
        features.append(item(name, raster(tmp_path / f"{name}.tif"), moment).to_dict(include_self_link=False))
    spoil(features[1])
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    everywhere = box(-180, -90, 180, 90, "EPSG:4326")
    with pytest.raises(InputError, match=re.escape(words.format(file=path, folder=tmp_path))):
        for files in read_archive(path, outline=everywhere):  # a file that is not there is missed when it is opened
            files.open()


def test_a_catalogue_that_leads_round_in_circles_has_an_end(catalogue: Path) -> None:
    content = json.loads(catalogue.read_text())
    content["links"] += [
        {"rel": "child", "href": "./catalog.json"},
        {"rel": "child", "href": content["links"][-1]["href"]},
    ]
    catalogue.write_text(json.dumps(content))
    assert [len(files.paths) for files in read_archive(catalogue)] == [1, 2, 1]


def test_an_item_that_is_listed_twice_is_read_once(catalogue: Path, tmp_path: Path) -> None:
    items = list(pystac.Catalog.from_file(str(catalogue)).get_items(recursive=True))
    for found in items:
        found.make_asset_hrefs_absolute()
    pystac.ItemCollection([*items, *items]).save_object(str(tmp_path / "items.json"))
    assert [files.paths for files in read_archive(tmp_path / "items.json")] == [
        files.paths for files in read_archive(catalogue)
    ]


def test_a_raster_without_a_date_is_refused(tmp_path: Path) -> None:
    raster(tmp_path / "no-date.tif")
    with pytest.raises(InputError, match=r"no-date\.tif tells no date"):
        read_archive(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_archive(tmp_path / "nothing-here")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match="holds no raster"):
        read_archive(tmp_path / "hollow")


def test_a_doubtful_date_is_refused_and_a_pattern_settles_it(tmp_path: Path) -> None:
    for day in ("01-06-2019", "02-06-2019"):
        raster(tmp_path / f"x_{day}.tif")
    with pytest.raises(InputError, match=r"x_01-06-2019\.tif tells no certain date: .*; say with --date-pattern"):
        read_archive(tmp_path)
    days = [files.day for files in read_archive(tmp_path, date_pattern="_%m-%d-%Y")]
    assert days == [date(2019, 1, 6), date(2019, 2, 6)]
    with pytest.raises(InputError, match=r"x_01-06-2019\.tif: --date-pattern .* does not match its name"):
        read_archive(tmp_path, date_pattern="%Y%m%d")


def test_folders_that_are_days_date_the_files_in_them(tmp_path: Path) -> None:
    for day in ("2019-06-01", "2020-06-01"):
        raster(tmp_path / day / "B02.tif")
    assert [str(files.day) for files in read_archive(f"{tmp_path}/*/B02.tif")] == ["2019-06-01", "2020-06-01"]


def test_a_day_to_come_is_refused_in_a_table(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    (tmp_path / "a.csv").write_text("date,path\n2099-01-01,a.tif\n")
    with pytest.raises(InputError, match="line 2: 2099-01-01 lies in the future"):
        read_archive(tmp_path / "a.csv")


def test_an_archive_may_lie_in_a_bucket(
    catalogue: Path, bucket: ObjectPath, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catalogue, table, folder and pattern there name the same imagery as on a disk."""
    for file in catalogue.parent.rglob("*"):
        if file.is_file():
            (bucket / "cat" / file.relative_to(catalogue.parent).as_posix()).upload(file)
    here, there = read_archive(catalogue), read_archive(f"{bucket}/cat/catalog.json")
    assert [files.time for files in there] == [files.time for files in here]
    for one, other in zip(there, here, strict=True):
        assert [path.removeprefix(f"{bucket}/cat/") for path in one.paths] == [
            str(Path(path).relative_to(catalogue.parent)) for path in other.paths
        ]
        assert one.open().grid == other.open().grid
        assert all(source.href is not None and source.href.startswith(f"{bucket}/cat/") for source in one.items)

    # a catalogue on this disk whose imagery is there
    items = list(pystac.Catalog.from_file(str(catalogue)).get_items(recursive=True))
    for found in items:
        found.assets["image"].href = f"{bucket}/cat/images/{found.id}/{found.id}.tif"
    pystac.ItemCollection(items).save_object(str(catalogue.parent / "items.json"))
    assert {path for files in read_archive(catalogue.parent / "items.json") for path in files.paths} == {
        path for files in there for path in files.paths
    }

    (bucket / "archive.csv").write(b"date,path\n2019-09-04,cat/images/c/c.tif\n")
    assert read_archive(f"{bucket}/archive.csv")[0].paths == (f"{bucket}/cat/images/c/c.tif",)
    for name in ("m_20140720.tif", "m_20190904.tif"):
        (bucket / "flat" / name).upload(raster(catalogue.parent / name))
    for spec in (
        f"{bucket}/flat",
        f"{bucket}/flat/m_*.tif",
        [f"{bucket}/flat/m_{day}.tif" for day in (20140720, 20190904)],
    ):
        assert [files.day for files in read_archive(spec)] == [date(2014, 7, 20), date(2019, 9, 4)]

    for spec, words in (
        (f"{bucket}/nothing.json", r"nothing\.json cannot be read as STAC"),
        (f"{bucket}/nothing.csv", r"nothing\.csv cannot be read"),
        (f"{bucket}/nothing", "no rasters below it"),
        ("s3://nowhere/catalog.json", "there is no bucket nowhere"),
    ):
        with pytest.raises(InputError, match=words):
            read_archive(spec)
    use(s3_server, monkeypatch, ("nobody", "no-secret"))
    with pytest.raises(InputError, match="access denied") as refused:
        read_archive(f"{bucket}/cat/catalog.json")
    assert "no-secret" not in str(refused.value)
