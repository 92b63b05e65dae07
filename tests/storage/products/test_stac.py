"""The STAC item against the specification's own schemas, which pystac carries."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path

import pystac
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from storage.products.stac import ItemAsset, write_item

LAEA = "+proj=laea +lat_0=10 +lon_0=-81 +ellps=WGS84"


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326", LAEA])
def test_item_is_valid_and_says_where_when_and_from_what(tmp_path: Path, crs: str) -> None:
    step = 0.001 if crs == "EPSG:4326" else 10.0
    left, top = (2.0, 49.0) if crs == "EPSG:4326" else (448_000, 5_412_000) if crs == "EPSG:32631" else (0, 0)
    grid = GeoBox((300, 400), Affine(step, 0, left, 0, -step, top), crs)
    product = tmp_path / "change_probability.tif"
    product.write_bytes(b"pixels")
    digest = hashlib.sha256(b"pixels").hexdigest()
    write_item(
        tmp_path / "item.json",
        item_id="change-1",
        grid=grid,
        start=datetime(2019, 6, 21),
        end=datetime(2024, 9, 5, 10, 30),
        assets=[
            ItemAsset(
                key="probability",
                path=product,
                sha256=digest,
                media_type=pystac.MediaType.COG,
                title="Change probability",
                roles=["data"],
            )
        ],
        provenance={"run_key": "abc", "parameters": {"block": 512}},
        software={"dasnet-region": "0"},
        made_by="a method of this test",
    )
    content = json.loads((tmp_path / "item.json").read_text())
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, content["stac_version"])
    item = pystac.Item.from_file(str(tmp_path / "item.json"))
    assert item.common_metadata.start_datetime is not None
    assert item.common_metadata.start_datetime.isoformat() == "2019-06-21T00:00:00+00:00"
    footprint = shapely.geometry.shape(content["geometry"])
    expected = grid.extent.to_crs("EPSG:4326").boundingbox
    assert footprint.bounds == pytest.approx(tuple(expected), abs=1e-3)
    assert content["bbox"] == pytest.approx(list(footprint.bounds))
    assert content["properties"]["proj:shape"] == [300, 400]
    assert content["properties"]["proj:code"] == (None if crs == LAEA else crs)
    assert ("proj:wkt2" in content["properties"]) == (crs == LAEA)
    assert content["properties"]["dasnet:run_key"] == "abc"
    assert content["properties"]["processing:lineage"] == "Change probability by a method of this test"
    asset = content["assets"]["probability"]
    assert asset["href"] == "./change_probability.tif"
    assert asset["file:checksum"] == "1220" + digest
    assert asset["file:size"] == 6
    assert asset["raster:bands"][0]["nodata"] == 255
    assert asset["raster:bands"][0]["scale"] == pytest.approx(1 / 254)
