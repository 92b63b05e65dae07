"""ChangeMamba: its size, where its positions lie, and the three ways in which it reads both dates."""

from __future__ import annotations

import math

import pytest
import torch

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.changemamba import ChangeMamba, Encoder, Relating


def network(width: int = 6, bands: int = 3) -> ChangeMamba:
    built = build_network(PeerArchitecture(method="changemamba", width=width, in_bands=bands)).eval()
    assert isinstance(built, ChangeMamba)
    return built


def test_parameters_are_as_many_as_in_the_authors_code() -> None:
    """32,613,506 in theirs by the smallest configuration; here by the description of its layers."""

    def block(channels: int) -> int:
        inner, rank = 2 * channels, math.ceil(channels / 16)
        selection = 4 * (rank + 2) * inner + 4 * inner * rank + 4 * inner
        scan = selection + 2 * 4 * inner + 2 * inner + 2 * channels * inner + 9 * inner
        return scan + 2 * 2 * channels + 2 * 4 * channels * channels + 5 * channels

    def halving(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs + 2 * outputs

    channels, hidden = (96, 192, 384, 768), 128
    expected = halving(3, 48) + halving(48, 96)
    expected += sum(depth * block(count) for depth, count in zip((2, 2, 4, 2), channels, strict=True))
    expected += sum(halving(count, 2 * count) for count in channels[:-1]) + sum(2 * count for count in channels)
    for count in channels:
        expected += 4 * count * hidden + 3 * hidden + 3 * block(hidden) + 5 * hidden * hidden + 3 * hidden
    expected += 3 * 2 * (9 * hidden * hidden + 2 * hidden) + hidden * 2 + 2
    built = build_network(PeerArchitecture(method="changemamba", width=96))
    assert sum(parameter.numel() for parameter in built.parameters()) == expected == 32_613_506


def test_positions_lie_on_every_fourth_pixel_and_twice_as_far_each_time() -> None:
    """By the convolutions that halve the resolution, every weight of which is made 1 and all else taken out."""
    encoder = Encoder(1, 4)
    image = torch.ones(1, 1, 257, 8, requires_grad=True)
    x, stride = image, 1
    halvings = [encoder.stem[0], encoder.stem[3], *(halving[0] for halving in encoder.halvings)]  # type: ignore[index]
    for halving in halvings:
        halving.weight.data.fill_(1.0), halving.bias.data.zero_()
        x, stride = halving(x), 2 * stride
        (influence,) = torch.autograd.grad(x[0, :, 128 // stride].sum(), image, retain_graph=True)
        along = influence[0, 0].double().sum(dim=1)
        assert float((along * torch.arange(257)).sum() / along.sum()) == pytest.approx(128)
    assert stride == 32


def test_dates_are_read_above_each_other_in_turn_and_side_by_side() -> None:
    torch.manual_seed(1)
    relating = Relating(2, 3).eval()
    before, after = torch.randn(2, 1, 2, 4, 5)
    given: dict[str, torch.Tensor] = {}
    for name in ("stacked", "in_turn", "side_by_side"):
        getattr(relating, name)[0].register_forward_pre_hook(lambda _, x, name=name: given.update({name: x[0]}))
    relating(before, after)
    assert torch.equal(given["stacked"], torch.cat([before, after], dim=1))
    for column in range(5):
        assert torch.equal(given["in_turn"][..., 2 * column], before[..., column])
        assert torch.equal(given["in_turn"][..., 2 * column + 1], after[..., column])
        assert torch.equal(given["side_by_side"][..., column], before[..., column])
        assert torch.equal(given["side_by_side"][..., 5 + column], after[..., column])


def test_which_date_is_the_first_matters() -> None:
    torch.manual_seed(2)
    built = network()
    before, after = (built.features(date) for date in torch.randn(2, 1, 3, 64, 64))
    assert not torch.allclose(built.logit(before, after), built.logit(after, before), atol=1e-4)


def test_every_weight_learns() -> None:
    torch.manual_seed(3)
    built = network(bands=4)  # not in training, where whole blocks are left out
    built.outputs(torch.randn(4, 4, 64, 64))[0].square().mean().backward()
    assert not [name for name, p in built.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_a_pixel_is_heard_of_far_away() -> None:
    """Scans reach over the whole image: the gradient of a corner's score by the opposite corner's pixel."""
    torch.manual_seed(4)
    built = network()
    images = torch.randn(2, 3, 128, 128, requires_grad=True)
    built.outputs(images)[0][0, 0, 0].backward()
    assert images.grad is not None and (images.grad[:, :, -1, -1] != 0).all()
