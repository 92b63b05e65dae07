"""BIT: its size, its encoder against torchvision's, its tokens and attention written out by numpy."""

from __future__ import annotations

import numpy as np
import torch

from dasnet.networks._torchvision import models
from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.bit import BIT, Encoder, Layer, Tokenizer


def network(width: int = 4, bands: int = 3) -> BIT:
    built = build_network(PeerArchitecture(method="bit", width=width, in_bands=bands)).eval()
    assert isinstance(built, BIT)
    return built


def test_parameters_are_as_many_as_published() -> None:
    """3.55 M in the paper; what takes part in the authors' code, exactly, by the description of its layers."""

    def convolution(inputs: int, outputs: int, side: int) -> int:
        return side**2 * inputs * outputs + 2 * outputs  # with normalisation, without bias

    def stage(inputs: int, outputs: int) -> int:
        shortcut = convolution(inputs, outputs, 1) if inputs != outputs else 0
        return convolution(inputs, outputs, 3) + 3 * convolution(outputs, outputs, 3) + shortcut

    encoder = convolution(3, 64, 7) + stage(64, 64) + stage(64, 128) + stage(128, 256)
    attention = 3 * 32 * 512 + 512 * 32 + 32
    layer = attention + 2 * 64 + 32 * 64 + 64 + 64 * 32 + 32
    head = 9 * 256 * 32 + 32 + 32 * 4 + 8 * 32 + 9 * 32 * 32 + 64 + 9 * 32 * 2 + 2
    counted = sum(parameter.numel() for parameter in network(width=32).parameters())
    assert counted == encoder + 9 * layer + head == 3_495_778


def test_the_encoder_is_torchvisions_resnet18_but_for_its_last_strides() -> None:
    torch.manual_seed(1)
    theirs = models.resnet18(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    for convolution in (theirs.layer3[0].conv1, theirs.layer3[0].downsample[0]):
        convolution.stride = (1, 1)
    ours = Encoder(3, 64).eval()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()})
    images = torch.randn(2, 3, 70, 45)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    expected = theirs.layer3(theirs.layer2(theirs.layer1(expected)))
    torch.testing.assert_close(ours(images), expected)


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_tokens_are_means_weighed_by_attention() -> None:
    """Eq. (1) of the paper: the softmax over all positions of a 1×1 convolution weighs the features."""
    torch.manual_seed(2)
    tokenizer, x = Tokenizer(5).double(), torch.randn(1, 5, 3, 4, dtype=torch.float64)
    positions = x[0].numpy().reshape(5, 12)
    weights = softmax(tokenizer.attention.weight.detach().numpy()[:, :, 0, 0] @ positions)
    np.testing.assert_allclose(tokenizer(x)[0].detach().numpy(), weights @ positions.T, rtol=1e-10)
    flat = torch.full((1, 5, 3, 4), 2.5, dtype=torch.float64)
    np.testing.assert_allclose(tokenizer(flat)[0].detach().numpy(), 2.5)


def test_a_layer_is_its_equations() -> None:
    """Normalised before attention of eight heads and before the linear layers, each added to what came in."""
    torch.manual_seed(3)
    channels, heads = 4, 8
    layer = Layer(channels).double()
    for parameter in layer.parameters():
        parameter.data.normal_()
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}

    def normal(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    random = np.random.default_rng(4)
    read, tokens = random.normal(size=(6, channels)), random.normal(size=(3, channels))
    own, seen = normal(read, "norm"), normal(tokens, "norm")
    side, attended = 2 * channels, []
    for head in range(heads):
        part = slice(head * side, (head + 1) * side)
        query, key = own @ weights["query.weight"][part].T, seen @ weights["key.weight"][part].T
        attended.append(softmax(query @ key.T / np.sqrt(channels)) @ (seen @ weights["value.weight"][part].T))
    x = read + np.concatenate(attended, axis=1) @ weights["out.weight"].T + weights["out.bias"]
    inner = normal(x, "last_norm") @ weights["last.0.weight"].T + weights["last.0.bias"]
    inner = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
    expected = x + inner @ weights["last.2.weight"].T + weights["last.2.bias"]
    found = layer(torch.from_numpy(read)[None], torch.from_numpy(tokens)[None])[0]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9)


def test_the_order_of_the_dates_matters_by_the_places_of_tokens_alone() -> None:
    torch.manual_seed(5)
    built = network()
    before, after = (built.features(date) for date in torch.randn(2, 1, 3, 64, 64))
    assert not torch.allclose(built.logit(before, after), built.logit(after, before), atol=1e-5)
    first = built.places.data[:, :4]
    built.places.data = torch.cat([first, first], dim=1)
    torch.testing.assert_close(built.logit(before, after), built.logit(after, before))


def test_each_date_is_refined_by_what_the_other_holds() -> None:
    """A pixel of the first date far away from a position moves what the second date's position becomes."""
    torch.manual_seed(6)
    built = network()
    before = torch.randn(1, 3, 128, 128, requires_grad=True)
    (image, x), after = built.features(before), built.features(torch.randn(1, 3, 128, 128))
    built.logit((image, x), after)[0, 0, 0].backward()
    assert before.grad is not None and before.grad[0, :, -8:, -8:].abs().max() > 0


def test_what_lies_beyond_the_image_is_cut_off() -> None:
    torch.manual_seed(7)
    built = network()
    images = torch.randn(2, 3, 61, 42)
    (logit,) = built.outputs(images)
    assert logit.shape == (1, 61, 42) and built.features(images)[1].shape == (2, 4, 16, 12)


def test_every_weight_learns_but_one_that_both_dates_have_alike() -> None:
    torch.manual_seed(8)
    built = network(bands=4).train()
    built.outputs(torch.randn(4, 4, 64, 64))[0].square().mean().backward()
    still = [name for name, p in built.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == ["refining.7.last.2.bias"]  # added to both dates last, and gone in their difference
