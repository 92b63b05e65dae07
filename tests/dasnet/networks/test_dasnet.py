"""Attention, embeddings, distances and their way back to pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from dasnet.networks.architectures import Architecture
from dasnet.networks.attention import ChannelAttention, SpatialAttention
from dasnet.networks.dasnet import DASNet
from dasnet.networks.decoder import upsample
from dasnet.prediction.bundle import build_model, random_bundle

LIGHT = Architecture(backbone="mobilenet_v3")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("channels", [8, 64, 512])
def test_spatial_attention_is_the_papers_formula(channels: int) -> None:
    torch.manual_seed(0)
    module, x = SpatialAttention(channels), torch.randn(2, channels, 5, 7)
    torch.nn.init.constant_(module.gamma, 0.7)
    with torch.inference_mode():
        got = module(x).numpy()
        query, key, value = (conv(x).numpy() for conv in (module.query_conv, module.key_conv, module.value_conv))
    for b in range(2):
        q, k, v = (array[b].reshape(array.shape[1], -1).astype(np.float64) for array in (query, key, value))
        attended = (softmax(q.T @ k) @ v.T).T.reshape(channels, 5, 7)
        np.testing.assert_allclose(got[b], 0.7 * attended + x[b].numpy(), atol=1e-5)


@pytest.mark.parametrize("channels", [64, 128, 512])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_spatial_attention_never_holds_a_matrix_of_all_positions(channels: int, layout: torch.memory_format) -> None:
    module, x = SpatialAttention(channels), torch.randn(2, channels, 8, 8).contiguous(memory_format=layout)
    with torch.inference_mode(), sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        module(x)  # raises where only the kernel with the matrix would fit


def test_channel_attention_is_the_authors_formula() -> None:
    torch.manual_seed(0)
    module, x = ChannelAttention(), torch.randn(2, 6, 4, 5)
    torch.nn.init.constant_(module.gamma, 0.3)
    with torch.inference_mode():
        got = module(x).numpy()
    for b in range(2):
        f = x[b].numpy().reshape(6, -1).astype(np.float64)
        energy = f @ f.T
        attended = (softmax(energy.max(axis=1, keepdims=True) - energy) @ f).reshape(6, 4, 5)
        np.testing.assert_allclose(got[b], 0.3 * attended + x[b].numpy(), atol=1e-5)


def test_channel_attention_is_float32_in_a_training_in_bfloat16_too() -> None:
    """Autocast would take its products in bfloat16, whose steps at such energies are larger than the differences."""
    torch.manual_seed(0)
    module, x = ChannelAttention(), 3 * torch.randn(1, 24, 32, 32)
    torch.nn.init.constant_(module.gamma, 0.3)
    with torch.inference_mode():
        expected = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = module(x)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_a_new_network_starts_without_attention() -> None:
    torch.manual_seed(0)
    attentive = DASNet(LIGHT).eval()
    plain = DASNet(replace(LIGHT, attention="none")).eval()
    plain.load_state_dict({k: v for k, v in attentive.state_dict().items() if ".sa." not in k and ".sc." not in k})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(attentive.embed(x), plain.embed(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["none", "spatial", "channel", "both"])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_embeddings_have_length_one_and_distances_lie_in_0_to_2(attention: Any, distance: Any) -> None:
    model = build_model(random_bundle(replace(LIGHT, attention=attention, distance=distance)))
    x, y = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        a, b = model.embed(x), model.embed(y)
        for embedding in (*a, *b):
            torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, 8, 8))
        assert torch.equal(model.embed_fused(x), a.fused)
        for one, other, got in zip(a, b, model(x, y), strict=True):
            cosine = (one * other).sum(dim=1)
            expected = 1 - cosine if distance == "cosine" else (2 - 2 * cosine).clamp(min=0).sqrt()
            torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
            assert got.shape == (2, 8, 8)
            assert got.min() >= -1e-6
            assert got.max() <= 2 + 1e-6
        torch.testing.assert_close(model(x, x).fused, torch.zeros(2, 8, 8), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("decoder", "stride"), [("half", 2), ("full", 1)])
@pytest.mark.parametrize("backbone", ["mobilenet_v3", "vgg16", "resnet50"])
def test_a_decoder_puts_the_fused_embedding_onto_finer_positions(backbone: Any, decoder: Any, stride: int) -> None:
    architecture = Architecture(backbone=backbone, head_channels=64, decoder=decoder)
    assert architecture.strides == (8, 8, stride)
    model = build_model(random_bundle(architecture))
    x, y = torch.randn(2, 3, 64, 80), torch.randn(2, 3, 64, 80)
    with torch.inference_mode():
        spatial, channel, fused = model(x, y)
        assert torch.equal(model.embed_fused(x), model.embed(x).fused)
    beyond = 1 if stride == 2 and backbone == "vgg16" else 0  # its pools keep one position more
    assert fused.shape[-2:] == (64 // stride + beyond, 80 // stride + beyond)
    assert spatial.shape == channel.shape and spatial.shape[-2:] in {(8, 10), (9, 11)}
    assert ((fused >= 0) & (fused <= 2 + 1e-6)).all()


def test_gradients_stay_finite_where_the_dates_are_equal() -> None:
    model, x = DASNet(LIGHT), torch.randn(2, 3, 32, 32)
    model(x, x).fused.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    stride=st.sampled_from([1, 2, 8]),
    less=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    seed=st.integers(0, 99),
)
def test_upsampling_puts_position_i_at_pixel_stride_times_i(
    rows: int, cols: int, stride: int, less: tuple[int, int], seed: int
) -> None:
    height, width = stride * rows - less[0] % stride, stride * cols - less[1] % stride
    d = np.random.default_rng(seed).random((rows, cols))
    fine = np.stack([np.interp(np.arange(width) / stride, np.arange(cols), line) for line in d])
    fine = np.stack([np.interp(np.arange(height) / stride, np.arange(rows), line) for line in fine.T], axis=1)
    got = upsample(torch.from_numpy(d)[None], height=height, width=width, stride=stride)[0].numpy()
    np.testing.assert_allclose(got, fine, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "resnet18"}, "resnet18"),
        ({"attention": "all"}, "none, spatial, channel, both"),
        ({"distance": "l1"}, "l2, cosine"),
        ({"decoder": "light"}, "none, half, full"),
        ({"in_bands": 0}, "in_bands must be 1 or more, not 0"),
        ({"head_channels": 12}, "not 12"),
        ({"head_channels": 264}, "not 264"),
    ],
)
def test_an_impossible_architecture_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**{"backbone": "resnet50", **values})


def test_an_architecture_survives_its_dictionary() -> None:
    architecture = Architecture(backbone="vgg16", in_bands=6, attention="channel", distance="cosine")
    assert architecture.head_channels == 128
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    with pytest.raises(ValueError, match="depth"):
        Architecture.from_dict({**architecture.to_dict(), "depth": 3})


def test_a_learned_distance_is_twice_the_probability_of_its_log_odds() -> None:
    torch.manual_seed(0)
    network = DASNet(Architecture(backbone="mobilenet_v3", distance="learned", decoder="half")).eval()
    images = torch.randn(4, 3, 64, 64)
    before, after = images.chunk(2)
    with torch.inference_mode():
        log_odds, distances = network.outputs(images), network(before, after)
        alone = network.distance(network.features(before), network.features(after))
    for logit, distance in zip(log_odds, distances, strict=True):
        torch.testing.assert_close(2 / (1 + torch.exp(-logit)), distance)
    torch.testing.assert_close(alone, distances.fused)
    assert float(network.distance(network.features(before), network.features(before)).std()) < 1e-6, "no difference"
