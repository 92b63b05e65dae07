"""How change is computed, whatever it is computed from: what a user may ask."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.run.fields import Cli, Frozen, at_commas
from storage.imagery.dates.patterns import DatePattern
from storage.imagery.description import Overrides
from tiling.conventions import Values

_GRID = Cli(section="Bands and grid of the result")
_INPUTS = Cli(section="What imagery is, where its files do not say it")
_HOW = Cli(section="How it is computed")


class GridRequest(Frozen):
    """The grid of the result; fields left out follow the first mosaic."""

    crs: Annotated[str | None, Field(description="Coordinate reference system, for example `EPSG:25832`.")] = None
    resolution: Annotated[float | None, Field(gt=0, description="Pixel size in units of the CRS.")] = None
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        Cli(metavar="LEFT,BOTTOM,RIGHT,TOP"),
        Field(description="Extent in units of the CRS (the first mosaic's, if none is given)."),
        at_commas(float, count=4),
    ] = None
    region: Annotated[
        Path | None,
        Cli(metavar="FILE"),
        Field(description="GeoJSON file (EPSG:4326); pixels outside its polygons become nodata."),
    ] = None

    @field_validator("bbox")
    @classmethod
    def _ordered(cls, bbox: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if bbox is None:
            return bbox
        if not all(map(isfinite, bbox)):
            raise ValueError(f"bbox {bbox} must be four finite numbers")
        if 180 < bbox[0] - bbox[2] <= 360 and max(map(abs, bbox)) <= 180:  # across 180°, as RFC 7946 writes it
            bbox = (bbox[0], bbox[1], bbox[2] + 360, bbox[3])
        if bbox[0] >= bbox[2] or bbox[1] >= bbox[3]:
            raise ValueError(f"bbox {bbox} must be left, bottom, right, top with left < right and bottom < top")
        return bbox

    @model_validator(mode="after")
    def _one_extent(self) -> GridRequest:
        if self.bbox is not None and self.region is not None:
            raise ValueError("give a bounding box or a region, not both")
        return self


Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    _HOW,
    Field(
        description="Arithmetic of the network; int8: on CPUs, of a bundle that `dasnet quantise` made; auto: int8 "
        "where such a bundle was fastest in it, else bfloat16 where the device has it natively."
    ),
]


def _usable(text: str | None) -> str | None:
    return None if text is None else DatePattern(text).text


DatePatternText = Annotated[
    str | None,
    AfterValidator(_usable),
    Cli(metavar="PATTERN"),
    Field(
        description="Where the date stands in the names of the files, for example `%Y%j` or `*_%d%m%Y_*` (%Y %y %m %d "
        "%j %b %H %M %S, * and ? for anything); default: it is looked for."
    ),
]


class ModelRequest(Frozen):
    """By which model change is computed; a class of its own, so that a form shows this field first."""

    bundle: Annotated[
        str,
        Field(
            description="Model: the name of a shipped bundle or a path; to detect also a method without training: cva, "
            "pca-kmeans, irmad, sfa, isfa; of mosaics that are embeddings embedding-cosine, embedding-l2."
        ),
    ] = "synthetic"


class ComputationRequest(Frozen):
    """How change is computed between mosaics, by whatever model."""

    bands: Annotated[
        list[int] | None,
        _GRID,
        Cli(metavar="N,N,…"),
        Field(
            description="Band numbers (from 1) that the bundle's bands are, in its order, for example 4,1,2; default: "
            "by name. For a method without training: the bands to compare; default: all that both dates have."
        ),
        at_commas(int),
    ] = None
    nodata: Annotated[
        float | None,
        _INPUTS,
        Field(description="Stored value that is no data, in the place of what the files say, for example 0."),
    ] = None
    alpha: Annotated[
        int | None,
        _INPUTS,
        Field(ge=0, description="Number of the band that is a mask (0 where nothing is valid); 0: no band is one."),
    ] = None
    values: Annotated[
        Values | None,
        _INPUTS,
        Field(
            description="`stored`: numbers as they stand, whatever scale and offset the files declare; `physical`: as "
            "they declare; `quantised`: int8 as AlphaEarth's embeddings have it, sign(v) · (v / 127.5)²; default: "
            "stored where all dates declare the same, else as those of the first date; embeddings: as their files tell."
        ),
    ] = None
    stretch: Annotated[
        tuple[float, float] | None,
        _INPUTS,
        Cli(metavar="LOW,HIGH"),
        Field(
            description="These stored values become the ends of the bundle's type (0 and 255 of uint8), and what lies "
            "beyond is cut off: for imagery of more bits than the bundle was trained on."
        ),
        at_commas(float, count=2),
    ] = None
    grid: Annotated[GridRequest, _GRID] = GridRequest()
    resampling: Annotated[
        Literal["nearest", "bilinear", "cubic", "average"],
        _GRID,
        Field(description="How a mosaic whose grid differs is brought onto the grid."),
    ] = "bilinear"
    block: Annotated[
        int, _HOW, Field(ge=64, le=32768, multiple_of=64, description="Side of a block in pixels: one task, one shard.")
    ] = 2048
    window: Annotated[
        int | None,
        _HOW,
        Field(
            ge=32,
            le=4096,
            multiple_of=8,
            description="Side of what the network sees, in pixels; default: the bundle's.",
        ),
    ] = None
    overlap: Annotated[
        int | None,
        _HOW,
        Field(ge=0, description="Pixels that neighbouring windows share; default: a quarter of the window."),
    ] = None
    compile: Annotated[bool, _HOW, Field(description="torch.compile the network: pays in long runs on a GPU.")] = False
    batch: Annotated[
        int | None, _HOW, Field(ge=1, description="Windows in one forward pass on a GPU; default: 16.")
    ] = None
    min_area: Annotated[float, _HOW, Field(ge=0, description="Smallest change polygon, in square metres.")] = 0.0
    retries: Annotated[int, _HOW, Field(ge=0, le=10, description="Further attempts at a block that failed.")] = 2
    retry_failed: Annotated[bool, _HOW, Field(description="Take up the blocks that an earlier run quarantined.")] = (
        False
    )

    @property
    def said(self) -> Overrides:
        """What the user says of the imagery."""
        return Overrides(nodata=self.nodata, alpha=self.alpha)

    @field_validator("stretch")
    @classmethod
    def _a_range(cls, stretch: tuple[float, float] | None) -> tuple[float, float] | None:
        if stretch is not None and not (isfinite(stretch[0]) and isfinite(stretch[1]) and stretch[0] < stretch[1]):
            raise ValueError(f"stretch {stretch[0]:g},{stretch[1]:g} must be a lower and a higher value")
        return stretch

    @model_validator(mode="after")
    def _overlap_fits(self) -> ComputationRequest:
        if self.window is not None and self.overlap is not None and self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} px must be less than the window, {self.window} px")
        return self


class InferenceRequest(ComputationRequest, ModelRequest):
    """How change is computed, by which model, and where."""

    precision: Precision = "auto"
    cluster: AnyCluster = ClusterConfig()
