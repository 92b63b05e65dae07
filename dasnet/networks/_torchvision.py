"""torchvision beside any build of torch: the only module that imports it.

The wheels on PyPI carry operators compiled for CUDA. Beside a CPU build of torch they do not load, and torchvision
0.28 then fails on import because it registers shapes for two of them (``operator torchvision::nms does not exist``).
We use its network definitions only, so declaring those two operators, without an implementation, is enough.
Where torchvision imports as it is, nothing is declared.
"""

from __future__ import annotations

from typing import Any

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # an operator lives as long as its Library


def _declare_missing_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declared.append(library)


try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    _declare_missing_operators()
    import torchvision

models = torchvision.models
efficientnet = torchvision.models.efficientnet
mobilenetv3 = torchvision.models.mobilenetv3
resnet = torchvision.models.resnet


def __getattr__(name: str) -> Any:
    """``transforms_v2``: only training needs it, and importing it takes a while."""
    if name == "transforms_v2":
        from torchvision.transforms import v2

        return v2
    raise AttributeError(name)


__all__ = ["efficientnet", "mobilenetv3", "models", "resnet", "torchvision", "transforms_v2"]  # noqa: F822
