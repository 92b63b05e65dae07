"""Items in a GeoParquet file are the items that their JSON would be."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from odc.geo.geom import box as outline_box
from shapely.geometry import box

from storage.archives.listing import read_archive
from storage.errors import InputError
from tests.rasters import geotiff


def write(folder: Path, **columns: object) -> Path:
    days = (datetime(2019, 6, 1, 10, tzinfo=UTC), datetime(2021, 6, 1, 10, tzinfo=UTC))
    for n in range(2):
        place = Affine(1, 0, 500_000, 0, -1, 5_600_000)
        geotiff(folder / f"t{n}.tif", np.full((3, 16, 16), 7, np.uint8), transform=place)
    images = [{"href": f"./t{n}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]} for n in range(2)]
    rows = {
        "type": ["Feature"] * 2,
        "stac_version": ["1.0.0"] * 2,
        "id": ["one", "two"],
        "geometry": [shapely.to_wkb(box(3, 50, 3.1, 50.6)), shapely.to_wkb(box(3 + 360, 50, 3.1 + 360, 50.6))],
        "bbox": [{"xmin": 3.0, "ymin": 50.0, "xmax": 3.1, "ymax": 50.6}] * 2,
        "links": [[], []],
        # a column of assets has those of all items: what an item lacks is null
        "assets": [{"image": images[0], "other": None}, {"image": images[1], "other": {"href": "x.png"}}],
        "datetime": days,
        "eo:cloud_cover": [1.5, None],
        **columns,
    }
    pq.write_table(pa.table(rows), folder / "items.parquet")
    return folder / "items.parquet"


def test_items_of_a_parquet_file_are_an_archive(tmp_path: Path) -> None:
    dates = read_archive(write(tmp_path))
    assert [(files.day, [Path(path).name for path in files.paths]) for files in dates] == [
        (date(2019, 6, 1), ["t0.tif"]),
        (date(2021, 6, 1), ["t1.tif"]),
    ]
    assert [one.id for files in dates for one in files.items] == ["one", "two"]
    assert dates[0].open().grid.shape == (16, 16)


def test_items_that_do_not_touch_a_region_are_left_out_whatever_turns_they_count(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert len(read_archive(path, outline=outline_box(3.05, 50.2, 3.2, 50.3, "EPSG:4326"))) == 2
    with pytest.raises(InputError, match="no date left"):
        read_archive(path, outline=outline_box(8, 50.2, 9, 50.3, "EPSG:4326"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": [None, "two"]}, "item 1 in it has no id"),
        ({"datetime": [None, datetime(2021, 6, 1)]}, "STAC item one .* has no date"),
        ({"geometry": [b"no geometry", None]}, "STAC item one .* has a geometry that is none"),
    ],
)
def test_a_row_that_is_no_item_is_named(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_archive(write(tmp_path, **columns))


def test_a_list_and_a_tile_index_are_archives_of_their_rasters(tmp_path: Path) -> None:
    for year in (2019, 2021):
        geotiff(tmp_path / f"t_{year}0601.tif", np.full((3, 16, 16), 7, np.uint8))
    (tmp_path / "list.txt").write_text('t_20190601.tif\r\n"t_20210601.tif"\r\n', encoding="utf-16")
    assert [files.day.year for files in read_archive(tmp_path / "list.txt")] == [2019, 2021]
    pq.write_table(pa.table({"location": ["t_20190601.tif", "t_20210601.tif"]}), tmp_path / "index.parquet")
    assert [files.day.year for files in read_archive(tmp_path / "index.parquet")] == [2019, 2021]
