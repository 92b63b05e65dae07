"""`dasnet import-model`: a network that somebody else has trained becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from dasnet.networks.imported.description import EmbeddingDistance, Inputs, Output
from flows.cli.terminal import print_pairs, print_warning
from flows.run.fields import POSITIONAL, Cli, Frozen, at_commas

_BANDS = Cli(section="Bands and values")
_GRAPH = Cli(section="What the graph does not say")

_IMAGENET = {"red": (0.485, 0.229), "green": (0.456, 0.224), "blue": (0.406, 0.225)}
"""Mean and standard deviation of ImageNet's pixels, of values in [0, 1]."""
_WHITE = {"uint8": 255.0, "float32": 1.0}
"""What is white in a picture of a type; of 16 bits nobody knows."""


class ImportModelRequest(Frozen):
    """A graph, what it takes and what it answers, and the bundle to make of it."""

    model: Annotated[
        Path, POSITIONAL, Field(description="A graph of ONNX (.onnx), or a program of torch.export (.pt2).")
    ]
    bundle: Annotated[Path, POSITIONAL, Field(description="The bundle to write (.safetensors).")]
    inputs: Annotated[
        Inputs,
        Field(
            description="What it takes: one input of both dates' bands (B, 2C, H, W), two inputs (B, C, H, W), or one "
            "date, of which it makes an embedding (B, D, h, w)."
        ),
    ]
    output: Annotated[
        Output | None,
        Field(
            description="What it answers for two dates, in one channel, or in two for unchanged and changed; an "
            "embedding has none."
        ),
    ] = None
    distance: Annotated[
        EmbeddingDistance, Field(description="Between two embeddings, each position's brought to length 1.")
    ] = "l2"
    bands: Annotated[
        list[str],
        _BANDS,
        Cli(metavar="NAME,…"),
        at_commas(str),
        Field(description="Names of one date's bands, in the graph's order.", min_length=1),
    ] = ["red", "green", "blue"]  # noqa: RUF012  pydantic copies it
    mean: Annotated[
        list[FiniteFloat] | None,
        _BANDS,
        Cli(metavar="V,…"),
        at_commas(float),
        Field(description="Taken from each band's values, in the mosaic's units: one for all bands, or one each."),
    ] = None
    std: Annotated[
        list[FiniteFloat] | None,
        _BANDS,
        Cli(metavar="V,…"),
        at_commas(float),
        Field(description="By which they are divided then."),
    ] = None
    normalisation: Annotated[
        Literal["imagenet", "none"] | None,
        _BANDS,
        Field(description="In the place of mean and std: ImageNet's for pictures, or values as they stand."),
    ] = None
    dtype: Annotated[
        Literal["uint8", "uint16", "float32"], _BANDS, Field(description="Type of the mosaics that it takes.")
    ] = "uint8"
    resolution: Annotated[
        float | None,
        _BANDS,
        Field(gt=0, allow_inf_nan=False, description="Ground size of a pixel that it was trained on, metres."),
    ] = None
    window: Annotated[
        int | None, Field(ge=32, description="Side of a window, pixels; default: the graph's own, or 256.")
    ] = None
    threshold: Annotated[
        FiniteFloat | None,
        Field(description="On the output itself, of logits on their probability; default: the middle of its range."),
    ] = None
    input_names: Annotated[
        list[str] | None,
        _GRAPH,
        Cli(metavar="NAME,NAME"),
        at_commas(str),
        Field(description="Names of its inputs, the earlier date's first; default: in the graph's order."),
    ] = None
    output_name: Annotated[str | None, _GRAPH, Field(description="Which of several outputs is read.")] = None
    changed_channel: Annotated[
        int, _GRAPH, Field(ge=0, le=1, description="Which of two channels stands for changed.")
    ] = 1
    middle: Annotated[
        float | None,
        _GRAPH,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Of a distance above 2: which one shall lie half-way. d becomes 2d / (d + middle).",
        ),
    ] = None
    offset: Annotated[
        FiniteFloat | None,
        _GRAPH,
        Field(description="Of a coarser output: pixels from the first pixel to its first position."),
    ] = None
    expected: Annotated[
        Path | None,
        Cli(metavar="FILE.npz"),
        Field(
            description="Inputs, and what the network's own code answers to them, by the graph's names: its answers "
            "must be the same."
        ),
    ] = None
    trust: Annotated[
        bool, Field(description="Read a program of torch.export, which can run code that its maker has put into it.")
    ] = False

    @model_validator(mode="after")
    def _together(self) -> ImportModelRequest:
        if self.bundle.suffix != ".safetensors":
            raise ValueError(f"{self.bundle} is the bundle to write: its name ends with .safetensors")
        if self.bundle.resolve() == self.model.resolve():
            raise ValueError(f"{self.bundle} is the graph itself: give the bundle another name")
        if self.inputs == "embed" and self.output is not None:
            raise ValueError(f"--inputs embed has embeddings, compared by --distance; --output {self.output} has none")
        if self.inputs != "embed" and self.output is None:
            raise ValueError(f"--inputs {self.inputs} needs --output: probability, logits or distance")
        if self.inputs != "embed" and "distance" in self.model_fields_set:
            raise ValueError(f"--distance is of embeddings, and --inputs {self.inputs} has none")
        if (self.mean is None) != (self.std is None):
            raise ValueError("--mean and --std go together")
        if (self.mean is None) == (self.normalisation is None):
            raise ValueError("say how values become what the graph takes: --mean and --std, or --normalisation")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, len(self.bands)):
                raise ValueError(f"--{name} has {len(values)} values for {len(self.bands)} bands")
        self.normalised_by  # noqa: B018  a normalisation that does not fit is refused
        return self

    @property
    def normalised_by(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of each band, in the mosaic's units."""
        count = len(self.bands)
        if self.mean is not None and self.std is not None:
            means, stds = (values * count if len(values) == 1 else values for values in (self.mean, self.std))
            return list(zip(means, stds, strict=True))
        if self.normalisation == "none":
            return [(0.0, 1.0)] * count
        if set(self.bands) != set(_IMAGENET) or self.dtype not in _WHITE:
            raise ValueError(
                f"--normalisation imagenet is of red, green and blue in uint8, or in float32 from 0 to 1, not of "
                f"{', '.join(self.bands)} in {self.dtype}: give --mean and --std"
            )
        white = _WHITE[self.dtype]
        return [(mean * white, std * white) for mean, std in map(_IMAGENET.__getitem__, self.bands)]


def import_model(request: ImportModelRequest) -> None:
    """Write the bundle and print what it is."""
    from dasnet.networks.architectures import title_of
    from dasnet.prediction.header import Band
    from dasnet.prediction.importing.description import Reading
    from dasnet.prediction.importing.onnx_bundle import import_model as imported

    is_embedding = request.inputs == "embed"
    reading = Reading(
        inputs=request.inputs,
        output=request.output,
        distance=request.distance if is_embedding else None,
        bands=tuple(
            Band(name=name, mean=mean, std=std)
            for name, (mean, std) in zip(request.bands, request.normalised_by, strict=True)
        ),
        dtype=request.dtype,
        window=request.window,
        resolution=request.resolution,
        threshold=request.threshold,
        input_names=None if request.input_names is None else tuple(request.input_names),
        output_name=request.output_name,
        changed_channel=request.changed_channel,
        middle=request.middle,
        offset=request.offset,
    )
    done = imported(request.model, request.bundle, reading, trust=request.trust, expected=request.expected)
    for warning in done.warnings:
        print_warning(warning)
    print_pairs(
        [
            ("bundle", str(done.bundle.path)),
            ("network", title_of(done.bundle.architecture)),
            ("window", f"{done.bundle.window} px"),
            ("next", f"dasnet calibrate {request.bundle} --dataset DATASET --output CALIBRATED.safetensors"),
        ]
    )
