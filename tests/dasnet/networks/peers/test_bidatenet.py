"""BiDateNet: its size, and its convolutional LSTM against the equations written out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.bidatenet import BiDateNet, ConvolutionalLSTM


def test_parameters_are_as_many_as_published() -> None:
    """8.45 M for three bands in comparisons (Lin et al. 2022, of its later variant); exactly, by its description."""

    def convolution(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs + 2 * outputs  # with normalisation

    channels = [16, 32, 64, 128, 256]
    expected = sum(convolution(a, b) + convolution(b, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
    expected += sum(4 * (9 * 2 * c * c + c) for c in channels)  # four gates, each of input and state
    expected += sum(convolution(2 * c, c) + convolution(2 * c, c) + convolution(c, c) for c in channels[:-1])
    expected += 16 * 2 + 2
    network = build_network(PeerArchitecture(method="bidatenet", width=16))
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == expected and round(counted / 1e6, 2) == 8.45


def convolved(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """3×3 convolution with zeros around, by loops: (C, h, w) and (K, C, 3, 3) to (K, h, w)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), *x.shape[1:]))
    for k in range(len(weight)):
        for row in range(x.shape[1]):
            for col in range(x.shape[2]):
                out[k, row, col] = (weight[k] * padded[:, row : row + 3, col : col + 3]).sum() + bias[k]
    return out


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def test_the_lstm_is_its_equations() -> None:
    """Shi et al. 2015 without peepholes: gates from input and state, a cell that forgets and takes in."""
    torch.manual_seed(3)
    channels = 2
    lstm = ConvolutionalLSTM(channels).double()
    dates = [torch.randn(1, channels, 4, 5, dtype=torch.float64) for _ in range(3)]
    weight, bias = lstm.gates.weight.detach().numpy(), lstm.gates.bias.detach().numpy()  # type: ignore[union-attr]
    hidden = cell = np.zeros((channels, 4, 5))
    for date in dates:
        given = np.concatenate([date[0].numpy(), hidden])
        entry, forget, out, candidate = (
            convolved(given, weight[k * channels : (k + 1) * channels], bias[k * channels : (k + 1) * channels])
            for k in range(4)
        )
        cell = sigmoid(forget) * cell + sigmoid(entry) * np.tanh(candidate)
        hidden = sigmoid(out) * np.tanh(cell)
    np.testing.assert_allclose(lstm(tuple(dates)).detach().numpy()[0], hidden, atol=1e-12)


def test_every_resolution_remembers_both_dates() -> None:
    torch.manual_seed(4)
    network = build_network(PeerArchitecture(method="bidatenet", width=8)).eval()
    assert isinstance(network, BiDateNet)
    seen: list[tuple[torch.Tensor, ...]] = []
    for memory in network.memory:
        memory.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    before, after = torch.randn(2, 1, 3, 32, 32)
    a, b = network.features(before), network.features(after)
    distance = network.distance(a, b)
    assert len(seen) == 5
    for level, (first, second) in enumerate(seen):
        assert torch.equal(first, a[level]) and torch.equal(second, b[level])
        assert first.shape[1:] == (8 * 2**level, 32 // 2**level, 32 // 2**level)
    assert not torch.equal(network.distance(b, a), distance)
