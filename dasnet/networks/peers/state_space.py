"""State-space layers on images: what a position keeps of all positions that were read before it, in four orders.

Source: Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", algorithm 2, and Liu et al.
2024, "VMamba: visual state space model", whose block this is, in the form that ChangeMamba's configurations have: one
number of state a channel, no gate, no bias in the projections.

Legend of shapes: B images, (h, w) positions, L = h · w of them in the order they are read, K = 4 orders, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_ORDERS = 4
_RATIO = 2  # channels inside a scan, times those outside
_DROPOUT = 0.1
_STEPS = (1e-3, 0.1)
"""Smallest and largest step Δ that a scan starts training with."""


@torch.library.custom_op("dasnet::recurrence", mutates_args=())
def recurrence(decay: Tensor, entry: Tensor) -> Tensor:
    """h with h_t = decay_t · h_{t−1} + entry_t along the second axis, from h = 0: twice (B, L, …) to (B, L, …).

    All chunks of some √L positions go on at once, each from zero; then what each chunk ends with is carried into the
    next. Only products of decays are formed, so that nothing overflows whatever they are. Each number is computed
    by itself, so that it does not depend on the batch. An operator of its own: torch.compile would unroll its loops.
    """
    length = entry.shape[1]
    steps = max(math.isqrt(length), 1)
    missing = -length % steps
    if missing:
        end = entry.new_zeros((len(entry), missing, *entry.shape[2:]))
        decay, entry = torch.cat([decay, end], dim=1), torch.cat([entry, end], dim=1)
    state = entry.unflatten(1, (-1, steps)).clone()  # (B, chunks, steps, …)
    kept = decay.unflatten(1, (-1, steps)).clone()  # of what the chunk began with
    each = decay.unflatten(1, (-1, steps))
    for step in range(1, steps):
        state[:, :, step].addcmul_(each[:, :, step], state[:, :, step - 1])
        kept[:, :, step].mul_(kept[:, :, step - 1])
    carried = torch.zeros_like(state[:, :, 0])
    for chunk in range(1, carried.shape[1]):
        torch.addcmul(state[:, chunk - 1, -1], kept[:, chunk - 1, -1], carried[:, chunk - 1], out=carried[:, chunk])
    return state.addcmul_(kept, carried[:, :, None]).flatten(1, 2)[:, :length].contiguous()


@recurrence.register_fake
def _(decay: Tensor, entry: Tensor) -> Tensor:
    return torch.empty_like(entry, memory_format=torch.contiguous_format)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _gradients(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The same recurrence from the end: h_t has its own part in the result, and decay_{t+1} of that of h_{t+1}."""
    decay, state = ctx.saved_tensors  # type: ignore[attr-defined]
    none = torch.zeros_like(decay[:, :1])
    following = torch.cat([decay[:, 1:], none], dim=1)
    entry = recurrence(following.flip(1), gradient.flip(1)).flip(1)
    return entry * torch.cat([none, state[:, :-1]], dim=1), entry


recurrence.register_autograd(_gradients, setup_context=_keep)


def selective_scan(x: Tensor, step: Tensor, *, rate: Tensor, enter: Tensor, leave: Tensor, skip: Tensor) -> Tensor:
    """y_t = leave_t · h_t + skip · x_t with h_t = exp(step_t · rate) · h_{t−1} + step_t · enter_t · x_t, in float32.

    Args:
        x: (B, L, K, D) what is read; `step`: Δ, of the same shape, positive.
        rate: A, (K, D), negative.
        enter, leave: B and C, (B, L, K, 1): of every position, for all channels.
        skip: D of the paper, (K, D).

    Returns:
        (B, L, K, D) float32.
    """
    x, step, enter, leave = (each.float() for each in (x, step, enter, leave))
    state = recurrence(torch.exp(step * rate.float()), step * enter * x)
    return leave * state + skip.float() * x


