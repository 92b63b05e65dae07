"""Parts of plates: outlines are those of the whole map, parts survive their file, and wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import shapes
from scipy import ndimage

from storage.errors import InputError, IntegrityError
from storage.products.outlines import ground
from storage.products.outlines.parts import OutlinePart, part_of, read_with_halo
from storage.products.plates import Plate, Plates
from storage.products.polygons import join_changes, write_changes
from tests.storage.products.memory import MemoryRun


@st.composite
def noisy_maps(draw: st.DrawFn) -> np.ndarray:
    """Levels (h, w) with changed pixels of any density; between 0.4 and 0.6 outlines touch themselves most."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    changed = random.random(shape) < draw(st.floats(0.1, 0.95))
    return np.where(changed, random.integers(127, 255, shape), random.choice([0, 126, 255], shape)).astype(np.uint8)


def parts_of(run: MemoryRun, *, plate: int, level: int = 127) -> list[tuple[Plate, OutlinePart]]:
    plates = Plates(height=run.height, width=run.width, size=plate)
    return [(each, part_of(read_with_halo(run, each), each, grid=run.grid, level=level)) for each in plates]


def outlines_of_gdal(run: MemoryRun) -> list[bytes]:
    """Every area's polygon in a normal form, corner by corner."""
    changed = (run.probability >= 127) & (run.probability != 255)
    labels, _ = ndimage.label(changed)
    found = shapes(labels.astype("int32"), mask=changed, transform=run.grid.affine, connectivity=4)
    return sorted(shapely.to_wkb(shapely.normalize([shapely.geometry.shape(shape) for shape, _ in found])).tolist())


@settings(max_examples=50, deadline=None)
@given(probability=noisy_maps(), plate=st.integers(3, 17))
def test_outlines_are_those_of_gdal_corner_by_corner(
    tmp_path_factory: pytest.TempPathFactory, probability: np.ndarray, plate: int
) -> None:
    run, path = MemoryRun(probability), tmp_path_factory.mktemp("outlines") / "changes.parquet"
    write_changes(run, path, threshold=0.5, plate=plate)
    polygons = geopandas.read_parquet(path).geometry
    assert sorted(polygons.normalize().to_wkb().tolist()) == outlines_of_gdal(run)
    assert polygons.is_valid.all()


@settings(max_examples=15, deadline=None)
@given(
    probability=noisy_maps(),
    plate=st.integers(3, 17),
    crs=st.sampled_from(["EPSG:32631", "EPSG:3857", "EPSG:3035"]),
    resolution=st.sampled_from([0.5, 30.0]),
)
def test_areas_are_geodesic_ones_of_the_outlines(
    tmp_path_factory: pytest.TempPathFactory, probability: np.ndarray, plate: int, crs: str, resolution: float
) -> None:
    """Pieces know the areas of their loops, and the rest is a polygon of their ends: the sum is the ring's own."""
    run = MemoryRun(probability, crs=crs, resolution=resolution)
    path = tmp_path_factory.mktemp("areas") / "changes.parquet"
    result = write_changes(run, path, threshold=0.5, plate=plate)
    frame = geopandas.read_parquet(path)
    geod = run.grid.crs.proj.get_geod()
    degrees = shapely.orient_polygons(frame.to_crs("EPSG:4326").geometry.values)
    expected = [abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in degrees]
    np.testing.assert_allclose(frame["area_m2"], expected, rtol=1e-8, atol=1e-5)
    assert result.area_m2 == pytest.approx(sum(expected))


