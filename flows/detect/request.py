"""What a user may ask of a change run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from flows.inference.request import InferenceRequest
from flows.run.fields import MosaicSpec, Output


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
