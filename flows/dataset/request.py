"""What a user asks of the dataset flows, checked alike for the command line and the Prefect form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.run.fields import POSITIONAL, Cli, Frozen, LocalDirectory, MosaicSpec, PixelValues, at_commas
from storage.datasets.label_options import LabelOptions
from storage.imagery.description import Overrides
from tiling.conventions import Values

_MOSAICS = Cli(section="One pair of mosaics")
_LABELS = Cli(section="What labels mean", metavar="V,V,…")
_SAMPLES = Cli(section="Samples and splits")
_IMAGERY = Cli(section="What imagery is, where its files do not say it")
_RUN = Cli(section="How it is computed")


class PrepareRequest(Frozen):
    """Labelled imagery in, one dataset store out."""

    source: Annotated[
        Path | None,
        POSITIONAL,
        Field(
            description="Folder of a dataset (train/val/test with A, B, label; A/B/label with list/*.txt; OSCD) or a "
            ".csv table of scenes; none for one pair of mosaics, given below."
        ),
    ] = None
    before: Annotated[MosaicSpec | None, _MOSAICS, Field(description="Mosaic of the first date.")] = None
    after: Annotated[MosaicSpec | None, _MOSAICS, Field(description="Mosaic of the second date.")] = None
    label: Annotated[Path | None, _MOSAICS, Field(description="What changed: a raster or polygons.")] = None
    label_before: Annotated[Path | None, _MOSAICS, Field(description="Or a mask of the first date …")] = None
    label_after: Annotated[
        Path | None, _MOSAICS, Field(description="… and one of the second: changed is what differs.")
    ] = None
    changed: Annotated[
        PixelValues,
        _LABELS,
        Field(description="Values of label rasters that mean changed; default: told from the values."),
    ] = None
    unchanged: Annotated[PixelValues, _LABELS, Field(description="Values that mean unchanged.")] = None
    ignored: Annotated[PixelValues, _LABELS, Field(description="Values that mean: not known.")] = None
    output: Annotated[
        LocalDirectory, Field(description="Dataset directory: new, or of the same dataset, which then goes on.")
    ]
    window: Annotated[
        int, _SAMPLES, Field(ge=32, le=2048, multiple_of=8, description="Side of a sample, in pixels.")
    ] = 256
    stride: Annotated[
        int | None,
        _SAMPLES,
        Field(
            ge=8,
            description="Pixels from one training window to the next; default: they do not overlap. Those of "
            "validation and test never do: a pixel counts once.",
        ),
    ] = None
    bands: Annotated[
        list[int] | None,
        Cli(metavar="N,N,…"),
        Field(description="Band numbers (from 1) to keep, for example 1,2,3; default: all."),
        at_commas(int),
    ] = None
    nodata: Annotated[
        float | None, _IMAGERY, Field(description="Stored value that is no data, in the place of what the files say.")
    ] = None
    alpha: Annotated[
        int | None,
        _IMAGERY,
        Field(ge=0, description="Number of the band that is a mask (0 where nothing is valid); 0: no band is one."),
    ] = None
    values: Annotated[
        Values | None,
        _IMAGERY,
        Field(
            description="`stored`: numbers as they stand, whatever scale and offset the files declare; `physical`: as "
            "they declare; `quantised`: int8 as AlphaEarth's embeddings have it, sign(v) · (v / 127.5)²; default: "
            "stored where both dates declare the same, else as those of the first."
        ),
    ] = None
    band_names: Annotated[
        list[str] | None,
        Cli(metavar="NAME,NAME,…"),
        Field(description="Names of the bands kept, for example red,green,blue; default: the files'."),
        at_commas(),
    ] = None
    resolution: Annotated[
        float | None, Field(gt=0, description="Ground size of a pixel in metres, where the files do not tell.")
    ] = None
    grid_resolution: Annotated[
        float | None,
        Field(gt=0, description="Resample mosaics to this pixel size (units of their CRS); default: the first date's."),
    ] = None
    split: Annotated[
        str,
        _SAMPLES,
        Cli(metavar="RULE"),
        Field(
            description="`published`; `blocks`: cells of several windows, dealt out at random; `pictures`: whole "
            "scenes, dealt out at random; `columns:0.6,0.7`: three strips from left to right; `auto`: published where "
            "it is, else pictures, or blocks where scenes are large or few.",
            pattern=r"^(auto|published|blocks|pictures|columns:0?\.\d+,0?\.\d+)$",
        ),
    ] = "auto"
    shares: Annotated[
        tuple[float, float, float],
        _SAMPLES,
        Cli(metavar="TRAIN,VAL,TEST"),
        Field(description="Shares of the splits, in any unit, where they are dealt out."),
        at_commas(float, count=3),
    ] = (8.0, 1.0, 1.0)
    cell: Annotated[int, _SAMPLES, Field(ge=1, description="Side of a cell of the split `blocks`, in windows.")] = 4
    seed: Annotated[int, _SAMPLES, Field(ge=0, description="Seed of the split: another one, another split.")] = 0
    max_nodata: Annotated[
        float, _SAMPLES, Field(ge=0, lt=1, description="Samples with a larger share of unknown pixels are left out.")
    ] = 0.5
    shard: Annotated[int, _RUN, Field(ge=1, le=4096, description="Samples in one shard: one task, one file.")] = 64
    retries: Annotated[int, _RUN, Field(ge=0, le=10, description="Further attempts at a shard that failed.")] = 2
    retry_failed: Annotated[bool, _RUN, Field(description="Take up the shards that an earlier run quarantined.")] = (
        False
    )
    cluster: AnyCluster = ClusterConfig()

    @field_validator("shares")
    @classmethod
    def _shares(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or shares[0] <= 0:
            raise ValueError(f"shares {shares} must not be negative, and training needs one")
        return shares

    @model_validator(mode="after")
    def _one_source(self) -> PrepareRequest:
        mosaics = [name for name in ("before", "after") if getattr(self, name) is not None]
        labels = [name for name in ("label", "label_before", "label_after") if getattr(self, name) is not None]
        if self.source is not None and (mosaics or labels):
            raise ValueError(f"give a folder or table ({self.source}), or a pair of mosaics, not both")
        if self.source is None and (len(mosaics) < 2 or not labels):
            raise ValueError("a pair of mosaics needs before, after, and label (or label_before and label_after)")
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} px leaves gaps between windows of {self.window} px")
        return self

    @model_validator(mode="after")
    def _values_apart(self) -> PrepareRequest:
        self.label_options  # noqa: B018  values that two options name are refused
        return self

    @property
    def said(self) -> Overrides:
        """What the user says of the imagery."""
        return Overrides(nodata=self.nodata, alpha=self.alpha)

    @property
    def label_options(self) -> LabelOptions:
        """What the user says about the values of labels."""
        return LabelOptions.of(changed=self.changed, unchanged=self.unchanged, ignored=self.ignored)

    @property
    def columns(self) -> tuple[float, float] | None:
        """The two shares of the split `columns`."""
        shares = re.fullmatch(r"columns:([\d.]+),([\d.]+)", self.split)
        return (float(shares[1]), float(shares[2])) if shares else None


class WeightsRequest(Frozen):
    """Class frequencies and weights of a dataset."""

    dataset: Annotated[Path, POSITIONAL, Field(description="Dataset directory, of `dasnet prepare`.")]
    cluster: AnyCluster = ClusterConfig()
