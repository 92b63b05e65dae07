"""CDnet: its size, and values that go back to where they were the largest."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.cdnet import unpooled


def test_parameters_are_as_many_as_published() -> None:
    """1.43 M for three bands in comparisons with it (for example Lin et al. 2022); exactly, by its description."""
    network = build_network(PeerArchitecture(method="cdnet", width=64))
    first, others, last = 49 * 6 * 64 + 64, 7 * (49 * 64 * 64 + 64), 49 * 64 * 2 + 2
    normalisation = 8 * 2 * 64
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == first + others + last + normalisation == 1_431_554


def test_values_go_back_to_where_they_were_the_largest() -> None:
    image = torch.tensor([[1.0, 5.0, 2.0, 0.0, 9.0], [3.0, 4.0, 7.0, 6.0, 9.0], [9.0, 9.0, 9.0, 9.0, 9.0]])[None, None]
    largest, index = F.max_pool2d(image, 2, return_indices=True)
    expected = [[0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 7.0, 0.0, 0.0], [0.0] * 5]
    assert unpooled(largest, index, height=3, width=5)[0, 0].tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (2, 3)])
def test_unpooling_is_torchs(height: int, width: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, height, width).to(memory_format=torch.channels_last)
    largest, index = F.max_pool2d(image, 2, return_indices=True)
    ours, theirs = (value.clone().requires_grad_() for value in (largest, largest))
    fine = unpooled(ours, index, height=height, width=width)
    expected = F.max_unpool2d(theirs, index, 2, output_size=[height, width])
    assert torch.equal(fine, expected)
    slope = torch.randn_like(fine)
    (fine * slope).sum().backward()
    (expected * slope).sum().backward()
    assert ours.grad is not None and theirs.grad is not None and torch.equal(ours.grad, theirs.grad)
