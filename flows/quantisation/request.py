"""What a user may ask of a quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from flows.cluster.config import AnyCluster, ClusterConfig
from flows.run.fields import DIRECTORY, POSITIONAL, Frozen


class QuantiseRequest(Frozen):
    """A bundle and a dataset in, the same bundle with a graph of integers for CPUs out."""

    bundle: Annotated[str, POSITIONAL, Field(description="Name of a shipped bundle, or a path.")]
    dataset: Annotated[
        Path,
        DIRECTORY,
        Field(
            description="Dataset directory: ranges are taken from its training split, and validation and test are "
            "scored in float32 and in int8."
        ),
    ]
    output: Annotated[
        Path,
        Field(description="The bundle to write (.safetensors); beside it NAME.quantisation/ with report and ledger."),
    ]
    samples: Annotated[
        int, Field(ge=1, description="Training samples from whose two dates ranges are taken, spread over the split.")
    ] = 128
    cluster: AnyCluster = ClusterConfig()

    @model_validator(mode="after")
    def _another_file(self) -> QuantiseRequest:
        if self.output.suffix != ".safetensors":
            raise ValueError(f"--output {self.output} is a bundle to write: its name ends with .safetensors")
        if self.output.resolve() == Path(self.bundle).resolve():
            raise ValueError(f"--output {self.output} is the bundle that is quantised: give another name")
        if self.cluster.kind == "cuda":
            raise ValueError("a quantised graph is computed on CPUs: --cluster local, or the address of a scheduler")
        return self

    @property
    def directory(self) -> Path:
        """Where report and ledger lie."""
        return self.output.with_suffix(".quantisation")
