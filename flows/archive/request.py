"""What a user asks of an archive: which dates, which pairs, which grid, and how large a piece is a run of its own."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from flows.inference.request import DatePatternText, InferenceRequest
from flows.run.fields import Address, Cli, LocalDirectory
from tiling.pairing import require_rule

ArchiveSpec = Address | list[Address]
"""A STAC catalogue or item collection (.json), a table (.csv), a folder or pattern of rasters, or a list of rasters,
each local or ``s3://…``."""


class ReprocessRequest(InferenceRequest):
    """Every pair of dates of an archive, and only what is new since the last time."""

    archive: Annotated[
        ArchiveSpec,
        Cli(is_positional=True, is_repeatable=True),
        Field(
            description="STAC catalogue or item collection (.json, file or URL), table (.csv: date, path), folder, "
            "pattern or list of rasters; each local or s3://…."
        ),
    ]
    output: Annotated[
        LocalDirectory,
        Field(description="Archive directory: new, empty, or of the same archive, which then goes on."),
    ]
    asset: Annotated[
        str | None,
        Field(
            description="Key of the STAC asset with the imagery, or keys of those with its bands (`red,green,blue`); "
            "default: the only raster asset."
        ),
    ] = None
    start: Annotated[date | None, Field(description="First day wanted; default: the archive's first.")] = None
    end: Annotated[date | None, Field(description="Last day wanted; default: the archive's last.")] = None
    date_pattern: DatePatternText = None
    pairing: Annotated[
        str,
        Cli(metavar="RULE"),
        Field(
            description="Which dates are compared: `consecutive`, `baseline:YYYY-MM-DD`, or `same-season` (the nearest "
            "day of the year among the years before)."
        ),
    ] = "consecutive"
    cell: Annotated[
        int,
        Cli(section="How it is computed"),
        Field(ge=64, description="Side in pixels of a part of the region that is a run of its own; whole blocks."),
    ] = 102_400

    @field_validator("pairing")
    @classmethod
    def _is_a_rule(cls, rule: str) -> str:
        require_rule(rule)
        return rule

    @model_validator(mode="after")
    def _days_in_order(self) -> ReprocessRequest:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError(f"the first day wanted, {self.start}, is after the last one, {self.end}")
        return self
