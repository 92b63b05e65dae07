"""What a user may ask of a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.inference.request import Precision
from flows.run.fields import DIRECTORY, POSITIONAL, Frozen
from tiling.conventions import Split


class CalibrateRequest(Frozen):
    """A bundle and labelled samples in, the same bundle with calibration and threshold of these samples out."""

    bundle: Annotated[
        str,
        POSITIONAL,
        Field(
            description="Name of a shipped bundle, or a path; embedding-cosine or embedding-l2 where the dataset is "
            "made of embeddings."
        ),
    ]
    dataset: Annotated[Path, DIRECTORY, Field(description="Dataset directory.")]
    output: Annotated[
        Path,
        Field(description="The bundle to write (.safetensors); beside it NAME.calibration/ with report and ledger."),
    ]
    split: Annotated[
        Split, Field(description="Which samples; those that scores are told of later are better left alone.")
    ] = "val"
    overlap: Annotated[
        int | None,
        Field(
            ge=0,
            description="Pixels that neighbouring windows share where a run asks for no others; default: as with the "
            "bundle so far, which is a quarter of the window at first.",
        ),
    ] = None
    precision: Precision = "float32"
    cluster: AnyCluster = ClusterConfig()

    @model_validator(mode="after")
    def _another_file(self) -> CalibrateRequest:
        if self.output.suffix != ".safetensors":
            raise ValueError(f"--output {self.output} is a bundle to write: its name ends with .safetensors")
        if self.output.resolve() == Path(self.bundle).resolve():
            raise ValueError(f"--output {self.output} is the bundle that is calibrated: give another name")
        return self

    @property
    def directory(self) -> Path:
        """Where report and ledger lie."""
        return self.output.with_suffix(".calibration")
