"""SCCN: each date has an encoder of its own, and the two learn, without labels, to agree where nothing changed.

Source: Liu et al. 2018, "A deep convolutional coupling network for change detection based on heterogeneous optical and
radar images", and Luppino et al.'s implementation of it for their comparisons: one 3×3 convolution and three 1×1
coupling layers of 20 channels with sigmoids. First both encoders are trained as denoising autoencoders. Then the second
date's encoder stays as it is, and the first's minimises

    mean of P · (d − λ),  d = distance of the two codes of a pixel,  P = the pixel is unchanged

over its weights and, in turn, over P: pixels that agree are drawn together, others are left alone. As in Luppino et
al.'s code all pixels are drawn together at first (P = 1 here, where theirs is random), because two encoders that were
trained apart agree nowhere; then P is 1 up to Otsu's threshold of the pair's d. (The paper has 1 where d < λ, which no
pixel of twenty channels may ever be.) The paper trains on the very pair it then detects changes in; here it is all
pairs of the training split. Labels have no part in training but to tell valid pixels; validation chooses epoch and
threshold, as for every method. Values are dropped where the paper adds noise, decoders are linear, and one learning
rate serves both phases: bands are standardised here, not scaled to −1 … 1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.peers.peer import Features, PeerNetwork

_COUPLING_LAYERS = 3
_LAMBDA = 0.2
_AUTOENCODING = 1 / 3
"""Share of all steps that the autoencoders are trained; 250 passes of 750 in Luppino et al.'s."""
_DRAWING_ALL = _AUTOENCODING + 12 / 750
"""Until when all pixels are drawn together."""


class SCCN(PeerNetwork):
    """SCCN. Which date is the first matters: each has its own encoder."""

    parts = ("coupling",)
    leaves_weights_alone = True

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        width, bands = architecture.width, architecture.in_bands
        self.corruption = nn.Dropout(0.1)
        self.first, self.second = _encoder(bands, width), _encoder(bands, width)
        self.first_decoder, self.second_decoder = nn.Conv2d(width, bands, 1), nn.Conv2d(width, bands, 1)
        self.autoencoding, self.drawing_all = True, False

    def begin_step(self, step: int, steps: int) -> None:
        """Autoencoders in the first third of training, then coupling, at first, for a step or more, of all pixels."""
        coupling = int(_AUTOENCODING * steps)
        self.autoencoding = step < coupling
        self.drawing_all = coupling <= step < max(coupling + 1, _DRAWING_ALL * steps)

    @property
    def prepared(self) -> bool:
        """Not before the encoders have been drawn together."""
        return not self.autoencoding

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to its codes as the first and as the second date, (B, width, H, W) in [0, 1] each."""
        return self.first(images), self.second(images)

    def compared(self, features: Features) -> Features:
        """Codes of the first dates by the first encoder, those of the second by the second."""
        first, second = features
        return (torch.cat([first.chunk(2)[0], second.chunk(2)[1]]),)

    def distance(self, before: Features, after: Features) -> Tensor:
        """Root mean square difference of the codes, twice: (B, H, W) float32 in [0, 2]."""
        return 2 / math.sqrt(self.architecture.width) * _apart(before[0], after[-1])

    def outputs(self, images: Tensor) -> tuple[Tensor]:
        """(2b, C, H, W) to what the current phase minimises, for every pixel of b pairs: (b, H, W)."""
        before, after = images.chunk(2)
        if self.autoencoding:
            seen_before, seen_after = self.corruption(images).chunk(2)
            errors = (
                (self.first_decoder(self.first(seen_before)) - before).float(),
                (self.second_decoder(self.second(seen_after)) - after).float(),
            )
            return (sum(error.square().mean(dim=1) for error in errors),)
        apart = _apart(self.first(before), self.second(after).detach())
        both = (before != 0).any(dim=1) & (after != 0).any(dim=1)  # pixels without data are 0 in all bands
        return ((apart - _LAMBDA) * (1.0 if self.drawing_all else _unchanged(apart, both)),)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return vector_norm(a.float() - b.float(), dim=1)


def _unchanged(apart: Tensor, both: Tensor) -> Tensor:
    """P: 1 up to Otsu's threshold of each pair's own distances where both dates are seen, (b, H, W), and 0 beyond."""
    from skimage.filters import threshold_otsu  # slow to import, and only training takes it

    distances, valid = apart.detach().cpu().numpy(), both.cpu().numpy()
    cuts = [threshold_otsu(d[k]) if k.any() else 0.0 for d, k in zip(distances, valid, strict=True)]
    return (apart.detach() <= apart.new_tensor(cuts)[:, None, None]).to(apart.dtype)


def _encoder(bands: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(bands, width, 3, padding=1), nn.Sigmoid()]
    for inputs, outputs in pairwise([width] * (_COUPLING_LAYERS + 1)):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.Sigmoid()]
    return nn.Sequential(*layers)
