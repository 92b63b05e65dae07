"""An imported network among the others: features and distances, by a graph that a runtime computes.

Legend of shapes: B images, C bands, (H, W) pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.imported.answers import at_every_pixel, distance_of, embedding_distance, embedding_of
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.session import Session, on_gpu


class ImportedNetwork(ChangeNetwork):
    """A graph of ONNX as a network.

    Of a date it keeps the image itself, or its embedding. Which of two dates is the first matters to a graph of both
    as much as it does to that graph. It cannot be trained: what it is made of are operators, not layers.
    """

    parts = ("distance",)

    graph: Tensor
    """The model as ONNX writes it, (bytes,) uint8: the only weight there is."""

    def __init__(self, architecture: ImportedArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.register_buffer("graph", torch.zeros(architecture.graph_bytes, dtype=torch.uint8))
        self._session: Session | None = None
        self._device = torch.device("cpu")

    @property
    def stride(self) -> int:
        """One pixel: see :func:`dasnet.networks.imported.answers.at_every_pixel`."""
        return self.architecture.stride

    @property
    def runs_on_gpu(self) -> bool:
        """Whether the runtime that is installed here can use a GPU."""
        return on_gpu()

    @property
    def arithmetic(self) -> str:
        """The runtime and its version, on which bits depend."""
        return self._started.arithmetic

    def start(self, device: torch.device) -> None:
        """Hand the graph to the runtime; what computes on `device` from then on.

        Raises:
            BundleError: the graph is not the one that is described, or the runtime is missing or does not take it.
            PredictorError: the runtime has no such device.
        """
        content = self.graph.numpy().tobytes()
        require_digest(content, self.architecture)
        self._session, self._device = Session(content, device=device, name="the imported graph"), device

    @property
    def _started(self) -> Session:
        if self._session is None:
            self.start(self._device)
        assert self._session is not None
        return self._session

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W), normalised: the images themselves, or unit embeddings (B, D, h, w) float32."""
        if self.architecture.inputs != "embed":
            return images
        return embedding_of(self.answer([images]), self.architecture)

    def distance(self, before: Tensor, after: Tensor) -> Tensor:
        """Two dates as :meth:`features` gave them, the first one first, to (B, H, W) float32 in [0, 2].

        Raises:
            RangeError: the graph answers what it was not imported for.
        """
        architecture, stride = self.architecture, self.architecture.output_stride
        if architecture.inputs == "embed":
            coarse = embedding_distance(before, after, architecture)
            height, width = (stride * size for size in coarse.shape[-2:])
        else:
            height, width = before.shape[-2:]
            together = [torch.cat([before, after], dim=1)] if architecture.inputs == "stacked" else [before, after]
            coarse = distance_of(self.answer(together), architecture)
        return at_every_pixel(coarse, stride=stride, offset=architecture.offset, height=height, width=width)

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Refused: raises BundleError."""
        raise BundleError("an imported graph has no layers that could be trained: train a network of this program")

    def answer(self, images: Sequence[Tensor]) -> Tensor:
        """What the graph itself answers to its inputs, (B, …) each, on their device."""
        inputs = [np.ascontiguousarray(image.cpu().numpy(), dtype=self.architecture.input_type) for image in images]
        size = 1 if self.architecture.fixed_batch else len(inputs[0])
        answers = [
            self._started.run(
                self.architecture.output_name,
                {name: values[first : first + size] for name, values in zip(self._names, inputs, strict=True)},
            )
            for first in range(0, len(inputs[0]), size)
        ]
        return torch.from_numpy(np.concatenate(answers)).to(images[0].device)

    @property
    def _names(self) -> tuple[str, ...]:
        return self.architecture.input_names


def require_digest(content: bytes, architecture: ImportedArchitecture) -> None:
    """Refuse bytes that are not the graph that is described; raises BundleError with both digests."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != architecture.graph_sha256:
        raise BundleError(
            f"the graph has SHA-256 {digest[:12]}…, but the header describes {architecture.graph_sha256[:12]}…: "
            "the file was changed after it was written"
        )
