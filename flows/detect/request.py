"""What a user may ask of a change run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from flows.inference.request import ComputationRequest, DatePatternText, InferenceRequest
from flows.run.fields import POSITIONAL, Cli, MosaicSpec, Output, at_commas, option_name
from storage.imagery.dates.acquisition import is_future, naive_utc


class PairRequest(ComputationRequest):
    """Change between two mosaics, by whatever model."""

    before: Annotated[
        MosaicSpec, POSITIONAL, Field(description="Mosaic of the first date: file, URL, folder, glob, list or Zarr.")
    ]
    after: Annotated[MosaicSpec, POSITIONAL, Field(description="Mosaic of the second date.")]
    before_bands: Annotated[
        list[int] | None,
        Cli(section="Bands and grid of the result", metavar="N,N,…"),
        Field(description="As --bands, of the first mosaic alone, where the two have their bands in another order."),
        at_commas(int),
    ] = None
    after_bands: Annotated[
        list[int] | None,
        Cli(section="Bands and grid of the result", metavar="N,N,…"),
        Field(description="As --bands, of the second mosaic alone."),
        at_commas(int),
    ] = None
    before_date: Annotated[
        datetime | None, Field(description="Date of the first mosaic (ISO 8601); default: from the file.")
    ] = None
    after_date: Annotated[
        datetime | None, Field(description="Date of the second mosaic (ISO 8601); default: from the file.")
    ] = None
    date_pattern: DatePatternText = None

    @field_validator("before_date", "after_date")
    @classmethod
    def _is_past(cls, date: datetime | None, info: ValidationInfo) -> datetime | None:
        if date is not None and is_future(naive_utc(date)):
            raise ValueError(f"{option_name(info.field_name or '')} {date:%Y-%m-%d} lies in the future")
        return date

    @property
    def bands_of_each(self) -> tuple[list[int] | None, list[int] | None]:
        """Numbers of the bands that the user names, of the first and of the second mosaic."""
        return self.before_bands or self.bands, self.after_bands or self.bands


class DetectRequest(PairRequest, InferenceRequest):
    """One change run: two mosaics in, one calibrated change-probability mosaic with its products out."""

    output: Annotated[
        Output,
        Field(description="Run directory, local or s3://…: new, empty, or of the same run, which then goes on."),
    ]
    threshold: Annotated[
        Literal["otsu", "chi2"] | None,
        Field(
            description="Threshold of a method without training: `otsu`, or `chi2` (irmad, sfa, isfa: what one in a "
            "hundred unchanged pixels exceeds); default: the method's usual one."
        ),
    ] = None
