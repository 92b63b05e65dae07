"""What a user may ask of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flows.cluster.config import ClusterConfig
from flows.detect.request import DetectRequest
from flows.run.fields import Frozen, LocalDirectory
from tiling.conventions import Split


class EvaluateRequest(Frozen):
    """A bundle and labelled samples in, scores out; and a labelled mosaic, through the path that detect uses."""

    bundle: Annotated[str, Field(description="Name of a shipped bundle, or a path.")]
    output: Annotated[LocalDirectory, Field(description="Directory of the evaluation: new, or of the same one.")]
    dataset: Annotated[Path | None, Field(description="Dataset directory.")] = None
    split: Annotated[Split, Field(description="Which samples.")] = "test"
    mosaic: Annotated[
        DetectRequest | None,
        Field(description="A whole mosaic to detect changes in; its bundle and output are those of this request."),
    ] = None
    label: Annotated[Path | None, Field(description="What changed in that mosaic: a raster or polygons.")] = None
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Field(description="Arithmetic of the network.")] = (
        "float32"
    )
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _something(self) -> EvaluateRequest:
        if self.dataset is None and self.mosaic is None:
            raise ValueError("give a dataset, a mosaic with its label, or both")
        if (self.mosaic is None) != (self.label is None):
            raise ValueError("a mosaic needs a label, and a label its mosaic")
        return self
