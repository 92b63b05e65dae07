"""Scenes with labels, by their headers: two dates and what changed between them, on one grid.

A scene is a small picture of a published dataset or a whole mosaic. Pictures without georeferencing are aligned by
their pixels; mosaics by their coordinates, the second date resampled onto the first one's grid where it differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from storage.datasets.drawn_labels import DrawnPolygons, is_drawn, read_polygons
from storage.datasets.label_rasters import LabelRaster, open_label
from storage.datasets.label_readers import LabelReader, label_reader
from storage.datasets.label_rules import LabelRule
from storage.datasets.label_values import LabelCounts, count_label
from storage.errors import InputError
from storage.imagery.bands import numbered_bands, require_one_meaning, same_bands
from storage.imagery.description import NOTHING_SAID, Overrides, scales_and_offsets
from storage.imagery.grids import common_grid
from storage.imagery.headers.raster import open_picture
from storage.imagery.mosaics import Mosaic, open_mosaic, picture
from storage.imagery.rasters import GridReader
from storage.imagery.sources import DRIVERS, absolute, open_with_allowed_driver
from storage.imagery.value_checks import scales_of
from storage.imagery.values import Encoding, any_declared, common_scale, require_quantised, working_type
from tiling.conventions import IGNORED, Values

PICTURES = ("GTiff", "PNG", "JPEG", "BMP")


@dataclass(frozen=True, kw_only=True)
class SceneFiles:
    """What makes a scene: paths alone, nothing opened yet.

    Attributes:
        name: unique in a dataset.
        before, after: a raster each, or a list of files that make one mosaic.
        label: raster or polygons of what changed; or
        label_before, label_after: a mask for each date, where changed is what differs between them.
        split: train, val or test as published; None = not published.
        place: scenes of one place, at whatever dates, have one; they are never in two splits.
    """

    name: str
    before: str | tuple[str, ...]
    after: str | tuple[str, ...]
    label: str | None = None
    label_before: str | None = None
    label_after: str | None = None
    split: str | None = None
    place: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same files."""
        paths = ("before", "after", "label", "label_before", "label_after")
        return {**self.__dict__, **{name: _absolute(self.__dict__[name]) for name in paths}}

    def __post_init__(self) -> None:
        masks = (self.label_before is not None, self.label_after is not None)
        if (self.label is not None) == any(masks) or any(masks) != all(masks):
            raise InputError(f"scene {self.name} needs one label of its changes, or a mask for each of its two dates")


