"""What a user may ask of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from flows.run.fields import DIRECTORY, POSITIONAL, Cli, Frozen, LocalDirectory, at_commas


class FiguresRequest(Frozen):
    """A trained network and labelled samples in, figures out."""

    source: Annotated[
        str, POSITIONAL, Field(description="Training directory, path of a bundle, or name of a shipped one.")
    ]
    dataset: Annotated[Path, DIRECTORY, Field(description="Dataset directory; its test split is shown.")]
    output: Annotated[LocalDirectory, Field(description="Directory of the figures: new, or of the same ones.")]
    beside: Annotated[
        str | None,
        Field(description="Another training or bundle beside it in the t-SNE, for example one without attention."),
    ] = None
    samples: Annotated[int, Field(ge=1, le=12, description="Test samples with change that are shown.")] = 3
    pixel: Annotated[
        tuple[int, int] | None,
        Cli(metavar="ROW,COLUMN"),
        Field(description="Pixel whose attention is shown; default: in the middle of what changed."),
        at_commas(int),
    ] = None
