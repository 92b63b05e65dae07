"""timm beside any build of torch: the only module that imports it, after torchvision has been made to load."""

from __future__ import annotations

from dasnet.networks import _torchvision  # noqa: F401 (timm imports torchvision)

import timm  # isort: skip
import timm.layers  # isort: skip

__all__ = ["timm"]
