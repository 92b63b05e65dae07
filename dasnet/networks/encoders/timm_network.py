"""Networks of timm by name, and the few layers that encoders made of them have in common."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from dasnet.errors import EncoderError

WIDTH = 128
"""Channels of the features at an eighth of the resolution."""
STEM_WIDTH = 32
"""Channels of a level that the network itself does not have."""
_NEAR = 5


def timm_network(name: str, **settings: Any) -> Any:
    """A network of timm with fresh weights; nothing is fetched.

    Args:
        name: timm's, as ``tf_efficientnet_lite0``, also with the tag of weights behind a dot, which is of no account.
        settings: as ``timm.create_model`` takes them.

    Raises:
        EncoderError: no such network; with names that are near.
        TypeError: a setting that it does not take.
    """
    from dasnet.networks._timm import timm  # takes a second, and what only names an encoder needs none

    require_network(name)
    return timm.create_model(name.partition(".")[0], pretrained=False, **settings)


def require_network(name: str) -> None:
    """Raise EncoderError for a name that timm does not know, with those that are near."""
    from dasnet.networks._timm import timm

    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name.lower(), timm.list_models(), n=_NEAR, cutoff=0.5)
        meant = f": is one of {', '.join(near)} meant?" if near else ""
        raise EncoderError(f"timm {timm.__version__} has no network called {name!r}{meant}")


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue in [0, 1] that a network's pretrained weights want.

    Raises:
        EncoderError: no such network.
    """
    from dasnet.networks._timm import timm

    require_network(name)
    config = timm.get_pretrained_cfg(name) or timm.get_pretrained_cfg(name.partition(".")[0])
    assert config is not None, name
    return tuple(config.mean), tuple(config.std)


def lateral(channels: int) -> nn.Sequential:
    """A 1×1 convolution from a level's channels to those at an eighth of the resolution."""
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))


def stem(in_bands: int, stride: int) -> nn.Sequential:
    """Features of the image at a half or a quarter of its resolution: one convolution for each halving."""
    layers: list[nn.Module] = []
    for channels in (in_bands, STEM_WIDTH)[: stride // 2]:
        convolution = nn.Conv2d(channels, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(STEM_WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)
