"""A network's calls recorded once and replayed by one call: what a light network on a GPU waits for is the host.

A CUDA graph holds the kernels of one run with their addresses. So inputs are copied to where the recorded run read
them, and what it wrote is copied before the next one writes there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from dasnet.prediction.network import InferenceNetwork

Record = Callable[[Callable[[], None]], Callable[[], object]]
"""Takes what is to be recorded; gives what replays it."""


class Replayed:
    """A function of tensors, or of tuples and dictionaries of them, recorded for the shapes of one example.

    Tensors of other shapes are computed as they always were. One thread calls it.
    """

    def __init__(self, compute: Callable[..., Any], *example: Any, record: Record) -> None:
        """Record `compute` of `example`; TypeError where it takes or gives anything else than tensors."""
        self._compute = compute
        inputs, self._structure = tree_flatten(example)
        self._inputs: list[Tensor] = [tensor.clone() for tensor in _tensors(inputs)]
        self._outputs: list[Tensor] = []

        def run() -> None:
            outputs, self._given = tree_flatten(compute(*tree_unflatten(self._inputs, self._structure)))
            self._outputs = _tensors(outputs)

        self._replay = record(run)

    def __call__(self, *given: Any) -> Any:
        tensors, structure = tree_flatten(given)
        if structure != self._structure or [t.shape for t in tensors] != [t.shape for t in self._inputs]:
            return self._compute(*given)
        for place, tensor in zip(self._inputs, tensors, strict=True):
            place.copy_(tensor)
        self._replay()
        return tree_unflatten([tensor.clone() for tensor in self._outputs], self._given)


def replayed_for(
    network: InferenceNetwork, shape: tuple[int, int, int, int], *, record: Record | None = None
) -> InferenceNetwork:
    """The network with its calls recorded for images of `shape` (B, bands, H, W); other shapes are computed as before.

    It is held against the network itself on images of noise. Where recording fails, or one bit differs, there is a
    warning and the network stays as it is: so the arithmetic is the same with and without.

    Args:
        record: None = as a CUDA graph.
    """
    random = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(shape, generator=random).to(network.device) for _ in range(3))
    try:
        with torch.inference_mode():
            features = network.embed(first)
            embed = Replayed(network.embed, first, record=record or _as_cuda_graph)
            compare = Replayed(network.compare, features, features, record=record or _as_cuda_graph)
            expected = network.compare(network.embed(second), network.embed(third))
            got = compare(embed(second), embed(third))
            if not torch.equal(got, expected):
                raise ArithmeticError("replayed, the network answers otherwise")
    except Exception as error:  # a capture fails in as many ways as there are networks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"the network's calls are not replayed: {reason}", stacklevel=2)
        return network
    return replace(network, embed=embed, compare=compare)


def _as_cuda_graph(run: Callable[[], None]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what libraries allocate and choose at first is no part of the graph
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # other threads may send a block meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


def _tensors(leaves: list[Any]) -> list[Tensor]:
    if strange := [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]:
        raise TypeError(f"only tensors are replayed, not {', '.join(strange)}")
    return leaves
