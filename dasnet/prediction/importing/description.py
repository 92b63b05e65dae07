"""What a person says of a graph, held against what the graph says of itself."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from dasnet.errors import BundleError
from dasnet.networks.imported.description import EmbeddingDistance, ImportedArchitecture, Inputs, Output
from dasnet.networks.imported.graph import Graph, Port
from dasnet.prediction.header import Band

_TYPES = ("float16", "float32", "float64")
_WINDOW = 256

_TAKES = {
    "stacked": "one input (B, 2C, H, W), both dates stacked",
    "siamese": "two inputs (B, C, H, W), one for each date",
    "embed": "one input (B, C, H, W), one date",
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a graph is to be read: what no file of ONNX says.

    Attributes:
        inputs, output, distance, changed_channel, middle: as of
            :class:`~dasnet.networks.imported.description.ImportedArchitecture`.
        bands: what one date has, in the graph's order, with their normalisation in the mosaic's units.
        dtype: type of the mosaics: uint8, uint16 or float32.
        window: side of a window, pixels; None = the graph's own, or 256 where it takes any.
        resolution: ground size of a pixel, metres; None = not known.
        threshold: on the output itself (of log-odds on their probability); None = the middle of its range.
        input_names, output_name: which; None = the graph's only ones, of two inputs that of the first date first.
        offset: pixels from the first pixel to the first position of an output that is coarser; None = it is not.
    """

    inputs: Inputs
    output: Output | None = None
    distance: EmbeddingDistance | None = None
    bands: tuple[Band, ...]
    dtype: str = "uint8"
    window: int | None = None
    resolution: float | None = None
    threshold: float | None = None
    input_names: tuple[str, ...] | None = None
    output_name: str | None = None
    changed_channel: int = 1
    middle: float | None = None
    offset: float | None = None

    def __post_init__(self) -> None:
        if (self.inputs == "embed") != (self.output is None) or (self.inputs == "embed") != (self.distance is not None):
            raise BundleError(
                "a graph that embeds one date is compared by a distance, l2 or cosine; one that takes both dates "
                f"answers probability, logits or distance: inputs {self.inputs}, output {self.output}, distance "
                f"{self.distance} do not go together"
            )
        if self.middle is not None and self.output != "distance":
            raise BundleError(f"a middle ({self.middle:g}) is of a distance, and the output is {self.output or 'none'}")
        if self.middle is not None and not 0 < self.middle < math.inf:
            raise BundleError(f"the middle of a distance is positive and finite, not {self.middle:g}")
        if self.offset is not None and not math.isfinite(self.offset):
            raise BundleError(f"an offset is a finite number of pixels, not {self.offset:g}")


def describe(graph: Graph, reading: Reading, *, name: str) -> ImportedArchitecture:
    """The architecture that graph and reading agree on; what only a run shows is set by who runs it.

    Raises:
        BundleError: other inputs, bands, ranks or types than the reading says, or a fixed size that is not its window.
    """
    inputs = _inputs(graph, reading, name)
    types = {port.type for port in inputs}
    if len(types) != 1 or not types <= set(_TYPES):
        raise BundleError(f"{name}: inputs {_listed(inputs)} are not all of one of the types {', '.join(_TYPES)}")
    channels = len(reading.bands) * (2 if reading.inputs == "stacked" else 1)
    batches, sides = set(), set()
    for port in inputs:
        if port.shape is None or len(port.shape) != 4:
            raise BundleError(f"{name}: input {port} has no four axes (batch, bands, rows, columns)")
        batch, bands, rows, columns = port.shape
        if isinstance(bands, int) and bands != channels:
            raise BundleError(
                f"{name}: input {port} has {bands} channels, but inputs {reading.inputs} of {len(reading.bands)} bands "
                f"({', '.join(band.name for band in reading.bands)}) are {channels}"
            )
        batches.add(batch if isinstance(batch, int) else None)
        sides |= {side for side in (rows, columns) if isinstance(side, int)}
    if not batches <= {None, 1}:
        raise BundleError(f"{name}: inputs {_listed(inputs)} have a fixed batch: export it with batch 1 or a free one")
    if len(sides) > 1:
        raise BundleError(f"{name}: inputs {_listed(inputs)} are not square: windows are")
    fixed = next(iter(sides), None)
    if fixed is not None and reading.window not in (None, fixed):
        raise BundleError(
            f"{name}: inputs {_listed(inputs)} have the fixed size of {fixed} px, so the window is that and not "
            f"{reading.window} px; or export the graph with free rows and columns"
        )
    return ImportedArchitecture(
        inputs=reading.inputs,
        output=reading.output,
        distance=reading.distance,
        in_bands=len(reading.bands),
        input_names=tuple(port.name for port in inputs),
        output_name=_output(graph, reading, name).name,
        input_type=inputs[0].type,  # type: ignore[arg-type]  # it is one of them
        changed_channel=reading.changed_channel,
        middle=reading.middle,
        offset=reading.offset or 0.0,
        side=fixed or reading.window or _WINDOW,
        multiple=1 if fixed is None else 0,
        fixed_batch=1 in batches,
        graph_bytes=len(graph.content),
        graph_sha256=hashlib.sha256(graph.content).hexdigest(),
    )


def _inputs(graph: Graph, reading: Reading, name: str) -> list[Port]:
    by_name = {port.name: port for port in graph.inputs}
    names = reading.input_names or tuple(by_name)
    if unknown := [each for each in names if each not in by_name]:
        raise BundleError(f"{name} has no input {', '.join(unknown)}, but {_listed(graph.inputs)}")
    count = 2 if reading.inputs == "siamese" else 1
    if len(names) != count or len(set(names)) != len(names) or len(graph.inputs) != count:
        raise BundleError(
            f"{name} takes {len(graph.inputs)} inputs, {_listed(graph.inputs)}; --inputs {reading.inputs} means "
            f"{_TAKES[reading.inputs]}"
        )
    return [by_name[each] for each in names]


def _output(graph: Graph, reading: Reading, name: str) -> Port:
    chosen = [port for port in graph.outputs if reading.output_name in (None, port.name)]
    if len(chosen) != 1:
        what = f"no output {reading.output_name!r}" if reading.output_name else f"{len(graph.outputs)} outputs"
        raise BundleError(f"{name} has {what}: name one of {_listed(graph.outputs)} with --output-name")
    port = chosen[0]
    if port.type not in _TYPES:
        raise BundleError(f"{name}: output {port} is of none of the types {', '.join(_TYPES)}")
    if port.shape is not None:
        size = port.shape[1] if len(port.shape) == 4 else 1
        fitting = 2 if reading.inputs == "embed" else 1  # of a size that is not said
        require_shape(port, len(port.shape), size if isinstance(size, int) else fitting, reading.inputs, name=name)
    return port


def require_shape(port: object, rank: int, channels: int, inputs: Inputs, *, name: str) -> None:
    """Refuse an output that is no map of change and no map of embeddings; raises BundleError."""
    if inputs == "embed" and (rank != 4 or channels == 1):
        raise BundleError(f"{name}: output {port} is no embedding of every position, (B, D, h, w), of D 2 or more")
    if inputs != "embed" and not (rank == 3 or (rank == 4 and channels in (1, 2))):
        raise BundleError(
            f"{name}: output {port} is no map of change: that is (B, h, w), (B, 1, h, w), or (B, 2, h, w) for "
            "unchanged and changed"
        )


def _listed(ports: tuple[Port, ...] | list[Port]) -> str:
    return "; ".join(map(str, ports)) or "none"