@settings(max_examples=15, deadline=None)
@given(probability=noisy_maps(), plate=st.integers(3, 17))
def test_a_part_survives_its_bytes_and_the_file_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, probability: np.ndarray, plate: int
) -> None:
    run, folder = MemoryRun(probability), tmp_path_factory.mktemp("parts")
    stored = [(each, part.to_bytes()) for each, part in parts_of(run, plate=plate)]
    assert [part.to_bytes() for _, part in parts_of(run, plate=plate)] == [data for _, data in stored]
    parts = ((each, OutlinePart.from_bytes(data)) for each, data in stored)
    joined = join_changes(parts, folder / "joined.parquet", grid=run.grid)
    assert joined == write_changes(run, folder / "whole.parquet", threshold=0.5, plate=plate)
    assert (folder / "joined.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


def test_a_hole_that_touches_the_shell_at_a_vertex_is_a_hole(tmp_path: Path) -> None:
    """Whether one plate sees the vertex, or four that each see one pixel of it."""
    probability = np.array([[0, 200, 200], [200, 0, 200], [200, 200, 200]], dtype=np.uint8)
    for plate in (1, 2, 3):
        write_changes(MemoryRun(probability), tmp_path / "c.parquet", threshold=0.5, plate=plate)
        (polygon,) = geopandas.read_parquet(tmp_path / "c.parquet").geometry
        assert polygon.is_valid and len(polygon.interiors) == 1
        assert shapely.get_num_coordinates(polygon) == 7 + 5
        assert polygon.area == 7 * 4.0


def test_rows_come_by_the_plate_row_in_which_an_area_ends(tmp_path: Path) -> None:
    probability = np.zeros((8, 8), dtype=np.uint8)
    probability[0, 0] = 201  # in one plate
    probability[0, 2:6] = 202  # over two plates, both in the first row
    probability[1:6, 7] = 203  # ends in the second row
    probability[2, 5] = 204
    probability[5, 0] = 205
    write_changes(MemoryRun(probability), tmp_path / "c.parquet", threshold=0.5, plate=4)
    levels = np.rint(geopandas.read_parquet(tmp_path / "c.parquet")["max_probability"] * 254)
    assert levels.tolist() == [201, 204, 202, 205, 203]


def test_closed_areas_that_are_too_small_leave_the_worker_never(tmp_path: Path) -> None:
    probability = np.zeros((20, 20), dtype=np.uint8)
    probability[3, 3] = probability[9:11, 9:11] = 254
    probability[14:17, 14:17] = 200
    run = MemoryRun(probability)
    (plate,) = Plates(height=20, width=20)
    part = part_of(read_with_halo(run, plate), plate, grid=run.grid, level=127, min_area_m2=20)
    assert part.closed["pixels"].to_pylist() == [9]
    (polygon,) = shapely.from_wkb(part.closed["geometry"].to_pylist())
    assert polygon.equals(shapely.box(500_028, 5_600_000 - 34, 500_034, 5_600_000 - 28))


def test_rows_are_written_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.products.polygons._ROWS_A_GROUP", 10)
    probability = np.zeros((16, 16), dtype=np.uint8)
    probability[::2, ::2] = 200
    write_changes(MemoryRun(probability), tmp_path / "c.parquet", threshold=0.5, plate=8)
    file = pq.ParquetFile(tmp_path / "c.parquet")
    assert file.metadata.num_rows == 64
    assert max(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)) == 10


def test_an_outline_that_no_file_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "MOST_BYTES", 2000)
    probability = np.full((24, 24), 200, dtype=np.uint8)
    probability[1::2, 1::2] = 0
    with pytest.raises(InputError, match=r"a changed area of 432 pixels .* choose a higher one"):
        write_changes(MemoryRun(probability), tmp_path / "c.parquet", threshold=0.5, plate=8)
    assert not list(tmp_path.iterdir())


def test_damaged_bytes_are_named() -> None:
    (_, part), *_ = parts_of(MemoryRun(np.full((4, 4), 200, dtype=np.uint8)), plate=2)
    data = part.to_bytes()
    for damaged in (b"", data[: len(data) // 2], b"x" + data[1:]):
        with pytest.raises(IntegrityError, match=r"outlines/r00000c00000\.arrow \(\d+ bytes\) cannot be read"):
            OutlinePart.from_bytes(damaged, name="outlines/r00000c00000.arrow")


def test_parts_that_are_missing_or_of_another_map_are_refused(tmp_path: Path) -> None:
    full = MemoryRun(np.full((6, 6), 200, dtype=np.uint8))
    empty = MemoryRun(np.zeros((6, 6), dtype=np.uint8))
    parts, others = parts_of(full, plate=2), parts_of(empty, plate=2)
    path = tmp_path / "c.parquet"
    with pytest.raises(IntegrityError, match="row 2, column 2 are missing: r00001c00002 follows"):
        join_changes(parts[:4] + parts[5:], path, grid=full.grid)
    with pytest.raises(IntegrityError, match="end at row 4, column 4 of a map of 6 rows, 6 columns"):
        join_changes(parts[:-1], path, grid=full.grid)
    for number in (0, 4, 5, 7, 8):
        mixed = [*parts[:number], others[number], *parts[number + 1 :]]
        with pytest.raises(IntegrityError, match="are not of one map"):
            join_changes(mixed, path, grid=full.grid)
    assert not path.exists()