def in_four_orders(x: Tensor) -> Tensor:
    """(B, h, w, …) read by rows, by columns, and both from the end: (B, L, 4, …)."""
    by_rows, by_columns = x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)
    return torch.stack([by_rows, by_columns, by_rows.flip(1), by_columns.flip(1)], dim=2)


def back_in_place(y: Tensor, *, height: int, width: int) -> Tensor:
    """Sum of what the four orders say of each position: (B, L, 4, D) to (B, height, width, D)."""
    by_rows = y[:, :, 0] + y[:, :, 2].flip(1)
    by_columns = y[:, :, 1] + y[:, :, 3].flip(1)
    return by_rows.unflatten(1, (height, width)) + by_columns.unflatten(1, (width, height)).transpose(1, 2)


class Scan(nn.Module):
    """A selective scan of an image in four orders, between two projections."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, self.rank = _RATIO * channels, math.ceil(channels / 16)
        spread = self.rank**-0.5
        low, high = (math.log(step) for step in _STEPS)
        steps = torch.exp(torch.rand(_ORDERS, inner) * (high - low) + low)
        bound = inner**-0.5
        self.selection = nn.Parameter(torch.empty(_ORDERS, self.rank + 2, inner).uniform_(-bound, bound))
        self.step_weight = nn.Parameter(torch.empty(_ORDERS, inner, self.rank).uniform_(-spread, spread))
        self.step_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus makes `steps` of it
        self.log_rate = nn.Parameter(torch.zeros(_ORDERS * inner, 1))
        self.skip = nn.Parameter(torch.ones(_ORDERS * inner))
        self.norm = nn.LayerNorm(inner)
        self.into = nn.Linear(channels, inner, bias=False)
        self.convolution = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.out = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, channels) to the same shape."""
        height, width = x.shape[1:3]
        x = F.silu(self.convolution(self.into(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        # what selects is a matter of each position alone, so that it is computed once and then put in order
        chosen = torch.einsum("bhwd,krd->bhwkr", x, self.selection)
        step = torch.einsum("bhwkr,kdr->bhwkd", chosen[..., : self.rank], self.step_weight)
        read = in_four_orders(x)
        ordered_step, enter, leave = (
            _own_order(each) for each in (step, chosen[..., self.rank, None], chosen[..., self.rank + 1, None])
        )
        y = selective_scan(
            read,
            F.softplus(ordered_step.float() + self.step_bias.float()),
            rate=-torch.exp(self.log_rate.float()).view(_ORDERS, -1),
            enter=enter,
            leave=leave,
            skip=self.skip.view(_ORDERS, -1),
        )
        y = back_in_place(y, height=height, width=width).to(x.dtype)
        return self.out(self.norm(y))


class StateSpaceBlock(nn.Module):
    """A scan, then two linear layers at each position, each normalised first and added to its input.

    In training either is left out for some images, as the share that dropout drops says (stochastic depth).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scan = Scan(channels)
        self.second_norm = nn.LayerNorm(channels)
        self.by_position = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.depth, self.second_depth = nn.Dropout(_DROPOUT), nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, channels) to the same shape."""
        x = x + self._thinned(self.scan(self.norm(x)), self.depth)
        return x + self._thinned(self.by_position(self.second_norm(x)), self.second_depth)

    def _thinned(self, branch: Tensor, dropout: nn.Module) -> Tensor:
        """The branch without the images that dropout drops, the others enlarged accordingly."""
        return branch * dropout(branch.new_ones((len(branch), 1, 1, 1))) if self.training else branch


def _own_order(x: Tensor) -> Tensor:
    """(B, h, w, 4, …), each of the four in an order of its own: (B, L, 4, …)."""
    rows, columns, rows_back, columns_back = x.unbind(3)
    return torch.stack(
        [
            rows.flatten(1, 2),
            columns.transpose(1, 2).flatten(1, 2),
            rows_back.flatten(1, 2).flip(1),
            columns_back.transpose(1, 2).flatten(1, 2).flip(1),
        ],
        dim=2,
    )
