"""What a user asks for: pydantic models, so that the command line and the Prefect form check the same values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from storage.places.bucket import ObjectPath
from storage.places.credentials import refuse_credentials

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
