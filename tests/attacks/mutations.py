"""Inputs that were valid until a byte, a number or a word in them was exchanged, and what `dasnet` says of each.

    python -m tests.attacks.mutations FOLDER --first 0 --count 200

Everything follows from the number of an input, so one that fails can be made again. Each command is a fork: a crash of
a library ends that one alone, and time and memory are its own. One JSON line a command is printed.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.commands import dasnet, scheduler
from tests.attacks.exchanges import VALUES, with_another_value, with_other_bytes, written
from tests.rasters import geotiff

SIDE = 64

Command = tuple[str, ...]
Make = Callable[[Path, Random], list[Command]]
MAKERS: dict[str, Make] = {}


def maker(make: Make) -> Make:
    MAKERS[make.__name__] = make
    return make


def image(path: Path, **profile: Any) -> Path:
    pixels = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    return geotiff(path, pixels, **profile)


def plan(before: Path, after: Path, *options: str) -> Command:
    """A method without training: nothing is loaded to time it."""
    dates = ("--before-date", "2019-01-01", "--after-date", "2020-01-01")
    return ("detect", str(before), str(after), "--dry-run", "--bundle", "cva", "--output", "OUT", *dates, *options)


def looked_at(path: Path, *more: Command) -> list[Command]:
    """What is asked of a mutated input: what it is, and whether a run of it can be planned."""
    return [("info", str(path)), *more]


@maker
def tiff(folder: Path, random: Random) -> list[Command]:
    layout = random.choice(({}, {"tiled": True, "blockxsize": 32, "blockysize": 32}, {"BIGTIFF": "YES"}))
    path = image(folder / "a.tif", nodata=random.choice((None, 0)), compress=random.choice((None, "deflate")), **layout)
    whole = path.read_bytes()
    path.write_bytes(with_other_bytes(whole, random, until=random.choice((600, len(whole)))))
    good = image(folder / "good.tif")
    return looked_at(path, plan(good, path), plan(path, good))


@maker
def tiff_tags(folder: Path, random: Random) -> list[Command]:
    """An entry of the directory gets another type, count or value."""
    path = image(folder / "a.tif", nodata=0)
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    for _ in range(random.choice((1, 1, 2))):
        at = start + 2 + 12 * random.randrange(entries)
        number = random.choice((0, 1, 2, 3, 7, 8, 65535, 2**31 - 1, 2**32 - 1, random.randrange(2**32)))
        match random.randrange(3):
            case 0:
                struct.pack_into("<H", data, at + 2, random.randrange(20))
            case 1:
                struct.pack_into("<I", data, at + 4, number)
            case 2:
                struct.pack_into("<I", data, at + 8, number)
    path.write_bytes(data)
    return looked_at(path, plan(path, path))


@maker
def envi(folder: Path, random: Random) -> list[Command]:
    path = image(folder / "a.img", driver="ENVI")
    header = folder / "a.hdr"
    lines = header.read_text().splitlines()
    for _ in range(random.choice((1, 2))):
        at = random.randrange(1, len(lines))
        name = lines[at].partition("=")[0]
        junk = ("-1", "0", "99999999999", "NaN", "{", "}", "{1,2", "", "1e400", "ä", "{,,,}", "5", "uint8")
        lines[at] = random.choice((f"{name}= {random.choice(junk)}", "", lines[at] * 2, name))
    header.write_text("\n".join(lines))
    return looked_at(path, plan(path, path))


@maker
def hfa(folder: Path, random: Random) -> list[Command]:
    path = image(folder / "a.img", driver="HFA")
    path.write_bytes(with_other_bytes(path.read_bytes(), random))
    return looked_at(path, plan(path, path))


@maker
def side_car(folder: Path, random: Random) -> list[Command]:
    path = image(folder / "a.tif")
    junk = [str(value) for value in VALUES if isinstance(value, str | int | float) and "\0" not in str(value)]
    name = random.choice(("SRS", "GeoTransform", "Metadata", "PAMRasterBand", "GCPList", "NoDataValue", "Mask"))
    text = f"<{name}>{random.choice(junk)}</{name}>"
    if name == "PAMRasterBand":
        inner = random.choice(("NoDataValue", "Description", "ColorInterp", "Scale", "Offset"))
        text = f'<{name} band="{random.choice(("1", "7", "x"))}"><{inner}>{random.choice(junk)}</{inner}></{name}>'
    whole = f"<PAMDataset>{text}</PAMDataset>"
    (folder / "a.tif.aux.xml").write_text(whole[: random.choice((None, random.randrange(len(whole)), None))])
    return looked_at(path, plan(path, path))


def _zarr(folder: Path, zarr_format: int) -> Path:
    import rioxarray  # noqa: F401  registers the .rio accessor
    import xarray as xr

    pixels = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    x, y = 500_000.5 + np.arange(SIDE), 5_599_999.5 - np.arange(SIDE)
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords={"y": y, "x": x}, name="image")
    path = folder / "a.zarr"
    array.rio.write_crs("EPSG:32631").to_dataset().to_zarr(path, zarr_format=zarr_format, consolidated=False)
    return path


@maker
def zarr_metadata(folder: Path, random: Random) -> list[Command]:
    path = _zarr(folder, random.choice((2, 3)))
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    file = random.choice(sorted(each for each in path.rglob("*") if each.name in names))
    written(file, with_another_value(json.loads(file.read_text()), random), random)
    return looked_at(path, plan(path, path))


@maker
def zarr_coordinates(folder: Path, random: Random) -> list[Command]:
    """The numbers themselves: a chunk of a coordinate, or of the image."""
    path = _zarr(folder, random.choice((2, 3)))
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    file = random.choice(sorted(each for each in path.rglob("*") if each.is_file() and each.name not in names))
    file.write_bytes(with_other_bytes(file.read_bytes(), random))
    return looked_at(path, plan(path, path))


_SQUARE = [[3.0001, 50.5252], [3.0006, 50.5252], [3.0006, 50.5249], [3.0001, 50.5249], [3.0001, 50.5252]]


@maker
def region(folder: Path, random: Random) -> list[Command]:
    good = image(folder / "good.tif")
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [_SQUARE]}}
    document = random.choice(
        (
            feature["geometry"],
            feature,
            {"type": "FeatureCollection", "features": [feature, feature]},
            {"type": "GeometryCollection", "geometries": [feature["geometry"]]},
            {"type": "MultiPolygon", "coordinates": [[_SQUARE], [_SQUARE]]},
        )
    )
    path = written(folder / "region.geojson", with_another_value(document, random), random)
    if random.random() < 0.1:
        depth = 100_000
        path.write_text('{"type": "GeometryCollection", "geometries": [' * depth + "]}" * depth)
    return [plan(good, good, "--region", str(path))]


def _dated(folder: Path) -> list[Path]:
    return [image(folder / f"x_{year}0601.tif") for year in (2018, 2019)]


def _planned_archive(path: Path) -> Command:
    # on a running scheduler nothing is timed, so no network is loaded
    return ("reprocess", str(path), "--dry-run", "--cluster", "CLUSTER", "--output", "OUT")


@maker
def table(folder: Path, random: Random) -> list[Command]:
    rows = [["date", "path"], *[[path.stem[2:6] + "-06-01", path.name] for path in _dated(folder)]]
    for _ in range(random.choice((1, 2))):
        row = random.choice(rows)
        row[random.randrange(len(row))] = str(random.choice(VALUES))
    text = "\n".join(random.choice((",", ",", ";", "\t")).join(row) for row in rows)
    path = folder / "dates.csv"
    path.write_bytes(text.encode(random.choice(("utf-8", "utf-8-sig", "utf-16", "utf-8")), "replace"))
    if random.random() < 0.2:
        path.write_bytes(with_other_bytes(path.read_bytes(), random))
    return looked_at(path, _planned_archive(path))


@maker
def stac(folder: Path, random: Random) -> list[Command]:
    features = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": path.stem,
            "links": [],
            "geometry": {"type": "Polygon", "coordinates": [_SQUARE]},
            "bbox": [3.0001, 50.5249, 3.0006, 50.5252],
            "properties": {"datetime": f"{path.stem[2:6]}-06-01T00:00:00Z", "proj:epsg": 32631},
            "assets": {"image": {"href": path.name, "type": "image/tiff; application=geotiff", "eo:bands": [{}]}},
        }
        for path in _dated(folder)
    ]
    document = {"type": "FeatureCollection", "features": features, "links": [{"rel": "self", "href": "items.json"}]}
    path = written(folder / "items.json", with_another_value(document, random), random)
    return looked_at(path, _planned_archive(path))


@maker
def label(folder: Path, random: Random) -> list[Command]:
    good = image(folder / "good.tif")
    values = np.zeros((1, SIDE, SIDE), random.choice((np.uint8, np.float32, np.int16, np.float64, np.uint32)))
    values[:, :20, :20] = random.choice((1, 255, 2, np.iinfo(np.int8).max))
    values[:, 30:34] = random.choice((0, 3, 77))
    path = geotiff(folder / "label.tif", values, nodata=random.choice((None, 0, 1, 255)))
    if random.random() < 0.7:
        path.write_bytes(with_other_bytes(path.read_bytes(), random, until=400))
    if random.random() < 0.2:
        path = written(
            folder / "label.geojson", with_another_value({"type": "Polygon", "coordinates": [_SQUARE]}, random), random
        )
    given = ("--before", str(good), "--after", str(good), "--label", str(path), "--output", "OUT", "--window", "32")
    return looked_at(path, ("prepare", *given, "--cluster", "CLUSTER"))


@maker
def names_in_a_list(folder: Path, random: Random) -> list[Command]:
    lines = [image(folder / f"{name}.tif").name for name in ("t0", "t[1]", "t 2")]
    lines[random.randrange(3)] = str(random.choice([value for value in VALUES if isinstance(value, str)]))
    path = folder / "list.txt"
    text = random.choice(("\n", "\r\n", "\r")).join(random.choice((line, f'"{line}"', f"# {line}")) for line in lines)
    path.write_bytes(text.encode(random.choice(("utf-8", "utf-16", "utf-8-sig", "latin-1")), "replace"))
    return looked_at(path, plan(path, path))


@maker
def archive_file(folder: Path, random: Random) -> list[Command]:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name in random.choice((["a.tif"], ["a.tif", "b/c.tif"], ["../a.tif"], ["note.txt"], [])):
            file.write(image(folder / "inside.tif"), name)
    path.write_bytes(with_other_bytes(path.read_bytes(), random))
    return looked_at(path, plan(path, path))


@maker
def vrt(folder: Path, random: Random) -> list[Command]:
    image(folder / "t.tif")
    file = '<SourceFilename relativeToVRT="1">t.tif</SourceFilename>'
    source = f"<SimpleSource>{file}<SourceBand>1</SourceBand></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    whole = (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>500000, 1, 0, 5600000, 0, -1</GeoTransform>{band}</VRTDataset>"
    )
    words = ("t.tif", "1", "EPSG:32631", "SimpleSource", "Byte", "500000", str(SIDE), "VRTDataset", "<", "&")
    junk = (
        "",
        "-1",
        "/etc/passwd",
        "t.vrt",
        "&x;",
        "NaN",
        "999999999",
        "AveragedSource",
        "<!DOCTYPE x>",
        "http://127.0.0.1:1/a",
    )
    text = whole.replace(random.choice(words), random.choice(junk), random.choice((1, -1)))
    path = folder / "a.vrt"
    path.write_text(text)
    return looked_at(path, plan(path, path))


def commands(number: int, folder: Path) -> tuple[str, list[Command]]:
    """The kind of an input, and the commands that look at it, `OUT` being what they write, `CLUSTER` where."""
    random = Random(number)
    kind = list(MAKERS)[number % len(MAKERS)]
    return kind, MAKERS[kind](folder, random)


def main() -> None:
    import flows.archive.job
    import flows.cli.inference
    import flows.dataset.run
    import flows.detect.job  # noqa: F401  once, for all forks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    with scheduler() as address:
        _try_all(options.folder, range(options.first, options.first + options.count), address)


def _try_all(folder: Path, numbers: range, cluster: str) -> None:
    from flows.cli.commands import COMMANDS

    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{number}-") as temporary:
            kind, typed = commands(number, Path(temporary))
            for command in typed:
                if command[0] not in COMMANDS:
                    continue
                places = {"OUT": str(Path(temporary) / "out"), "CLUSTER": cluster}
                ended = dasnet(*(places.get(word, word) for word in command))
                facts = {
                    "number": number,
                    "kind": kind,
                    "command": command[0],
                    "code": ended.code,
                    "seconds": ended.seconds,
                    "peak_bytes": ended.peak_bytes,
                    "said": ended.err[-1500:],
                    "is_unforeseen": "This was not foreseen" in ended.err,
                    "has_traceback": ended.has_traceback or "Traceback" in ended.out,
                }
                sys.stdout.write(json.dumps(facts) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
