"""How change is computed, whatever it is computed from: what a user may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flows.cluster.config import ClusterConfig
from flows.run.fields import Frozen


class GridRequest(Frozen):
    """The grid of the result; empty fields follow the first mosaic."""

    crs: Annotated[str | None, Field(description="Coordinate reference system, for example `EPSG:25832`.")] = None
    resolution: Annotated[float | None, Field(gt=0, description="Pixel size in units of the CRS.")] = None
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        Field(description="Left, bottom, right, top in units of the CRS (the first mosaic's, if none is given)."),
    ] = None
    region: Annotated[
        Path | None, Field(description="GeoJSON file (EPSG:4326); pixels outside its polygons become nodata.")
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


class InferenceRequest(Frozen):
    """How change is computed, whatever it is computed from."""

    bundle: Annotated[
        str,
        Field(
            description="Model: the name of a shipped bundle or a path; to detect also a method without training: cva, "
            "pca-kmeans, irmad, sfa, isfa."
        ),
    ] = "synthetic"
    bands: Annotated[
        list[int] | None,
        Field(
            description="Band numbers (from 1) that the bundle's bands are, in its order; empty: by name. For a method "
            "without training: the bands to compare; empty: all that both dates have."
        ),
    ] = None
    grid: GridRequest = GridRequest()
    resampling: Annotated[
        Literal["nearest", "bilinear", "cubic", "average"],
        Field(description="How a mosaic whose grid differs is brought onto the grid."),
    ] = "bilinear"
    block: Annotated[
        int, Field(ge=64, le=32768, multiple_of=64, description="Side of a block in pixels: one task, one shard.")
    ] = 2048
    window: Annotated[
        int | None,
        Field(ge=32, le=4096, multiple_of=8, description="Side of what the network sees, in pixels; empty: bundle's."),
    ] = None
    overlap: Annotated[
        int | None, Field(ge=0, description="Pixels that neighbouring windows share; empty: a quarter of the window.")
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="Arithmetic of the network; auto: bfloat16 where the device has it natively."),
    ] = "auto"
    compile: Annotated[bool, Field(description="torch.compile the network: pays in long runs on a GPU.")] = False
    batch: Annotated[int | None, Field(ge=1, description="Windows in one forward pass on a GPU; empty: 16.")] = None
    min_area: Annotated[float, Field(ge=0, description="Smallest change polygon, in square metres.")] = 0.0
    retries: Annotated[int, Field(ge=0, le=10, description="Further attempts at a block that failed.")] = 2
    retry_failed: Annotated[bool, Field(description="Take up the blocks that an earlier run quarantined.")] = False
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _overlap_fits(self) -> InferenceRequest:
        if self.window is not None and self.overlap is not None and self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} px must be less than the window, {self.window} px")
        return self
