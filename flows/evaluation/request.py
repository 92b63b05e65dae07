"""What a user may ask of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.detect.request import DetectRequest, PairRequest
from flows.inference.request import Precision
from flows.run.fields import DIRECTORY, POSITIONAL, Cli, Frozen, LocalDirectory, PixelValues
from storage.datasets.label_options import LabelOptions
from tiling.conventions import Split

_MOSAIC = Cli(section="A whole mosaic")
_OF_THE_EVALUATION = ("bundle", "output", "precision", "cluster")


class EvaluateRequest(Frozen):
    """A bundle and labelled samples in, scores out; and a labelled mosaic, through the path that detect uses."""

    bundle: Annotated[str, POSITIONAL, Field(description="Name of a shipped bundle, or a path.")]
    output: Annotated[LocalDirectory, Field(description="Directory of the evaluation: new, or of the same one.")]
    dataset: Annotated[Path | None, DIRECTORY, Field(description="Dataset directory.")] = None
    split: Annotated[Split, Field(description="Which samples of the dataset.")] = "test"
    label: Annotated[
        Path | None, _MOSAIC, Field(description="What changed in a whole mosaic: a raster or polygons.")
    ] = None
    mosaic: Annotated[
        PairRequest | None,
        _MOSAIC,
        Field(description="A whole mosaic to detect changes in, with this bundle, precision and cluster."),
    ] = None
    changed: Annotated[
        PixelValues, _MOSAIC, Field(description="Values of the label that mean changed; default: told from the values.")
    ] = None
    unchanged: Annotated[PixelValues, _MOSAIC, Field(description="Values that mean unchanged.")] = None
    ignored: Annotated[PixelValues, _MOSAIC, Field(description="Values that mean: not known.")] = None
    precision: Precision = "float32"
    cluster: AnyCluster = ClusterConfig()

    @field_validator("mosaic", mode="before")
    @classmethod
    def _without_what_is_asked_already(cls, mosaic: Any) -> Any:
        """A mosaic as `detect` takes it also has a bundle, an output and more, which are those of this request."""
        values = mosaic.model_dump(exclude_none=True) if isinstance(mosaic, DetectRequest) else mosaic
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if name not in _OF_THE_EVALUATION}

    @model_validator(mode="after")
    def _something(self) -> EvaluateRequest:
        if self.dataset is None and self.mosaic is None:
            raise ValueError("give a dataset, a mosaic with its label, or both")
        if (self.mosaic is None) != (self.label is None):
            raise ValueError("a mosaic needs a label, and a label its mosaic")
        self.label_options  # noqa: B018  values that two options name are refused
        return self

    @property
    def label_options(self) -> LabelOptions:
        """What the user says about the values of the label."""
        return LabelOptions.of(changed=self.changed, unchanged=self.unchanged, ignored=self.ignored)

    def detection(self, output: Path) -> DetectRequest | None:
        """What `detect` is asked about the mosaic, with its run in `output`; None without a mosaic.

        Precision and bundle are those of the samples, so that what differs is the tiling.
        """
        if self.mosaic is None:
            return None
        return DetectRequest(
            **self.mosaic.model_dump(),
            output=output,
            bundle=self.bundle,
            precision=self.precision,
            cluster=self.cluster,
        )
