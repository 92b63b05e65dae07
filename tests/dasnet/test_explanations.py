"""What is shown of a network, against sums by hand and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import PredictorError
from dasnet.explanations import (
    DEEPEST,
    LAST,
    attention_of,
    distance_maps,
    embedded_in_a_plane,
    grad_cam,
    labelled_vectors,
    last_features,
    seen_by,
    spacing,
)
from dasnet.networks.architectures import Architecture, PeerArchitecture, PeerMethod
from dasnet.networks.dasnet import DASNet
from dasnet.networks.decoder import upsample
from dasnet.networks.methods import build_network
from dasnet.networks.peers.peer import SegmentationNetwork
from dasnet.training.pseudo_changes import AXES, STRENGTHS, pseudo_changed

SIDE = 64


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network(images: torch.Tensor) -> DASNet:
    torch.manual_seed(3)
    built = build_network(Architecture(backbone="mobilenet_v3", head_channels=16))
    assert isinstance(built, DASNet)
    with torch.no_grad():
        built.head.sa.gamma.fill_(0.7)  # type: ignore[operator,union-attr]
        for _ in range(30):  # statistics of the images: without them all embeddings are nearly one
            built.embed_fused(images)
    return built.eval()


def test_layers_lead_to_the_networks_own_distance(network: DASNet, images: torch.Tensor) -> None:
    seen = seen_by(network, images)
    layers, distance = seen.dates, seen.evidence
    assert torch.equal(distance, network.distance(network.embed_fused(images[:2]), network.embed_fused(images[2:])))
    first, second = layers["fused embedding"].chunk(2)
    maps = distance_maps(seen)
    assert maps["fused embedding"]["L2"] == pytest.approx(distance.detach().numpy(), abs=1e-5)
    for name, features in layers.items():
        before, after = features.chunk(2)
        a, b = before[1, :, 2, 3].detach().double(), after[1, :, 2, 3].detach().double()
        cosine = 1 - float(a @ b / (a.norm() * b.norm()))
        assert maps[name]["cosine"][1, 2, 3] == pytest.approx(cosine, abs=1e-5)
    assert first.shape == second.shape == (2, 16, 8, 8)


def test_a_peers_layers_are_what_it_keeps_of_a_date(images: torch.Tensor) -> None:
    peer = build_network(PeerArchitecture(method="fc-siam-diff", width=4)).eval()
    seen = seen_by(peer, images)
    assert torch.equal(2 * seen.evidence.sigmoid(), peer.distance(peer.features(images[:2]), peer.features(images[2:])))
    assert list(seen.dates)[:2] == ["features", "features at 1/2"] and list(seen.both) == [LAST]


def test_sccn_shows_what_its_distance_compares(images: torch.Tensor) -> None:
    """Codes of each date by that date's own encoder, so that their L2 is the network's distance but for its scale."""
    peer = build_network(PeerArchitecture(method="sccn", width=4)).eval()
    seen = seen_by(peer, images)
    (codes,) = seen.dates.values()
    first, second = codes.detach().chunk(2)
    assert (first - second).norm(dim=1).numpy() == pytest.approx(seen.evidence.detach().numpy(), abs=1e-5)  # 2 / √4 = 1
    label = np.ones((2, SIDE, SIDE), dtype=np.uint8)
    before, after = grad_cam(peer, images, label, layer="features")
    assert max(before[0].max(), after[0].max()) == pytest.approx(1)


@pytest.mark.parametrize("method", ["fc-ef", "cdnet", "bidatenet", "fc-siam-conc", "fc-siam-diff", "bit"])
def test_a_network_of_scores_shows_what_its_last_layer_is_given(method: PeerMethod, images: torch.Tensor) -> None:
    peer = build_network(PeerArchitecture(method=method, width=4)).eval()
    assert isinstance(peer, SegmentationNetwork)
    with torch.no_grad():
        name, features = last_features(peer, images)
        assert name == LAST and features.shape[0] == 2 and features.shape[2:] == (SIDE, SIDE)
        unchanged, changed = peer.last_layer(features).unbind(1)
        assert torch.equal(changed - unchanged, peer.outputs(images)[0])
    if method in ("fc-ef", "cdnet"):
        assert list(seen_by(peer, images).dates) == ["the image, normalised"], "nothing is computed of one date alone"


@pytest.mark.parametrize(("method", "scale"), [("tinycd", 1), ("changemamba", 4)])
def test_so_does_one_of_one_score_and_one_that_decides_at_a_quarter(
    method: PeerMethod, scale: int, images: torch.Tensor
) -> None:
    torch.manual_seed(12)
    peer = build_network(PeerArchitecture(method=method, width=8)).eval()
    assert isinstance(peer, SegmentationNetwork)
    with torch.no_grad():
        _, features = last_features(peer, images)
        assert features.shape[0] == 2 and features.shape[2:] == (SIDE // scale, SIDE // scale)
        *unchanged, changed = peer.last_layer(features).unbind(1)
        evidence = changed - sum(unchanged)
        fine = F.interpolate(evidence[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0]
        torch.testing.assert_close(fine, peer.outputs(images)[0])
    names = list(seen_by(peer, images).layers)
    assert names[0] == "the image, normalised" and names[-2:] == [DEEPEST, LAST]
    found = grad_cam(peer, images, np.ones((2, SIDE, SIDE), dtype=np.uint8), layer=DEEPEST)
    assert len(found) == 1 and found[0].max() == pytest.approx(1)


@pytest.mark.parametrize("method", ["fc-ef", "fc-siam-diff"])
def test_grad_cam_of_scores_is_not_dark_where_the_network_is_sure(method: PeerMethod, images: torch.Tensor) -> None:
    """The derivative of log-odds, which a constant added to them leaves alone; a probability of 1 has none."""
    torch.manual_seed(11)
    peer = build_network(PeerArchitecture(method=method, width=4)).eval()
    assert isinstance(peer, SegmentationNetwork)
    label = np.ones((2, SIDE, SIDE), dtype=np.uint8)
    layer = list(seen_by(peer, images).dates)[-1] if peer.deepest is None else DEEPEST
    found = grad_cam(peer, images, label, layer=layer)
    assert len(found) == (2 if peer.deepest is None else 1)
    with torch.no_grad():
        peer.last_layer.bias[1] += 40.0  # type: ignore[index]
        assert (peer.distance(*peer.of_both_dates(images)) == 2).all()
    sure = grad_cam(peer, images, label, layer=layer)
    for one, other in zip(found, sure, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    assert max(one.max() for one in sure) == pytest.approx(1)


def test_grad_cam_is_the_score_s_derivative(network: DASNet, images: torch.Tensor) -> None:
    """The weight of a channel is what adding one constant to it adds to the score, by positions: by differences."""
    label = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    label[0, 10:40, 8:30] = 1
    before, after = grad_cam(network, images, label, layer="fused embedding")
    assert before[0].min() >= 0 and max(before[0].max(), after[0].max()) == pytest.approx(1)
    assert not before[1].any() and not after[1].any()  # nothing changed there
    a, b = seen_by(network, images).dates["fused embedding"].detach().double()[[0, 2]]

    def score(one: torch.Tensor, other: torch.Tensor) -> float:
        units = [x / x.norm(dim=0, keepdim=True) for x in (one, other)]
        distance = (units[0] - units[1]).norm(dim=0)
        fine = upsample(distance[None], height=SIDE, width=SIDE, stride=8)[0].numpy()
        return float(fine[label[0] == 1].mean())

    step = 1e-5
    weights = np.zeros((2, len(a)))
    for channel in range(len(a)):
        moved = torch.zeros_like(a)
        moved[channel] = step / a[0].numel()
        weights[0, channel] = score(a + moved, b) - score(a - moved, b)
        weights[1, channel] = score(a, b + moved) - score(a, b - moved)
    by_hand = [np.maximum(np.tensordot(w, date.numpy(), axes=1), 0) for w, date in zip(weights, (a, b), strict=True)]
    highest = max(by_hand[0].max(), by_hand[1].max())
    # in float32 the terms of the sum, nearly at right angles to the features, cancel each other
    assert before[0] == pytest.approx(by_hand[0] / highest, abs=0.02)
    assert after[0] == pytest.approx(by_hand[1] / highest, abs=0.02)


def test_attention_of_a_pixel_is_the_softmax_that_the_network_takes(network: DASNet, images: torch.Tensor) -> None:
    found = attention_of(network, images, row=20, column=41)
    assert found.shape == (4, 8, 8) and found.sum(axis=(1, 2)) == pytest.approx(np.ones(4), abs=1e-5)
    attention = network.head.sa
    with torch.no_grad():
        x = network.head.conv5a(network.backbone(images))
        value = attention.value_conv(x)  # type: ignore[operator,union-attr]
        attended = (attention(x) - x) / attention.gamma  # type: ignore[operator]
    by_hand = np.einsum("bhw,bchw->bc", found, value.numpy())
    assert by_hand == pytest.approx(attended[:, :, 2, 5].numpy(), abs=1e-4)
    with pytest.raises(PredictorError, match=r"pixel 64, 0 lies outside samples of 64 × 64 px"):
        attention_of(network, images, row=64, column=0)
    plain = build_network(Architecture(backbone="mobilenet_v3", head_channels=16, attention="channel"))
    with pytest.raises(PredictorError, match="only a DASNet with spatial attention"):
        attention_of(plain, images, row=0, column=0)


def test_features_are_read_where_the_label_is() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 2, 4, 4)
    label = np.full((1, 16, 16), 255, dtype=np.uint8)
    label[0, 4, 8], label[0, 12, 0], label[0, 1, 1] = 1, 0, 1  # the last lies between two positions
    vectors, changed = labelled_vectors(features, label, most=5, seed=0)
    assert sorted(zip(changed.tolist(), vectors[:, 0].tolist(), strict=True)) == [(False, 12.0), (True, 6.0)]


def test_t_sne_tells_two_clouds_apart() -> None:
    random = np.random.default_rng(0)
    vectors = np.concatenate([random.normal(0, 0.1, (20, 5)), random.normal(5, 0.1, (20, 5))]).astype(np.float32)
    plane = embedded_in_a_plane(vectors, seed=0)
    one, other = plane[:20].mean(axis=0), plane[20:].mean(axis=0)
    assert all((np.linalg.norm(p - one) < np.linalg.norm(p - other)) == (n < 20) for n, p in enumerate(plane))


def test_t_sne_of_one_channel() -> None:
    """FC-EF on one band: PCA, which starts it elsewhere, has no two components there."""
    random = np.random.default_rng(0)
    plane = embedded_in_a_plane(random.normal(0, 1, (12, 1)).astype(np.float32), seed=0)
    assert plane.shape == (12, 2) and np.isfinite(plane).all()


@pytest.mark.parametrize(
    ("pixels", "positions", "apart"),
    [(256, 32, 8), (256, 33, 8), (96, 13, 8), (96, 12, 8), (32, 5, 8), (96, 48, 2), (96, 49, 2), (96, 96, 1)],
)
def test_positions_are_a_power_of_two_apart_with_or_without_one_on_the_edge(
    pixels: int, positions: int, apart: int
) -> None:
    assert spacing(pixels, positions) == apart


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("operation", list(STRENGTHS))
def test_pseudo_changes_grow_with_their_strength(operation: str, dtype: str) -> None:
    random = np.random.default_rng(4)
    highest = {"uint8": 255, "uint16": 65535, "float32": 1.0}[dtype]
    slope = np.linspace(0.2, 0.6, 32)  # further is more different
    ground = np.stack([slope[:, None] + 0.1 * slope, 0.1 * slope[:, None] + slope, (slope[:, None] + slope) / 2])
    before = after = (ground * highest).astype(dtype)
    valid = np.ones((2, 32, 32), dtype=bool)
    label = random.integers(0, 2, (32, 32)).astype(np.uint8)
    moved = []
    for strength in STRENGTHS[operation]:
        one, other, known, truth = pseudo_changed(
            (before, after, valid, label), operation=operation, strength=strength, seed=5
        )
        assert one.dtype == other.dtype == np.dtype(dtype) and one.shape == before.shape
        assert np.array_equal(truth[known.all(axis=0)], label[known.all(axis=0)])
        assert (truth[~known.all(axis=0)] == 255).all()
        apart = np.abs(other.astype(float) - after)[:, known[1]].mean() / highest
        moved.append(apart + np.abs(one.astype(float) - before).mean() / highest)
    assert moved[0] == 0 and moved == sorted(moved) and moved[1] > 0
    assert operation in AXES


def test_gain_is_one_factor_a_date() -> None:
    random = np.random.default_rng(6)
    before, after = random.integers(30, 190, (2, 3, 16, 16)).astype(np.uint8)
    valid, label = np.ones((2, 16, 16), dtype=bool), np.zeros((16, 16), dtype=np.uint8)
    one, other, _, _ = pseudo_changed((before, after, valid, label), operation="gain", strength=0.3, seed=9)
    other_ratio = other.astype(float) / after
    assert other_ratio.std() < 0.02 and abs(other_ratio.mean() - 1) <= 0.3
    ratio = one.astype(float) / before
    assert ratio.std() < 0.02 and abs(ratio.mean() - 1) <= 0.3
    assert abs(ratio.mean() - other_ratio.mean()) > 0.02, "each date has its own"
    weaker, _, _, _ = pseudo_changed((before, after, valid, label), operation="gain", strength=0.15, seed=9)
    assert weaker.astype(float).sum() / before.sum() - 1 == pytest.approx((ratio.mean() - 1) / 2, abs=0.01)
