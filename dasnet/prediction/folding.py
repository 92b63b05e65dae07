"""Normalisation folded into the convolutions before it, found by what a network does and not by how it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dasnet.errors import BundleError
from dasnet.networks.change_network import ChangeNetwork

_SIDE = 64
_TOLERANCE = 1e-3
"""Largest difference of two distances in [0, 2] that rounding of folded weights may make."""


def fold_normalisation(model: ChangeNetwork, *, in_bands: int) -> None:
    """Fold every BatchNorm2d into the convolution whose result it alone is given, in place: the same function, faster.

    Which convolution that is comes from running the network once and following its tensors; the order in which modules
    were registered says nothing. An activation that a normalisation brings along stays.

    Args:
        model: in eval mode, float32.
        in_bands: of an image.

    Raises:
        BundleError: the folded network answers otherwise than the one before.
    """
    if next(model.parameters(), torch.empty(0)).is_meta:
        return
    random = torch.Generator().manual_seed(0)
    images = torch.randn((2, in_bands, _SIDE, _SIDE), generator=random)
    with torch.inference_mode(), _followed(model) as pairs:
        expected = _distance(model, images)
    for convolution, norm in pairs():
        _fold(model, convolution, norm)
    with torch.inference_mode():
        folded = _distance(model, images)
    difference = float((folded - expected).abs().max())
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"with its normalisation folded into its convolutions the network answers otherwise: distances differ by "
            f"up to {difference:.3g}. It cannot be made ready to predict"
        )


def _distance(model: ChangeNetwork, images: Tensor) -> Tensor:
    before, after = images.chunk(2)
    return model.distance(model.features(before), model.features(after))


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    first, second = model.get_submodule(convolution), model.get_submodule(norm)
    assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d) and isinstance(second, nn.BatchNorm2d)
    model.set_submodule(convolution, fuse_conv_bn_eval(first, second, transpose=isinstance(first, nn.ConvTranspose2d)))
    # timm's normalisation is followed by an activation of its own
    rest = [part for part in (getattr(second, "drop", None), getattr(second, "act", None)) if part is not None]
    model.set_submodule(norm, nn.Sequential(*rest) if rest else nn.Identity())


@contextmanager
def _followed(model: nn.Module) -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """Follow tensors while the network runs; then the names of convolutions and of what alone normalises each."""
    flow = _Flow()
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            handles.append(module.register_forward_hook(flow.made_by(name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(flow.normalised_by(name)))
    try:
        with flow:
            yield flow.pairs
    finally:
        for handle in handles:
            handle.remove()


class _Flow(TorchFunctionMode):
    """Which convolution made a tensor, which normalisation was given it, and how often anything was."""

    def __init__(self) -> None:
        super().__init__()
        self._maker: dict[int, str] = {}
        self._uses: Counter[int] = Counter()
        self._edges: list[tuple[int, str]] = []
        self._kept: list[Tensor] = []  # an id is that of one tensor as long as it lives

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # to ask for a shape is no use of the values
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and id(leaf) in self._maker:
                    self._uses[id(leaf)] += 1
        return result

    def made_by(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self._maker[id(output)] = name
            self._kept.append(output)

        return hook

    def normalised_by(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if id(args[0]) in self._maker:
                self._edges.append((id(args[0]), name))

        return hook

    def pairs(self) -> list[tuple[str, str]]:
        """Convolutions and normalisations that always go together, and with nothing else."""
        made, normalised = Counter(self._maker.values()), Counter(norm for _, norm in self._edges)
        alone = Counter((self._maker[key], norm) for key, norm in self._edges if self._uses[key] == 1)
        return [
            (convolution, norm)
            for (convolution, norm), times in alone.items()
            if made[convolution] == times == normalised[norm]
        ]
