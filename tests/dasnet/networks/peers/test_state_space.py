"""State-space layers: the recurrence step by step, the scan and its four orders written out by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.peers.state_space import (
    Scan,
    StateSpaceBlock,
    back_in_place,
    by_rows_and_columns,
    recurrence,
    selective_scan,
)

Array = NDArray[np.float64]


def step_by_step(decay: Array, entry: Array) -> Array:
    """h_t = decay_t · h_{t−1} + entry_t along the first axis."""
    state, states = np.zeros_like(entry[0]), []
    for kept, new in zip(decay, entry, strict=True):
        state = kept * state + new
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 65, 1000])
def test_chunks_at_once_are_the_recurrence_step_by_step(length: int) -> None:
    random = np.random.default_rng(length)
    decay, entry = random.uniform(0, 1.2 if length < 100 else 1, (length, 2, 3)), random.normal(size=(length, 2, 3))
    found = recurrence(torch.from_numpy(decay)[None], torch.from_numpy(entry)[None])
    np.testing.assert_allclose(found[0].numpy(), step_by_step(decay, entry), rtol=1e-9, atol=1e-12)
    found = recurrence(torch.from_numpy(decay)[None], torch.from_numpy(entry)[None], backwards=True)
    expected = step_by_step(decay[::-1], entry[::-1])[::-1]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_state_is_kept_over_any_distance_and_forgotten_at_once() -> None:
    """Products of decays of 1 and of 0, which logarithms of them would not survive."""
    decay, entry = torch.ones(1, 5000, 1), torch.zeros(1, 5000, 1)
    entry[0, 0], entry[0, 4000] = 3.0, -1.0
    decay[0, 4900] = 0.0
    found = recurrence(decay, entry)[0, :, 0]
    assert (found[:4000] == 3).all() and (found[4000:4900] == 2).all() and (found[4900:] == 0).all()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("length", [1, 5, 9])
def test_its_gradient_is_that_of_finite_differences(length: int, backwards: bool) -> None:
    torch.manual_seed(1)
    decay = torch.rand(2, length, 3, dtype=torch.float64, requires_grad=True)
    entry = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(recurrence, (decay, entry, backwards))
    torch.library.opcheck(recurrence, (decay, entry, backwards))  # what torch.compile believes of it


def test_no_number_depends_on_the_batch() -> None:
    torch.manual_seed(2)
    decay, entry = torch.rand(5, 200, 4, 6), torch.randn(5, 200, 4, 6)
    together = recurrence(decay, entry)
    assert torch.equal(recurrence(decay[3:4], entry[3:4]), together[3:4])


def test_the_orders_are_rows_and_columns() -> None:
    numbers = torch.arange(6.0).view(1, 2, 3, 1)  # 0 1 2 over 3 4 5
    orders = by_rows_and_columns(numbers)
    assert orders[0, :, :, 0].T.tolist() == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]]
    assert torch.equal(back_in_place(orders, height=2, width=3), 2 * numbers)


def test_a_selective_scan_is_its_equations() -> None:
    """Gu and Dao 2023, algorithm 2, discretised as there for A and by Δ · B for B, each channel by itself."""
    random = np.random.default_rng(3)
    length, orders, channels = 7, 2, 3
    x, step = random.normal(size=(length, orders, channels)), random.uniform(0.1, 2, (length, orders, channels))
    enter, leave = random.normal(size=(2, length, orders, 1))
    rate, skip = -random.uniform(0.1, 3, (orders, channels)), random.normal(size=(orders, channels))
    expected = np.zeros_like(x)
    for k in range(orders):
        for d in range(channels):
            state = 0.0
            for t in range(length):
                state = np.exp(step[t, k, d] * rate[k, d]) * state + step[t, k, d] * enter[t, k, 0] * x[t, k, d]
                expected[t, k, d] = leave[t, k, 0] * state + skip[k, d] * x[t, k, d]
    tensors = {name: torch.from_numpy(value) for name, value in (("rate", rate), ("skip", skip))}
    tensors |= {name: torch.from_numpy(value)[None] for name, value in (("enter", enter), ("leave", leave))}
    found = selective_scan(torch.from_numpy(x)[None], torch.from_numpy(step)[None], **tensors)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_scan_of_an_image_is_written_out() -> None:
    """VMamba's SS2D: projected, 3×3 by channel, SiLU, a scan along four paths, their sum normalised, projected."""
    torch.manual_seed(4)
    channels, height, width = 3, 4, 5
    scan = Scan(channels)
    for name in ("log_rate", "skip"):
        getattr(scan, name).data.normal_()
    scan.norm.weight.data.normal_(), scan.norm.bias.data.normal_()
    weights = {name: value.double().numpy() for name, value in scan.state_dict().items()}
    image = np.random.default_rng(5).normal(size=(height, width, channels))

    x = image @ weights["into.weight"].T
    kernels = weights["convolution.weight"][:, 0]
    x = np.stack([correlate(x[..., d], kernels[d], mode="constant") for d in range(x.shape[-1])], axis=-1)
    x = x / (1 + np.exp(-x))
    rows = [(row, column) for row in range(height) for column in range(width)]
    columns = [(row, column) for column in range(width) for row in range(height)]
    y = np.zeros_like(x)
    for k, path in enumerate([rows, columns, rows[::-1], columns[::-1]]):
        rate = -np.exp(weights["log_rate"].reshape(4, -1)[k])
        state = np.zeros(x.shape[-1])
        for place in path:
            *low, enter, leave = weights["selection"][k] @ x[place]
            step = np.log1p(np.exp(weights["step_weight"][k] @ low + weights["step_bias"][k]))
            state = np.exp(step * rate) * state + step * enter * x[place]
            y[place] += leave * state + weights["skip"].reshape(4, -1)[k] * x[place]
    centred = y - y.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    expected = (normal * weights["norm.weight"] + weights["norm.bias"]) @ weights["out.weight"].T
    found = scan(torch.from_numpy(image).float()[None])[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_scans_begin_with_steps_between_a_thousandth_and_a_tenth() -> None:
    torch.manual_seed(6)
    steps = F.softplus(Scan(32).step_bias.detach())
    assert 9.9e-4 < steps.min() < 3e-3 and 0.03 < steps.max() < 0.1001


def test_a_branch_is_left_out_of_whole_images_in_training_alone() -> None:
    torch.manual_seed(7)
    block = StateSpaceBlock(4)
    block.depth.p, block.second_depth.p = 0.5, 0.0
    block.by_position[2].weight.data.zero_(), block.by_position[2].bias.data.zero_()
    image = torch.randn(1, 3, 3, 4)
    branch = block.eval()(image) - image
    assert branch.abs().max() > 1e-3
    trained = block.train()(image.expand(400, -1, -1, -1)) - image
    kept = trained.flatten(1).any(dim=1)
    assert 150 < kept.sum() < 250
    torch.testing.assert_close(trained[kept], 2 * branch.expand(int(kept.sum()), -1, -1, -1), atol=1e-5, rtol=1e-4)
