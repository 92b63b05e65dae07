"""Polygons of a cut mosaic are those of the whole one."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.features import shapes
from scipy import ndimage

from storage.products import polygons
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


@settings(max_examples=60, deadline=None)
@given(
    probability=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 24), st.integers(1, 24)),
        elements=st.sampled_from([0, 100, 127, 128, 254, 255]),
    ),
    block=st.integers(2, 12),
    apart=st.sampled_from([0, 20, 1_000_000]),
)
def test_cut_and_whole_agree(
    tmp_path_factory: pytest.TempPathFactory, probability: np.ndarray, block: int, apart: int
) -> None:
    run = MemoryRun(probability, block=block)
    path = tmp_path_factory.mktemp("vector") / "changes.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "_VERTICES_APART", apart)
        result = write_changes(run, path, threshold=0.5)
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
    result = write_changes(MemoryRun(probability, block=8), tmp_path / "c.parquet", threshold=0.5)
    assert result.count == 1


def test_memory_holds_the_outline_of_a_large_area_not_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lake that fills 2,500 blocks, whose pieces have 12,500 vertices."""
    monkeypatch.setattr(polygons, "_VERTICES_APART", 200)
    probability = np.full((200, 200), 200, dtype=np.uint8)
    run, most = MemoryRun(probability, block=4), 0
    add = polygons._Area.add

    def watched(area: polygons._Area, other: polygons._Area) -> None:
        nonlocal most
        add(area, other)
        most = max(most, sum(shapely.get_num_coordinates(area.pieces)))

    monkeypatch.setattr(polygons._Area, "add", watched)
    ((area,),) = [closed for closed in polygons._closed_areas(run, 127) if closed]
    assert area.pixels == 40_000 and area.outline().equals(shapely.box(0, 0, 200, 200))
    assert most < 600


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
