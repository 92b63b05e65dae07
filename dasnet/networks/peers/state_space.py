"""State-space layers on images: what a position keeps of all positions that were read before it, in four orders.

Source: Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", algorithm 2, and Liu et al.
2024, "VMamba: visual state space model", whose block this is, in the form that ChangeMamba's configurations have: one
number of state a channel, no gate, no bias in the projections.

Legend of shapes: B images, (h, w) positions, L = h · w of them in the order they are read, K orders, D channels.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_ORDERS = 4
_RATIO = 2  # channels inside a scan, times those outside
_DROPOUT = 0.1
_STEPS = (1e-3, 0.1)
"""Smallest and largest step Δ that a scan starts training with."""


@torch.library.custom_op("dasnet::recurrence", mutates_args=())
def recurrence(decay: Tensor, entry: Tensor, backwards: bool = False) -> Tensor:
    """h_t = decay_t · h_{t−1} + entry_t along the second axis, or h_{t+1} where it goes backwards; it starts from 0.

    All chunks of some √L positions go on at once, each from zero; then what each chunk ends with is carried into the
    next. Only products of decays are formed, so that nothing overflows whatever they are. Each number is computed
    by itself, so that it does not depend on the batch. An operator of its own: torch.compile would unroll its loops.

    Args:
        decay, entry: (B, L, …) each.

    Returns:
        The same shape.
    """
    length = entry.shape[1]
    steps = _chunk(length)
    if missing := -length % steps:
        end = entry.new_zeros((len(entry), missing, *entry.shape[2:]))
        decay, entry = torch.cat([decay, end], dim=1), torch.cat([entry, end], dim=1)
    each = decay.unflatten(1, (-1, steps))  # (B, chunks, steps, …)
    state = torch.clone(entry.unflatten(1, (-1, steps)), memory_format=torch.contiguous_format)
    kept = torch.clone(each, memory_format=torch.contiguous_format)  # of what the chunk began with
    carried = torch.zeros_like(state[:, :, 0])
    way, chunks = range(steps), range(carried.shape[1])
    if backwards:
        way, chunks = way[::-1], chunks[::-1]
    for last, step in pairwise(way):
        state[:, :, step].addcmul_(each[:, :, step], state[:, :, last])
        kept[:, :, step].mul_(kept[:, :, last])
    end_of_chunk = way[-1]
    for last, chunk in pairwise(chunks):
        ended, left = state[:, last, end_of_chunk], kept[:, last, end_of_chunk]
        torch.addcmul(ended, left, carried[:, last], out=carried[:, chunk])
    state = state.addcmul_(kept, carried[:, :, None]).flatten(1, 2)
    return state[:, :length].contiguous() if missing else state


def _chunk(length: int) -> int:
    """How many positions go on one after the other: about √L, and a divisor of L where there is one near."""
    root = max(math.isqrt(length), 1)
    return next((count for count in range(root, root // 2, -1) if length % count == 0), root)


@recurrence.register_fake
def _(decay: Tensor, entry: Tensor, backwards: bool = False) -> Tensor:
    return torch.empty_like(entry, memory_format=torch.contiguous_format)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)
    ctx.backwards = inputs[2]  # type: ignore[attr-defined]


def _gradients(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    """The same recurrence the other way: h_t has its own part in the result, and decay_{t+1} of that of h_{t+1}."""
    decay, state = ctx.saved_tensors  # type: ignore[attr-defined]
    backwards = ctx.backwards  # type: ignore[attr-defined]
    entry = recurrence(_shifted(decay, by=1 if backwards else -1), gradient, not backwards)
    return entry * _shifted(state, by=-1 if backwards else 1), entry, None


def _shifted(x: Tensor, *, by: int) -> Tensor:
    """Each position has the one before (by 1) or the one behind (by −1), and 0 where there is none."""
    none = torch.zeros_like(x[:, :1])
    return torch.cat([none, x[:, :-1]] if by > 0 else [x[:, 1:], none], dim=1)


recurrence.register_autograd(_gradients, setup_context=_keep)


def selective_scan(
    x: Tensor, step: Tensor, *, rate: Tensor, enter: Tensor, leave: Tensor, skip: Tensor, backwards: bool = False
) -> Tensor:
    """y_t = leave_t · h_t + skip · x_t with h_t = exp(step_t · rate) · h_{t−1} + step_t · enter_t · x_t, in float32.

    Args:
        x: (B, L, K, D) what is read; `step`: Δ, of the same shape, positive.
        rate: A, (K, D), negative.
        enter, leave: B and C, (B, L, K, 1): of every position, for all channels.
        skip: D of the paper, (K, D).
        backwards: whether reading begins with the last position.

    Returns:
        (B, L, K, D) float32.
    """
    x, step, enter, leave = (each.float() for each in (x, step, enter, leave))
    state = recurrence(torch.exp(step * rate.float()), step * (enter * x), backwards)
    return torch.addcmul(leave * state, skip.float(), x)


def by_rows_and_columns(x: Tensor) -> Tensor:
    """(B, h, w, …) to (B, L, 2, …): its positions row by row, and column by column."""
    return torch.stack([x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)], dim=2)


def back_in_place(y: Tensor, *, height: int, width: int) -> Tensor:
    """Sum of what both orders say of each position: (B, L, 2, D) to (B, height, width, D)."""
    rows, columns = y.unbind(2)
    return rows.unflatten(1, (height, width)) + columns.unflatten(1, (width, height)).transpose(1, 2)


class Scan(nn.Module):
    """A selective scan of an image in four orders, between two projections: rows, columns, and both from the end."""

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
        # what selects is a matter of each position alone: computed once, and narrow while it is put in order
        chosen = torch.einsum("bhwd,krd->bhwkr", x, self.selection).unflatten(3, (2, 2))
        rows, columns = chosen.unbind(4)  # (B, h, w, 2, r): read forwards and backwards
        ordered = torch.stack([rows.flatten(1, 2), columns.transpose(1, 2).flatten(1, 2)], dim=3)  # (B, L, 2, 2, r)
        low, enter, leave = ordered[..., :-2], ordered[..., -2, None], ordered[..., -1, None]
        read = by_rows_and_columns(x)
        weight, bias, rate, skip = (
            each.unflatten(0, (2, 2))  # forwards and backwards, rows and columns
            for each in (
                self.step_weight,
                self.step_bias.float(),
                -torch.exp(self.log_rate.float()).view(_ORDERS, -1),
                self.skip.view(_ORDERS, -1),
            )
        )
        y = torch.zeros_like(read, dtype=torch.float32)
        for way in range(2):
            step = torch.einsum("blkr,kdr->blkd", low[:, :, way], weight[way]).float()
            y = y + selective_scan(
                read,
                F.softplus(step + bias[way]),
                rate=rate[way],
                enter=enter[:, :, way],
                leave=leave[:, :, way],
                skip=skip[way],
                backwards=way == 1,
            )
        return self.out(self.norm(back_in_place(y, height=height, width=width).to(x.dtype)))


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
