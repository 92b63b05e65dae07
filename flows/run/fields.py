"""What a user asks for: pydantic models, so that the command line and the Prefect form check the same values."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from storage.places.bucket import ObjectPath, refuse_credentials

Address = Annotated[str, AfterValidator(refuse_credentials)]
"""Of a mosaic; without a password or a signature in it."""

MosaicSpec = Address | list[Address]
"""A raster file or URL, a folder of rasters, a glob, a ``.txt`` list of files, a Zarr group, or a list of files."""

Output = Annotated[
    ObjectPath | Path,
    Field(union_mode="left_to_right"),
    BeforeValidator(lambda given: refuse_credentials(given) if isinstance(given, str) else given),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A local directory, or ``s3://bucket/prefix``."""


def _local(path: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise ValueError(f"{path} is an address; a local directory is wanted (only `dasnet detect` writes to a bucket)")
    return path


LocalDirectory = Annotated[Path, AfterValidator(_local)]
"""A directory on this machine, or on a disk that all workers share."""


def _required_first(schema: dict[str, Any]) -> None:
    """The Prefect form shows fields in the schema's order: what must be given comes first."""
    properties = schema.get("properties", {})
    order = sorted(properties, key=lambda name: name not in schema.get("required", []))
    schema["properties"] = {name: properties[name] for name in order}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_required_first)


class ClusterConfig(Frozen):
    """Where the blocks are computed."""

    kind: Annotated[
        str,
        Field(
            title="Cluster",
            description="`local`: CPU processes on this machine. `cuda`: one worker a GPU of this machine (dask-cuda). "
            "`tls://host:port`, or in a closed network `tcp://` or `ucx://`: a scheduler that is already running. "
            "`/shared/scheduler.json`: the same, by the file in which the scheduler left its address.",
            pattern=r"^(local|cuda|(tcp|tls|ucx)://\S+|.*\.json)$",
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Worker processes; empty: one a core up to four cores, then one for four cores. "
            "Of a running scheduler: how many to wait for before the first block; all it has are used.",
        ),
    ] = None
    lanes: Annotated[
        int | None,
        Field(
            ge=1,
            description="Blocks that compute at the same time in one worker; empty: the worker's share of the cores, "
            "or one on a GPU.",
        ),
    ] = None
    in_flight: Annotated[int, Field(ge=1, description="Blocks submitted at a time, for each worker's lane.")] = 3
    certificates: Annotated[
        Path | None,
        Field(description="For `tls://`: folder with `ca.pem`, `client.pem`, `client-key.pem`, of `dasnet certs`."),
    ] = None
    memory_limit: Annotated[
        str | None,
        Field(
            description="Memory of one worker that is started here, for example `8GB`: Dask restarts a worker that "
            "comes near it. Empty: its share of the machine.",
        ),
    ] = None
    worker_hours: Annotated[
        float,
        Field(
            gt=0,
            description="Hours after which a worker that is started here is replaced by a fresh one, give or take a "
            "tenth, whatever it has leaked by then; its blocks in flight are computed again.",
        ),
    ] = 6.0
    protocol: Annotated[
        Literal["tcp", "ucx"], Field(description="Between `cuda` workers; `ucx` needs distributed-ucxx.")
    ] = "tcp"
    rmm_pool: Annotated[
        str | None,
        Field(
            description="With `cuda`: device memory that RMM takes at once and torch is made to use, for example "
            "`20GB`; needs rmm. Empty: torch's own allocator.",
        ),
    ] = None

    @field_validator("memory_limit", "rmm_pool")
    @classmethod
    def _bytes(cls, text: str | None) -> str | None:
        if text is not None and parse_bytes(text) <= 0:
            raise ValueError(f"{text!r} is no size in bytes, as for example 8GB or 512MiB")
        return text

    @model_validator(mode="after")
    def _nothing_that_would_be_ignored(self) -> ClusterConfig:
        """A setting of something that is not started here would look as if it did something."""
        reasons = {
            "certificates": (not self.is_running and "its workers are on this machine, on loopback")
            or (self.kind.startswith(("tcp://", "ucx://")) and "that connection is open to read; use tls://host:port"),
            "memory_limit": self.is_running and "the workers of a running scheduler have their own",
            "worker_hours": self.is_running and "the workers of a running scheduler have their own",
            "protocol": self.kind != "cuda" and "only `cuda` workers can be told",
            "rmm_pool": self.kind != "cuda" and "only `cuda` workers can be told",
        }
        for name, reason in reasons.items():
            if reason and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect on cluster {self.kind}: {reason}")
        return self

    @property
    def is_running(self) -> bool:
        """Whether somebody else started the cluster."""
        return self.kind not in ("local", "cuda")


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


class DetectRequest(InferenceRequest):
    """One change run: two mosaics in, one calibrated change-probability mosaic with its products out."""

    before: Annotated[MosaicSpec, Field(description="Mosaic of the first date: file, URL, folder, glob, list or Zarr.")]
    after: Annotated[MosaicSpec, Field(description="Mosaic of the second date.")]
    threshold: Annotated[
        Literal["otsu", "chi2"] | None,
        Field(
            description="Of a method without training: `otsu`, or `chi2` (irmad, sfa, isfa: what one in a hundred "
            "unchanged pixels exceeds); empty: the method's usual one."
        ),
    ] = None
    output: Annotated[
        Output,
        Field(description="Run directory, local or s3://…: new, empty, or of the same run, which then goes on."),
    ]
    before_date: Annotated[datetime | None, Field(description="Date of the first mosaic; empty: from the file.")] = None
    after_date: Annotated[datetime | None, Field(description="Date of the second mosaic; empty: from the file.")] = None
