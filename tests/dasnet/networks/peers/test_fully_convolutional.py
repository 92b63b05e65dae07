"""FC-EF, FC-Siam-conc and FC-Siam-diff: their size, what they take over, and that both dates have a part."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.fully_convolutional import SiameseConcatenation, SiameseDifference


def hand_sum(first: int, *, taken: int) -> int:
    """Weights, biases and normalisation by the paper's figure: nine weights a channel pair, one bias, two of norm."""

    def convolutions(*channels: int) -> int:
        return sum(9 * a * b + b + 2 * b for a, b in pairwise(channels))

    def up(channels: int) -> int:
        return 9 * channels * channels + channels

    encoder = convolutions(first, 16, 16, 32, 32, 64, 64, 64, 128, 128, 128)
    decoder = sum(up(c) for c in (128, 64, 32, 16))
    decoder += convolutions(128 + 128 * taken, 128, 128, 64) + convolutions(64 + 64 * taken, 64, 64, 32)
    decoder += convolutions(32 + 32 * taken, 32, 16) + convolutions(16 + 16 * taken, 16)
    return encoder + decoder + 9 * 16 * 2 + 2


# Published for three bands: 1.35 M, 1.55 M and 1.35 M (for example Chen and Shi's and Codegoni et al.'s comparisons,
# 2021 and 2022); exactly 1,350,146 for FC-Siam-diff by the card of a checkpoint of the authors' network on LEVIR-CD.
@pytest.mark.parametrize(
    ("method", "bands", "expected", "published"),
    [
        ("fc-ef", 3, hand_sum(6, taken=1), 1.35),
        ("fc-siam-conc", 3, hand_sum(3, taken=2), 1.55),
        ("fc-siam-diff", 3, 1_350_146, 1.35),
        ("fc-siam-diff", 3, hand_sum(3, taken=1), 1.35),
        ("fc-ef", 13, hand_sum(26, taken=1), 1.35),
        ("fc-siam-conc", 1, hand_sum(1, taken=2), 1.55),
    ],
)
def test_parameters_are_as_many_as_published(method: str, bands: int, expected: int, published: float) -> None:
    network = build_network(PeerArchitecture(method=method, in_bands=bands, width=16))
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == expected and round(counted / 1e6, 2) == published


def spied(module: nn.Module) -> list[tuple[Tensor, ...]]:
    """What a module is given, call by call."""
    seen: list[tuple[Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given))
    return seen


def test_the_difference_takes_over_absolute_differences_and_starts_from_the_second_date() -> None:
    torch.manual_seed(0)
    network = SiameseDifference(PeerArchitecture(method="fc-siam-diff", width=2)).eval()
    first = spied(network.decoder.stages[0])
    start = spied(network.decoder.up[0])
    before, after = torch.randn(2, 1, 3, 32, 48)
    a, b = network.features(before), network.features(after)
    assert [tuple(level.shape[1:]) for level in a] == [(2, 32, 48), (4, 16, 24), (8, 8, 12), (16, 4, 6)]
    distance = network.distance(a, b)
    assert torch.equal(first[0][0][:, 16:], torch.where(a[3] > b[3], a[3] - b[3], b[3] - a[3]))
    assert torch.equal(start[0][0], F.max_pool2d(b[3], 2))
    assert not torch.equal(network.distance(b, a), distance), "by the decoder's start, the order of dates matters"


def test_the_concatenation_takes_over_both_dates() -> None:
    torch.manual_seed(0)
    network = SiameseConcatenation(PeerArchitecture(method="fc-siam-conc", width=2)).eval()
    last = spied(network.decoder.stages[-1])
    before, after = torch.randn(2, 1, 3, 32, 32)
    a, b = network.features(before), network.features(after)
    network.distance(a, b)
    assert torch.equal(last[0][0][:, 2:4], a[0]) and torch.equal(last[0][0][:, 4:], b[0])
