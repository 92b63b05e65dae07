"""How change is computed, whatever it is computed from: what a user may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.run.fields import Cli, Frozen, at_commas

_GRID = Cli(section="Bands and grid of the result")
_HOW = Cli(section="How it is computed")


class GridRequest(Frozen):
    """The grid of the result; fields left out follow the first mosaic."""

    crs: Annotated[str | None, Field(description="Coordinate reference system, for example `EPSG:25832`.")] = None
    resolution: Annotated[float | None, Field(gt=0, description="Pixel size in units of the CRS.")] = None
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        Cli(metavar="LEFT,BOTTOM,RIGHT,TOP"),
        Field(description="Extent in units of the CRS (the first mosaic's, if none is given)."),
        at_commas(float),
    ] = None
    region: Annotated[
        Path | None,
        Cli(metavar="FILE"),
        Field(description="GeoJSON file (EPSG:4326); pixels outside its polygons become nodata."),
    ] = None

    @field_validator("bbox")
    @classmethod
    def _ordered(cls, bbox: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if bbox is not None and (bbox[0] >= bbox[2] or bbox[1] >= bbox[3]):
            raise ValueError(f"bbox {bbox} must be left, bottom, right, top with left < right and bottom < top")
        return bbox

    @model_validator(mode="after")
    def _one_extent(self) -> GridRequest:
        if self.bbox is not None and self.region is not None:
            raise ValueError("give a bounding box or a region, not both")
        return self


Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    _HOW,
    Field(description="Arithmetic of the network; auto: bfloat16 where the device has it natively."),
]


class ModelRequest(Frozen):
    """By which model change is computed; a class of its own, so that a form shows this field first."""

    bundle: Annotated[
        str,
        Field(
            description="Model: the name of a shipped bundle or a path; to detect also a method without training: cva, "
            "pca-kmeans, irmad, sfa, isfa."
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

    @model_validator(mode="after")
    def _overlap_fits(self) -> ComputationRequest:
        if self.window is not None and self.overlap is not None and self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} px must be less than the window, {self.window} px")
        return self


class InferenceRequest(ComputationRequest, ModelRequest):
    """How change is computed, by which model, and where."""

    precision: Precision = "auto"
    cluster: AnyCluster = ClusterConfig()
