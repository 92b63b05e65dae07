"""A date's imagery in words and as JSON: all that its headers say, and what had to be guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import ProjError

from storage.geometry import grid_facts, metres_a_pixel
from storage.imagery.dates.acquisition import AcquisitionDate
from storage.imagery.description import Band, band_words, encoding_words, plain
from storage.imagery.mosaics import Mosaic
from storage.imagery.rasters import GridReader
from storage.imagery.sources import Source
from storage.imagery.values import any_declared
from storage.reference_systems import crs_name

_BANDS_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """What a date is, as it is read.

    Attributes:
        label: how a user named it.
        files: rasters that it consists of.
        dtype: type of the stored values.
        bands: what they are, in their order, without a mask.
        validity: the rule by which pixels count, in words.
        grid: pixels, CRS and place; without a CRS for a picture.
        acquired: its date, and how that is known.
        storage: format, compression, tiles, processing, as the first file has them.
        doubts: what was guessed, each with the option that settles it.
    """

    label: str
    files: int
    dtype: str
    bands: tuple[Band, ...]
    validity: str
    grid: GeoBox
    acquired: AcquisitionDate
    storage: Mapping[str, str]
    doubts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        box = self.grid.extent.boundingbox
        time = self.acquired.time
        return dict(
            plain(
                {
                    "kind": "imagery",
                    "label": self.label,
                    "files": self.files,
                    "dtype": self.dtype,
                    "bands": [band.to_dict() for band in self.bands],
                    "validity": self.validity,
                    "grid": grid_facts(self.grid),
                    "bounds": list(box),
                    "bounds_in_degrees": self._degrees(),
                    "metres_a_pixel": metres_a_pixel(self.grid),
                    "date": None if time is None else time.isoformat(),
                    "date_from": self.acquired.origin,
                    "storage": dict(self.storage),
                    "doubts": list(self.doubts),
                }
            )
        )

    def lines(self) -> list[tuple[str, str]]:
        """What and how much, for a person."""
        grid, box = self.grid, self.grid.extent.boundingbox
        shown = band_words(self.bands[:_BANDS_SHOWN]) + (" …" if len(self.bands) > _BANDS_SHOWN else "")
        named_by = ", ".join(dict.fromkeys(band.named_by for band in self.bands))
        scale = f", {encoding_words(self.bands)}" if any_declared(self.bands) else ""
        units = "px" if grid.crs is None else f"px of {abs(grid.resolution.x):.9g} in {crs_name(grid.crs)}"
        degrees = self._degrees()
        if degrees is None:
            place = "nowhere on the Earth"
        else:
            place = "{:.4f}, {:.4f} to {:.4f}, {:.4f} degrees".format(*degrees)
        time = self.acquired.time
        return [
            ("imagery", self.label + (f", {self.files:,} files" if self.files > 1 else "")),
            ("stored as", ", ".join(f"{name} {value}" for name, value in self.storage.items())),
            ("size", f"{grid.width:,} × {grid.height:,} {units} ({metres_a_pixel(grid):.3g} m)"),
            ("extent", f"x {box.left:.9g} to {box.right:.9g}, y {box.bottom:.9g} to {box.top:.9g}; {place}"),
            ("bands", f"{len(self.bands)}: {shown} (by {named_by})"),
            ("values", f"{self.dtype}{scale}"),
            ("valid", self.validity),
            ("date", "not known" if time is None else f"{_date_words(time)} (from the {self.acquired.origin})"),
        ]

    def _degrees(self) -> list[float] | None:
        """West, south, east, north; None where the grid has no place on the Earth."""
        if self.grid.crs is None:
            return None
        box = self.grid.extent.boundingbox
        try:
            transformer = Transformer.from_crs(self.grid.crs.proj, "EPSG:4326", always_xy=True)
            return list(transformer.transform_bounds(*box))
        except ProjError:
            return None


def read_in_words(reader: GridReader) -> str:
    """How a date is read, in one line for a plan: which bands, as what type, which pixels count."""
    mosaic = reader.mosaic
    chosen = tuple(mosaic.bands[number - 1] for number in reader.bands)
    numbers = ", ".join(
        f"{number} {band_words((band,))}" if band.is_named else str(number)
        for number, band in zip(reader.bands, chosen, strict=True)
    )
    values = mosaic.dtype if reader.dtype == mosaic.dtype else f"{mosaic.dtype} → {reader.dtype}"
    return f"bands {numbers}; {values}; valid: {_validity(mosaic)}"


def imagery_of(mosaic: Mosaic) -> Imagery:
    """The description of an opened mosaic."""
    doubt = mosaic.acquired.doubt
    return Imagery(
        label=mosaic.label,
        files=len({file for source in mosaic.sources for file in (source.files[:1] or (source.path,))}),
        dtype=mosaic.dtype,
        bands=mosaic.bands,
        validity=_validity(mosaic),
        grid=mosaic.grid,
        acquired=mosaic.acquired,
        storage=mosaic.facts,
        doubts=(*mosaic.doubts, *((f"{doubt}; --date-pattern settles it",) if doubt else ())),
    )


def _validity(mosaic: Mosaic) -> str:
    """The rule of the first source; of the others it is the same but for their own nodata values."""
    words = _rule(mosaic.sources[0])
    return f"{words}; NaN is no value" if np.dtype(mosaic.dtype).kind == "f" else words


def _rule(source: Source) -> str:
    if source.parts:
        return "in all files of its bands: " + "; ".join(dict.fromkeys(map(_rule, source.parts)))
    return "all pixels" if source.validity is None else source.validity.words


def _date_words(time: datetime) -> str:
    return f"{time:%Y-%m-%d}" if time.time() == datetime.min.time() else f"{time:%Y-%m-%d %H:%M:%S} UTC"
