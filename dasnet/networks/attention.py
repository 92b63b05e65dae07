"""Dual attention: over positions and over channels. Both return what they are given plus a learned share of attention.

Source: Chen et al. 2020 (DASNet), section III-C, after Fu et al. 2019 (DANet).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import QUERY_SHARE, WIDEST_HEAD


class SpatialAttention(nn.Module):
    """Every position sees every other: softmax over the H·W positions, no scaling; memory linear in H·W.

    η of the paper is `gamma` here, the authors' name; it starts at 0, so that training starts without attention.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // QUERY_SHARE, 1)
        self.key_conv = nn.Conv2d(channels, channels // QUERY_SHARE, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        # Kernels that never hold the N×N matrix want query, key and value equally wide, and no wider than 256 on a GPU:
        # query and key are filled up with zeros, which leaves their products as they are, and a value that is too wide
        # is cut into heads that share one query and key. They also want their vectors in one piece.
        value = self.value_conv(x)
        # where nothing is computed, the method's own arithmetic is counted, without that filling
        heads = 1 if x.is_meta else max(value.shape[1] // WIDEST_HEAD, 1)
        value = _as_heads(value, heads)
        query, key = (
            narrow if x.is_meta else F.pad(narrow, (0, value.shape[3] - narrow.shape[3])).expand(-1, heads, -1, -1)
            for narrow in (_as_heads(self.query_conv(x), 1), _as_heads(self.key_conv(x), 1))
        )
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.gamma * attended.transpose(2, 3).reshape(x.shape) + x


class ChannelAttention(nn.Module):
    """Every channel sees every other: a C×C attention straight from the features.

    Eq. (3) of the paper calls the map N×N; it is C×C. As in the authors' network the softmax is taken over
    (row maximum − energy), which their weights need. The map is made in float32: energies are sums over all positions,
    and what bfloat16 rounds off them would decide the softmax.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        device = "cpu" if x.is_meta else x.device.type  # autocast knows no meta
        with torch.autocast(device, enabled=False):  # which would take these products in bfloat16 all the same
            features = x.flatten(2).float()  # (B, C, N)
            energy = features @ features.transpose(1, 2)
            attention = torch.softmax(energy.amax(dim=-1, keepdim=True) - energy, dim=-1)  # (B, C, C)
            attended = (attention @ features).reshape(x.shape).to(x.dtype)
        return self.gamma * attended + x


def _as_heads(x: Tensor, heads: int) -> Tensor:
    """(B, heads·D, H, W) to (B, heads, H·W, D)."""
    return x.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3).contiguous()
