"""A COG in a bucket: its parts are objects, and it becomes one object without a draft."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from storage.places.bucket import ObjectPath
from storage.places.publish import sha256_of
from storage.products.cog import probability_layer, write_layer
from storage.products.geotiff.join import join_cog
from storage.products.geotiff.layout import CogLayout
from storage.products.geotiff.tiles import StoredPart, encode
from storage.products.plates import Plates

SIDE, PLATE, TILE = 3_000, 1_024, 512
GRID = GeoBox((SIDE, SIDE), Affine(2, 0, 500_000, 0, -2, 5_600_000), "EPSG:32631")
LAYOUT = CogLayout(plates=Plates(height=SIDE, width=SIDE, size=PLATE), tile=TILE)


def test_the_same_bytes_as_on_a_disk_without_a_draft(
    bucket: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    layer = probability_layer()
    for plate in LAYOUT.plates:
        part = encode(pixels[plate.rows, plate.cols], layer, layout=LAYOUT, number=plate.number)
        (bucket / "parts" / plate.name).write(part.to_bytes())
    write_layer(tmp_path / "a.tif", layer, grid=GRID, strips=[(slice(0, SIDE), pixels)], plate=PLATE, tile=TILE)
    here = (tmp_path / "a.tif").read_bytes()
    assert len(here) > 2 * 5 * 2**20, "an upload in parts"

    def join(name: str) -> ObjectPath:
        path = bucket / name
        join_cog(
            path,
            layer,
            grid=GRID,
            parts=lambda number: StoredPart(bucket / "parts" / LAYOUT.plates[number].name),
            plate=PLATE,
            tile=TILE,
        )
        return path

    with monkeypatch.context() as draftless:
        draftless.setattr("storage.products.geotiff.join.publish", None)
        path = join("a.tif")
    assert path.read_bytes() == here
    assert path.sent_sha256() == sha256_of(tmp_path / "a.tif")

    damaged = bucket / "parts" / LAYOUT.plates[4].name
    content = damaged.read_bytes()
    damaged.write(content[:-200_000] + b"?" + content[-199_999:])
    with pytest.raises(IntegrityError, match=r"parts/r00001c00001 is damaged"):
        join("b.tif")
    damaged.write(content[:-1])
    with pytest.raises(IntegrityError, match=r"parts/r00001c00001, a part of a COG, is truncated"):
        join("b.tif")
    for size in (0, 300):
        damaged.write(content[:size])
        with pytest.raises(IntegrityError, match=r"parts/r00001c00001, a part of a COG, is truncated"):
            join("b.tif")
    damaged.unlink()
    with pytest.raises(IntegrityError, match=r"parts/r00001c00001, a part of a COG, is missing"):
        join("b.tif")
    assert sorted(entry.name for entry in bucket.iterdir()) == ["a.tif", "parts"]
