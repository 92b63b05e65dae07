"""Changed areas as polygons in one GeoParquet file, whatever the cut.

Each plate gives its part (:mod:`storage.products.outlines.parts`); here they are joined, one row of plates after the
other. Areas that lie in one plate pass through. Of the others their pieces are held until the last plate that they
reach has been seen. So the work grows with plates and with what crosses their edges, and the memory holds the outlines
of the areas that are open along one row of plates, never the mosaic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from storage.places.bucket import Location
from storage.places.publish import publish
from storage.products.outlines.front import OpenFront
from storage.products.outlines.ground import Ground
from storage.products.outlines.parts import ROWS, OutlinePart, part_of, read_with_halo
from storage.products.plates import PLATE, Plate, Plates
from storage.products.reader import ProbabilityReader
from tiling.conventions import changed_level

_ROWS_A_GROUP = 50_000
_BYTES_A_GROUP = 1 << 28
"""A group of rows is written when it has one or the other."""


@dataclass(frozen=True, kw_only=True)
class VectorResult:
    """How many polygons were written, and their area in square metres."""

    count: int
    area_m2: float


def write_changes(
    reader: ProbabilityReader, path: Location, *, threshold: float, min_area_m2: float = 0.0, plate: int = PLATE
) -> VectorResult:
    """Write the polygons of all 4-connected areas whose probability is `threshold` or more, in this process.

    The file is that of :func:`join_changes` over the parts of all plates.

    Args:
        threshold: on the probability, in (0, 1).
        min_area_m2: smaller areas are left out.
        plate: side of a plate, pixels.
    """
    level = changed_level(threshold)
    plates = Plates(height=reader.height, width=reader.width, size=plate)
    parts = (
        (each, part_of(read_with_halo(reader, each), each, grid=reader.grid, level=level, min_area_m2=min_area_m2))
        for each in plates
    )
    return join_changes(parts, path, grid=reader.grid, min_area_m2=min_area_m2)


def join_changes(
    parts: Iterable[tuple[Plate, OutlinePart]], path: Location, *, grid: GeoBox, min_area_m2: float = 0.0
) -> VectorResult:
    """Write one file of the parts of all plates.

    Columns: geometry in the grid's CRS, `area_m2` (on the ellipsoid), `pixels`, `mean_probability`,
    `max_probability`. Ordered by the row of plates in which an area ends: first the areas that lie in one plate, plate
    by plate, then those that lie in several; each by their first pixel.

    Args:
        parts: of all plates of the grid, row by row; each is asked for when those before it are joined.
        min_area_m2: smaller areas are left out.

    Raises:
        IntegrityError: a part is missing, or the parts are not of one map.
        InputError: the outline of one area is longer than a file can hold.
    """
    with publish(path) as draft, _Writer(draft, grid, min_area_m2) as writer:
        for rows in _joined(parts, grid, min_area_m2):
            writer.write(rows)
    return VectorResult(count=writer.count, area_m2=writer.area_m2)


def _joined(parts: Iterable[tuple[Plate, OutlinePart]], grid: GeoBox, min_area_m2: float) -> Iterator[pa.Table]:
    height, width = grid.shape
    front = OpenFront(Ground(grid), min_area_m2=min_area_m2)
    y = x = 0
    for plate, part in parts:
        if (plate.rows.start, plate.cols.start) != (y, x):
            raise IntegrityError(
                f"the outlines of the plate at row {y}, column {x} are missing: {plate.name} follows, which begins at "
                f"row {plate.rows.start}, column {plate.cols.start}"
            )
        yield part.closed
        front.add(plate, part)
        x = plate.cols.stop
        if x == width:
            yield from front.end_row()
            y, x = plate.rows.stop, 0
    if (y, x) != (height, 0):
        raise IntegrityError(f"the outlines end at row {y}, column {x} of a map of {height} rows, {width} columns")
    front.require_empty()


class _Writer:
    """A GeoParquet file that is written group by group, on the way counting what is in it."""

    def __init__(self, draft: Path, grid: GeoBox, min_area_m2: float) -> None:
        self.count, self.area_m2 = 0, 0.0
        self._min_area_m2 = min_area_m2
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0  # of those that wait
        self._schema = ROWS.with_metadata({"geo": json.dumps(_description(grid))})
        numbers = [name for name in ROWS.names if name != "geometry"]
        self._file = pq.ParquetWriter(
            draft,
            self._schema,
            compression="zstd",
            use_dictionary=["pixels", "max_probability"],
            write_statistics=numbers,
        )

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write_group()
        finally:
            self._file.close()

    def write(self, rows: pa.Table) -> None:
        """Add rows; those of areas that are too small are left out."""
        if self._min_area_m2 > 0:
            rows = rows.filter(pc.greater_equal(rows["area_m2"], self._min_area_m2))
        if not len(rows):
            return
        self.count += len(rows)
        self.area_m2 += pc.sum(rows["area_m2"]).as_py()
        self._waiting.append(rows)
        self._rows += len(rows)
        self._bytes += rows.nbytes
        if self._rows >= _ROWS_A_GROUP or self._bytes >= _BYTES_A_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._waiting:
            rows = pa.concat_tables(self._waiting).replace_schema_metadata(self._schema.metadata)
            self._file.write_table(rows, row_group_size=_ROWS_A_GROUP)
            self._waiting, self._rows, self._bytes = [], 0, 0


def _description(grid: GeoBox) -> dict[str, object]:
    """GeoParquet 1.1 metadata of the whole file: its extent is the grid's."""
    crs, box = grid.crs, grid.extent.boundingbox
    assert crs is not None
    return {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": crs.proj.to_json_dict(),
                "bbox": [box.left, box.bottom, box.right, box.top],
            }
        },
    }
