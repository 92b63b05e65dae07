"""Plain vision transformers as encoders: features of patches, all of one size, brought to an eighth of the image.

Source: Dosovitskiy et al. 2021 (ViT); DINOv2 (Oquab et al. 2024), DINOv3 (Siméoni et al. 2025) and Prithvi (Szwarcman
et al. 2024) are such networks with weights of their own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import EncoderError
from dasnet.networks.architectures import STRIDE
from dasnet.networks.encoders.positions import Pyramid, brought_to
from dasnet.networks.encoders.timm_network import STEM_WIDTH, WIDTH, lateral, stem, timm_network


class PatchEncoder(nn.Module):
    """A vision transformer of timm whose features are those of patches of p pixels after the last block.

    Patch i is centred on pixel p · i + (p − 1) / 2; features are interpolated so that position i lies on 8 · i, as in
    the other encoders. What is finer than a patch is seen by two convolutions of the image, for a decoder. Images may
    have any size: the positions that a network has learnt are interpolated by timm, and the last patches are filled up
    with zeros, which are the mean of normalised values.

    Attributes:
        channels: of the features at an eighth.
        pyramid_channels: of those at a half, a quarter and an eighth.
        patch: side of a patch, pixels.
    """

    channels = WIDTH
    pyramid_channels = (STEM_WIDTH, STEM_WIDTH, WIDTH)

    def __init__(self, name: str, in_bands: int = 3) -> None:
        """Build the network with fresh weights.

        Args:
            name: timm's, as ``vit_small_patch16_dinov3``.

        Raises:
            EncoderError: no such network, or one that takes images of one size alone.
        """
        super().__init__()
        try:
            self.model = timm_network(name, in_chans=in_bands, num_classes=0, dynamic_img_size=True)
        except TypeError as error:
            raise EncoderError(
                f"timm:{name} takes images of the size alone that it was trained on, not windows of any size ({error})"
            ) from error
        for part in ("attn_pool", "fc_norm"):  # they belong to a classifier
            if isinstance(getattr(self.model, part, None), nn.Module):
                setattr(self.model, part, nn.Identity())
        rows, cols = self.model.patch_embed.patch_size
        if rows != cols:
            raise EncoderError(f"timm:{name} has patches of {rows} × {cols} px: square ones are wanted")
        self.patch = int(rows)
        if self.patch != self.model.feature_info[-1]["reduction"]:
            raise EncoderError(f"timm:{name} has convolutions before its patches, of which positions are not known")
        self.laterals = nn.ModuleDict({str(self.patch): lateral(self.model.num_features)})
        self.stems = nn.ModuleDict({str(stride): stem(in_bands, stride) for stride in (2, 4)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 128, ⌈H/8⌉, ⌈W/8⌉)."""
        return self.pyramid(x).last

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the features at a half and at a quarter of the resolution."""
        rows, cols = (-side % self.patch for side in x.shape[-2:])
        whole = F.pad(x, (0, cols, 0, rows)) if rows or cols else x
        (tokens,) = self.model.forward_intermediates(
            whole, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        last = brought_to(
            self.laterals[str(self.patch)](tokens),
            stride=self.patch,
            offset=(self.patch - 1) / 2,
            step=STRIDE,
            rows=-(-x.shape[-2] // STRIDE),
            cols=-(-x.shape[-1] // STRIDE),
        )
        return Pyramid(self.stems["2"](x), self.stems["4"](x), F.relu(last))


def is_patch_transformer(network: Any) -> bool:
    """Whether a network of timm is a plain transformer: one size of patches throughout, and features of them."""
    info = getattr(network, "feature_info", None)
    if not (hasattr(network, "patch_embed") and hasattr(network, "forward_intermediates") and isinstance(info, list)):
        return False
    return len({level["reduction"] for level in info}) == 1
