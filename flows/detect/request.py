"""What a user may ask of a change run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flows.detect.first_pass_rule import FirstPassRule
from flows.inference.request import ComputationRequest, DatePatternText, InferenceRequest
from flows.run.fields import POSITIONAL, Cli, MosaicSpec, Output, at_commas, option_name
from storage.imagery.dates.acquisition import is_future, naive_utc

_FIRST = Cli(section="How it is computed")


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
    first_pass: Annotated[
        str | None,
        _FIRST,
        Cli(metavar="METHOD[:SHARE%|:LEVEL]"),
        Field(
            description="A cheap look at all cells of 128 px, by which the network computes only some: cva, irmad, sfa "
            "or isfa of the pair at a coarser resolution, or embedding-cosine, embedding-l2 of mosaics of embeddings. "
            "`cva:30%`: the cells that differ most; `embedding-cosine:0.15`: those that reach a level; default: 50 %. "
            "What no window of theirs covers is stored as passed over (level 0); it costs recall."
        ),
    ] = None
    first_pass_before: Annotated[
        MosaicSpec | None,
        _FIRST,
        Field(description="Embeddings of the first date, for a first pass by their distance."),
    ] = None
    first_pass_after: Annotated[MosaicSpec | None, _FIRST, Field(description="Embeddings of the second date.")] = None

    @property
    def first_pass_rule(self) -> FirstPassRule | None:
        """What is said of a first pass."""
        return None if self.first_pass is None else FirstPassRule.of(self.first_pass)

    @model_validator(mode="after")
    def _first_pass_has_what_it_looks_at(self) -> DetectRequest:
        rule, mosaics = self.first_pass_rule, (self.first_pass_before, self.first_pass_after)
        if rule is not None and rule.takes_mosaics and None in mosaics:
            raise ValueError(
                f"--first-pass {self.first_pass} compares embeddings: give them with --first-pass-before and "
                "--first-pass-after"
            )
        if (rule is None or not rule.takes_mosaics) and mosaics != (None, None):
            what = "no --first-pass is asked for" if rule is None else f"{rule.method} looks at the pair itself"
            raise ValueError(f"--first-pass-before and --first-pass-after are embeddings, but {what}")
        return self
