"""Polygons of a cut mosaic are those of the whole one."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.features import shapes
from scipy import ndimage

from storage.products.outlines.front import OpenFront
from storage.products.outlines.ground import Ground
from storage.products.outlines.parts import part_of, read_with_halo
from storage.products.plates import Plates
from storage.products.polygons import write_changes
from tests.storage.products.memory import MemoryRun
from tiling.conventions import changed_level


def whole(run: MemoryRun, threshold: float) -> list[tuple[shapely.Geometry, int, float, float]]:
    """All areas at once: polygon, pixels, mean and maximum; ordered by their first pixel."""
    p = run.probability
    changed = (p / 254 >= threshold - 1e-12) & (p != 255)
    labels, count = ndimage.label(changed)
    shapes_of = {
        int(v): shapely.geometry.shape(s)
        for s, v in shapes(labels.astype("int32"), mask=changed, transform=run.grid.affine)
    }
    return [
        (shapes_of[n], int((labels == n).sum()), p[labels == n].mean() / 254, p[labels == n].max() / 254)
        for n in range(1, count + 1)
    ]


@settings(max_examples=40, deadline=None)
@given(
    probability=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 24), st.integers(1, 24)),
        elements=st.sampled_from([0, 100, 127, 128, 254, 255]),
    ),
    plate=st.integers(2, 12),
)
def test_cut_and_whole_agree(tmp_path_factory: pytest.TempPathFactory, probability: np.ndarray, plate: int) -> None:
    run = MemoryRun(probability)
    path = tmp_path_factory.mktemp("vector") / "changes.parquet"
    result = write_changes(run, path, threshold=0.5, plate=plate)
    frame = geopandas.read_parquet(path)
    expected = whole(run, 0.5)
    assert len(frame) == result.count == len(expected)
    assert frame.crs.to_epsg() == 32631
    remaining = list(frame.itertuples())
    for polygon, pixels, mean, highest in expected:
        matches = [row for row in remaining if row.geometry.equals(polygon)]
        assert len(matches) == 1
        assert matches[0].pixels == pixels
        assert matches[0].mean_probability == pytest.approx(mean)
        assert matches[0].max_probability == pytest.approx(highest)
        assert matches[0].area_m2 == pytest.approx(pixels * 4.0, rel=2e-3)  # UTM's scale at its central meridian
    assert all(frame.geometry.is_valid)


def test_an_area_that_winds_through_all_blocks_is_one_polygon(tmp_path: Path) -> None:
    probability = np.zeros((40, 40), dtype=np.uint8)
    probability[::4] = 200
    probability[:, 0::39] = 200
    result = write_changes(MemoryRun(probability), tmp_path / "c.parquet", threshold=0.5, plate=8)
    assert result.count == 1


def test_memory_holds_the_outline_of_a_large_area_not_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lake that fills 625 plates, with an island in every second one."""
    probability = np.full((100, 100), 200, dtype=np.uint8)
    probability[1::8, 1::4] = 0
    run, most = MemoryRun(probability), 0
    plates, front = Plates(height=100, width=100, size=4), OpenFront(Ground(run.grid), min_area_m2=0.0)
    for plate in plates:
        front.add(plate, part_of(read_with_halo(run, plate), plate, grid=run.grid, level=127))
        if plate.cols.stop == 100:
            rows = pa.concat_tables(front.end_row())
            most = max(most, sum(len(piece) for held in front._held for piece in held.pieces))
    (lake,) = shapely.from_wkb(rows["geometry"].to_pylist())
    assert rows["pixels"].to_pylist() == [10_000 - 13 * 25]
    assert lake.exterior.equals(shapely.box(500_000, 5_600_000 - 200, 500_200, 5_600_000).exterior)
    assert len(lake.interiors) == 13 * 25
    assert most <= 25 + 2 * 25  # what the lake's own edge leaves in plates


def test_small_areas_are_left_out_and_nothing_gives_an_empty_file(tmp_path: Path) -> None:
    probability = np.zeros((20, 20), dtype=np.uint8)
    probability[3, 3] = 254
    probability[10:14, 10:14] = 254
    run = MemoryRun(probability, block=8)
    assert write_changes(run, tmp_path / "c.parquet", threshold=0.5, min_area_m2=10).count == 1
    assert write_changes(run, tmp_path / "none.parquet", threshold=0.5, min_area_m2=1e6).count == 0
    empty = geopandas.read_parquet(tmp_path / "none.parquet")
    assert len(empty) == 0
    assert empty.crs.to_epsg() == 32631


def test_holes_are_not_counted_in_areas_of_degrees(tmp_path: Path) -> None:
    probability = np.full((5, 5), 254, dtype=np.uint8)
    probability[2, 2] = 0
    run = MemoryRun(probability, block=4, crs="EPSG:3857", resolution=1.0)
    write_changes(run, tmp_path / "c.parquet", threshold=0.5)
    frame = geopandas.read_parquet(tmp_path / "c.parquet")
    assert frame.geometry[0].area == pytest.approx(24.0)
    assert len(frame.geometry[0].interiors) == 1


@given(threshold=st.floats(0.01, 0.99))
def test_levels_are_those_whose_probability_reaches_the_threshold(threshold: float) -> None:
    level = changed_level(threshold)
    assert level / 254 >= threshold - 1e-11
    assert (level - 1) / 254 < threshold