def _absolute(spec: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(spec, tuple):
        return tuple(map(absolute, spec))
    return None if spec is None else absolute(spec)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An opened scene; holds no file open, so it travels to workers.

    Attributes:
        files: what it was opened from.
        before, after: readers on `grid`, all bands.
        labels: one raster, or one of each date; none where polygons say what changed.
        polygons: what changed, or None.
        grid: the one grid of all; without a CRS for pictures.
        bands: names.
        dtype: data type of the images.
        scale_and_offset: of each band, as the files declare it; None = they declare nothing.
        notes: what had to be guessed, and what is remarkable about how its label is read.
    """

    files: SceneFiles
    before: GridReader
    after: GridReader
    labels: tuple[LabelReader, ...]
    polygons: DrawnPolygons | None
    grid: GeoBox
    bands: tuple[str, ...]
    dtype: str
    notes: tuple[str, ...] = ()
    scale_and_offset: tuple[tuple[float, float], ...] | None = None

    @property
    def height(self) -> int:
        return int(self.grid.height)

    @property
    def width(self) -> int:
        return int(self.grid.width)

    def label_counts(self, *, rows: slice, cols: slice) -> dict[str, LabelCounts]:
        """Pixels by value of each label raster, by its path; nothing for polygons."""
        return {reader.path: count_label(*reader.read(rows=rows, cols=cols)) for reader in self.labels}

    def read_label(self, rule: LabelRule | None, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8 of a range inside the grid: 1 = changed, 0 = unchanged, 255 = not known."""
        if self.polygons is not None:
            return self.polygons.read(rows=rows, cols=cols)
        assert rule is not None
        masks = [rule.apply(reader.path, *reader.read(rows=rows, cols=cols)) for reader in self.labels]
        if len(masks) == 1:
            return masks[0]
        before, after = masks
        return np.where((before == IGNORED) | (after == IGNORED), np.uint8(IGNORED), before ^ after)


@dataclass(frozen=True, kw_only=True)
class LabelOnGrid:
    """What changed, on the grid of a run: a raster with the rule by which it is read, or polygons."""

    raster: LabelReader | None
    polygons: DrawnPolygons | None
    rule: LabelRule | None = None

    def read(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8 of a range inside the grid: 1 = changed, 0 = unchanged, 255 = not known."""
        if self.polygons is not None:
            return self.polygons.read(rows=rows, cols=cols)
        assert self.raster is not None and self.rule is not None
        return self.rule.apply(self.raster.path, *self.raster.read(rows=rows, cols=cols))


def label_on_grid(path: str, grid: GeoBox, rule: LabelRule | None) -> LabelOnGrid:
    """Open a label by its header, for a grid that has a CRS; of a raster the nearest pixel is taken.

    Args:
        rule: by which a raster is read; None for polygons.

    Raises:
        InputError: unreadable, without georeferencing, or elsewhere.
    """
    if is_drawn(path):
        polygons = DrawnPolygons(path=path, grid=grid)
        if polygons.is_elsewhere:
            raise InputError(
                f"no polygon of {path} lies on the mosaic: are its coordinates x and y, in the CRS it names?"
            )
        return LabelOnGrid(raster=None, polygons=polygons)
    reader, _ = label_reader(georeferenced_label(path), grid, images=grid, images_path="the mosaic")
    return LabelOnGrid(raster=reader, polygons=None, rule=rule)


def georeferenced_label(path: str) -> LabelRaster:
    """Open a label raster that must have its place on Earth; raises InputError."""
    raster = open_label(path)
    if raster.grid.crs is None:
        raise InputError(f"{path} has no georeferencing: a mosaic's label needs a CRS and a place (gdal_edit.py)")
    return raster


def open_scene(
    files: SceneFiles,
    *,
    bands: Sequence[int] | None = None,
    resolution: float | None = None,
    said: Overrides = NOTHING_SAID,
    values: Values | None = None,
) -> Scene:
    """Open the headers of a scene and see that they fit together.

    Args:
        bands: numbers (from 1, in the files) to keep of both dates, in this order; None = all, those of the second
            date by the names of the first's where all have one.
        resolution: size of a pixel of the scene's grid in units of its CRS, onto which everything is resampled;
            None = the first date's. A network that sees positions eight pixels apart sees finer ones on a finer grid.
        said: what the user says of the imagery.
        values: whether numbers count as they stand (``stored``) or as the files declare them.

    Raises:
        InputError: an unreadable file, sizes that differ, other bands or other names of bands, no overlap; with paths
            and values.
    """
    before, after = (open_image(spec, said) for spec in (files.before, files.after))
    if (before.grid.crs is None) != (after.grid.crs is None):
        # one of the two lost its georeferencing: pixels are all that is left to align them by
        before, after = _as_picture(before), _as_picture(after)
    if len(before.bands) != len(after.bands):
        raise InputError(
            f"{before.label} has {len(before.bands)} bands, {after.label} has {len(after.bands)}: "
            "the two dates must be alike"
        )
    if before.grid.crs is None:
        if resolution is not None:
            raise InputError(
                f"{before.label} has no georeferencing: it cannot be brought to a resolution of {resolution}"
            )
        _require_size(after, before)
        grid = before.grid
    else:
        grid = common_grid([before, after], resolution=resolution)
    chosen = tuple(range(1, len(before.bands) + 1))
    if bands is not None:
        chosen, others = (numbered_bands(mosaic, bands, "--bands") for mosaic in (before, after))
        require_one_meaning((before, after), (chosen, others), option="--bands", instead="write both in one order")
    elif before.grid.crs is None:  # of pictures, names are made up
        others = chosen
    else:
        others = same_bands(before, after, chosen)
    encoding = _encoding(before, chosen, after, others, values)
    own = [before.bands[number - 1] for number in chosen]
    label_paths = [files.label] if files.label is not None else [files.label_before, files.label_after]
    labels: list[LabelReader] = []
    notes = [f"{mosaic.label}: {doubt}" for mosaic in (before, after) for doubt in mosaic.doubts]
    polygons = None
    for path in label_paths:
        assert path is not None
        if is_drawn(path):
            if files.label is None:
                raise InputError(f"scene {files.name}: the masks of two dates are rasters, not polygons ({path})")
            if grid.crs is None:
                raise InputError(f"{path} has polygons, but {before.label} has no georeferencing to draw them on")
            read_polygons(path)
            polygons = DrawnPolygons(path=path, grid=grid)
            continue
        raster = open_label(path)
        reader, note = label_reader(raster, grid, images=before.grid, images_path=before.label)
        labels.append(reader)
        notes += [*raster.notes, *([note] if note else [])]
    return Scene(
        files=files,
        before=GridReader(mosaic=before, grid=grid, bands=chosen, encoding=encoding),
        after=GridReader(mosaic=after, grid=grid, bands=others, encoding=encoding),
        labels=tuple(labels),
        polygons=polygons,
        grid=grid,
        bands=tuple(before.bands[number - 1].name for number in chosen),
        dtype=encoding.dtype,
        scale_and_offset=scales_and_offsets(own) if any_declared(own) else None,
        notes=tuple(notes),
    )


def _encoding(
    before: Mosaic, chosen: Sequence[int], after: Mosaic, others: Sequence[int], values: Values | None
) -> Encoding:
    """One type, scale and offset for both dates; raises InputError where their types say other things."""
    dtypes = [before.dtype, after.dtype]
    if len(set(dtypes)) > 1:
        raise InputError(
            f"{before.label} has type {before.dtype}, {after.label} has {after.dtype}: the two dates must be alike"
        )
    if values == "quantised":
        require_quantised((before, after))
        return Encoding(dtype="float32", quantised=True)
    scale, _ = common_scale(
        [each for mosaic, numbers in ((before, chosen), (after, others)) for each in scales_of(mosaic, numbers)],
        values,
    )
    return Encoding(dtype=working_type(dtypes), bands=scale)


def open_image(spec: str | Sequence[str], said: Overrides = NOTHING_SAID) -> Mosaic:
    """A mosaic, or a picture without georeferencing: its grid has no CRS then, and pixels as coordinates.

    Raises:
        InputError: missing, empty, unreadable, or of a type that is no image's.
    """
    if not isinstance(spec, str) or "://" in spec or not Path(spec).is_file():
        return open_mosaic(spec, said)
    if not Path(spec).stat().st_size:
        raise InputError(f"{spec} is empty (0 bytes)")
    if Path(spec).suffix.lower() == ".vrt":
        return open_mosaic(spec, said)
    with open_with_allowed_driver(spec, (*PICTURES, *(d for d in DRIVERS if d not in PICTURES))) as dataset:
        if dataset.crs is not None and not dataset.transform.is_identity:
            return open_mosaic(spec, said)
        return picture(open_picture(dataset, spec, said))


def _as_picture(mosaic: Mosaic) -> Mosaic:
    if len(mosaic.sources) != 1:
        raise InputError(
            f"{mosaic.label} is made of several files and its partner has no georeferencing to match it by"
        )
    # the same pixels said to lie on a grid of pixels
    grid = GeoBox(mosaic.grid.shape, Affine.identity(), None)
    return replace(mosaic, sources=(replace(mosaic.sources[0], grid=grid),), grid=grid)


def _require_size(mosaic: Mosaic, reference: Mosaic) -> None:
    if mosaic.grid.shape != reference.grid.shape:
        (height, width), (h, w) = mosaic.grid.shape, reference.grid.shape
        raise InputError(
            f"{mosaic.label} has {width} × {height} px, {reference.label} has {w} × {h} px: sizes must agree"
        )


def quiet_pictures() -> None:
    """No word of GDAL's on every picture that has no georeferencing, in this process."""
    rasterio.logging.getLogger("rasterio._env").setLevel("ERROR")
