"""DSCN: its size, and a distance that both dates have the same part in."""

from __future__ import annotations

import torch

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network


def test_parameters_are_those_of_five_convolutions() -> None:
    network = build_network(PeerArchitecture(method="dscn", width=32))  # no count is published: a hand sum
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == 25 * 3 * 32 + 32 + 4 * (25 * 32 * 32 + 32)


def test_the_distance_is_that_of_unit_vectors_and_symmetric() -> None:
    torch.manual_seed(0)
    network = build_network(PeerArchitecture(method="dscn", width=3)).eval()
    before, after = torch.randn(2, 1, 3, 20, 24)
    (a,), (b,) = network.features(before), network.features(after)
    distance = network.distance((a,), (b,))
    for y, x in ((0, 0), (19, 23), (7, 11)):
        u, v = a[0, :, y, x], b[0, :, y, x]
        assert abs(float(u.square().sum()) - 1) < 1e-5
        assert abs(float(distance[0, y, x]) - float((u - v).square().sum()) ** 0.5) < 1e-5
    assert torch.equal(network.distance((b,), (a,)), distance)


def test_a_pixel_is_seen_with_its_surroundings_alone() -> None:
    """Five 5×5 convolutions see 10 px around: windows that overlap agree but near their edges."""
    torch.manual_seed(1)
    network = build_network(PeerArchitecture(method="dscn", width=3)).eval()
    image = torch.randn(1, 3, 48, 48)
    changed = image.clone()
    changed[:, :, 24, 24] += 5
    (a,), (b,) = network.features(image), network.features(changed)
    rows, cols = torch.nonzero((a - b).abs().sum(dim=1)[0], as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (14, 34, 14, 34)
