"""Folding goes by what a network does with its tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dasnet.errors import BundleError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.prediction import folding
from dasnet.prediction.folding import fold_normalisation


class Crossed(ChangeNetwork):
    """Modules are registered in another order than they are used in, and one result is used twice."""

    parts = ("one",)
    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm_of_second = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 1)
        self.norm_of_first = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.norm_of_shared = nn.BatchNorm2d(4)
        for norm in (self.norm_of_first, self.norm_of_second, self.norm_of_shared):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def features(self, images: Tensor) -> Tensor:
        x = self.norm_of_second(self.second(self.norm_of_first(self.first(images)).relu()))
        both = self.shared(x)
        return self.norm_of_shared(both) + both.mean(dim=1, keepdim=True)

    def distance(self, before: Tensor, after: Tensor) -> Tensor:
        return 2 * torch.tanh((before - after).abs().mean(dim=1))

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.distance(*self.features(images).chunk(2)),)


def test_a_norm_goes_into_the_convolution_whose_result_it_is_given() -> None:
    torch.manual_seed(0)
    network = Crossed().eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        before = network.features(images)
    fold_normalisation(network, in_bands=3)
    with torch.inference_mode():
        torch.testing.assert_close(network.features(images), before, atol=1e-5, rtol=1e-4)
    left = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["norm_of_shared"], "its convolution's result is used elsewhere too"


def test_a_network_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(folding._Flow, "pairs", lambda self: [("first", "norm_of_second")])
    with pytest.raises(BundleError, match="the network answers otherwise: distances differ by up to"):
        fold_normalisation(Crossed().eval(), in_bands=3)
