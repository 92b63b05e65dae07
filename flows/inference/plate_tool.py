"""What a worker makes of one plate of a pair: tiles of the COG, outlines, sums, and a small look at the imagery."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.inference.verify import StoredBlock
from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.places.publish import publish
from storage.products.plates import Plate, Plates
from storage.products.reader import SeriesReader, pixels_sha256
from tiling.conventions import changed_level

TILES, OUTLINES, LOOK = "tiles", "outlines", "look"
"""What a plate leaves, each in a file of its own."""


def part_path(place: Location, plate: Plate, kind: str) -> Location:
    """Where a part of a plate lies."""
    return place / f"{plate.name}.{kind}"


@dataclass(frozen=True, kw_only=True)
class PlateTask:
    """One plate of one pair.

    Attributes:
        reader: what is read.
        place: where the parts go.
        plate: its number.
        size: side of plates in pixels.
        key: what the parts are made of.
        blocks: those that are to be compared with their digests here.
    """

    reader: SeriesReader
    place: Location
    plate: int
    size: int
    key: str
    blocks: tuple[StoredBlock, ...]


def import_makers() -> None:
    """Import what makes the parts, while a worker computes blocks: it takes a second or two."""
    import storage.pages.quicklook
    import storage.products.cog
    import storage.products.outlines.parts  # noqa: F401


@dataclass(kw_only=True)
class PlateTool:
    """Callable of one worker: a plate in, its parts stored, facts about it out; `lanes` of them compute at a time."""

    threshold: float
    min_area_m2: float
    lanes: int
    _computing: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._computing = threading.Semaphore(self.lanes)

    def __call__(self, task: PlateTask) -> Mapping[str, Any]:
        """Make the parts of a plate.

        Returns:
            ``key``; ``sha256`` of the plate's pixels and their ``histogram``. In their place ``wrong``, names of blocks
            that are not what their workers wrote, or ``unread`` or ``lost``, why the probability around the plate, or
            its imagery, cannot be read: then the plate left no parts.
        """
        with self._computing:
            return {"key": task.key, **self._make(task.reader, task)}

    def _make(self, reader: SeriesReader, task: PlateTask) -> Mapping[str, Any]:
        from storage.pages.quicklook import look_at
        from storage.products.cog import probability_layer
        from storage.products.geotiff.layout import CogLayout
        from storage.products.geotiff.tiles import encode
        from storage.products.outlines.parts import part_of, read_with_halo
        from storage.products.plate_sums import PlateSums

        began = time.perf_counter()
        plates = Plates(height=reader.height, width=reader.width, size=task.size)
        plate = plates[task.plate]
        if wrong := [block.name for block in task.blocks if not is_as_written(reader, block)]:
            return {"wrong": wrong}
        try:
            around = read_with_halo(reader, plate)
        except IntegrityError as error:
            return {"unread": str(error)}
        pixels = np.ascontiguousarray(around[1:-1, 1:-1])
        try:
            look = look_at(reader, plate, pixels)
        except IntegrityError as error:
            return {"lost": str(error)}
        outlines = part_of(
            around, plate, grid=reader.grid, level=changed_level(self.threshold), min_area_m2=self.min_area_m2
        )
        tiles = encode(pixels, probability_layer(), layout=CogLayout(plates=plates), number=plate.number)
        for kind, part in ((TILES, tiles), (OUTLINES, outlines), (LOOK, look)):
            _write(part_path(task.place, plate, kind), part.to_bytes())
        sums = PlateSums.of(pixels)
        return {
            "sha256": sums.pixels_sha256,
            "histogram": {str(value): count for value, count in enumerate(sums.histogram) if count},
            "seconds": round(time.perf_counter() - began, 4),
        }


def is_as_written(reader: SeriesReader, block: StoredBlock) -> bool:
    """Whether a block can be read and has the digest that its worker reported."""
    try:
        return pixels_sha256(reader.read_probability(rows=block.rows, cols=block.cols)) == block.sha256
    except IntegrityError:
        return False


def _write(path: Location, content: bytes) -> None:
    if isinstance(path, ObjectPath):
        path.write(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as draft:
        draft.write_bytes(content)
