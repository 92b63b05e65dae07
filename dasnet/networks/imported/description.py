"""An imported network in words: read with a bundle's header, without a runtime and without its graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from dasnet.networks.every_pixel import EveryPixel

Inputs = Literal["stacked", "siamese", "embed"]
"""What a graph takes: both dates stacked in one input (B, 2C, H, W), the first date's bands first; each date in one of
two inputs (B, C, H, W); or one date (B, C, H, W), of which it makes an embedding (B, D, h, w)."""
Output = Literal["probability", "logits", "distance"]
"""What a graph of both dates answers: a probability of change in [0, 1], its log-odds, or a distance from 0 on."""
EmbeddingDistance = Literal["l2", "cosine"]
Precision = Literal["float16", "float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class ImportedArchitecture(EveryPixel):
    """Which imported network, and how its outputs are read: found by looking at its graph and by running it once.

    Attributes:
        inputs: what the graph takes.
        output: what it answers; of an embedding None.
        distance: between two embeddings, each position's brought to length 1: "l2", or "cosine" (1 − cos), both in
            [0, 2]; None of a graph that answers for both dates.
        in_bands: bands of one date, C.
        input_names: names of the graph's inputs, of two that of the first date first.
        output_name: name of the output that is read.
        input_type: type of the inputs.
        channels: channels of that output: 0 for (B, h, w), D of an embedding, 2 for scores of two classes.
        changed_channel: which of two channels stands for changed.
        middle: of a distance without an upper end, the one that comes to lie at 1, the middle of [0, 2]:
            d becomes 2d / (d + middle). None = distances lie in [0, 2] and stay.
        output_stride: pixels between two positions of the output, 1 or more.
        offset: pixels from the first pixel of the image to the first position of the output.
        side: side of the windows that it was tried with, pixels.
        multiple: other sides differ from that by a multiple of so many pixels; 0 = there is no other.
        fixed_batch: whether it takes one window at a time only.
        graph_bytes, graph_sha256: size and digest of the graph, which stands with the weights of a bundle.
    """

    described: ClassVar[str] = "an imported network has"

    inputs: Inputs
    output: Output | None
    distance: EmbeddingDistance | None
    in_bands: int
    input_names: tuple[str, ...]
    output_name: str
    input_type: Precision = "float32"
    channels: int = 1
    changed_channel: int = 1
    middle: float | None = None
    output_stride: int = 1
    offset: float = 0.0
    side: int
    multiple: int = 1
    fixed_batch: bool = False
    graph_bytes: int
    graph_sha256: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_names", tuple(self.input_names))
        for name, value, choices in (
            ("inputs", self.inputs, get_args(Inputs)),
            ("output", self.output, (None,) if self.inputs == "embed" else get_args(Output)),
            ("distance", self.distance, get_args(EmbeddingDistance) if self.inputs == "embed" else (None,)),
            ("input_type", self.input_type, get_args(Precision)),
            ("changed_channel", self.changed_channel, (0, 1)),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r} of a graph with inputs {self.inputs!r} is none of {choices}")
        if len(self.input_names) != (2 if self.inputs == "siamese" else 1):
            raise ValueError(f"inputs {self.inputs!r} are not {len(self.input_names)}: {', '.join(self.input_names)}")
        for name, least in (
            ("in_bands", 1),
            ("output_stride", 1),
            ("side", 1),
            ("multiple", 0),
            ("graph_bytes", 1),
            ("channels", 0),
        ):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)!r}")
        if not (isinstance(self.offset, int | float) and math.isfinite(self.offset)):
            raise ValueError(f"offset must be a finite number of pixels, not {self.offset!r}")
        if self.middle is not None and not (isinstance(self.middle, int | float) and 0 < self.middle < math.inf):
            raise ValueError(f"middle must be positive and finite, not {self.middle!r}")
        if not all(isinstance(name, str) for name in (*self.input_names, self.output_name, self.graph_sha256)):
            raise ValueError(f"names and digest must be text, not {self.input_names, self.output_name!r}")

    @property
    def title(self) -> str:
        """What it is, for people."""
        what = f"embeddings compared by {self.distance}" if self.inputs == "embed" else f"{self.inputs}, {self.output}"
        return f"Imported network ({what}; graph SHA-256 {self.graph_sha256[:12]}…)"

    def refusal(self, window: int) -> str | None:
        """Why windows of `window` × `window` px cannot be given to it; None = they can."""
        if window == self.side:
            return None
        if self.multiple == 0:
            return f"its graph has the fixed size of {self.side} × {self.side} px"
        if (window - self.side) % self.multiple:
            return f"its graph takes sides of {self.side} px and what lies a multiple of {self.multiple} px from it"
        return None

    def refusal_of_precision(self, precision: str) -> str | None:
        """Why it cannot compute in an arithmetic; None = it can, as "auto" too."""
        if precision in ("bfloat16", "int8"):
            return f"an imported graph computes in its own arithmetic, not in {precision}: --precision float32"
        return None

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**super().to_dict(), "input_names": list(self.input_names)}
