"""Several ranks train one network as one process would: the same batch, the same statistics, the same dropout.

DistributedDataParallel averages gradients. What it leaves to each rank, and what would make the result depend on their
number, is here: normalisation over the whole batch, dropout masks drawn for the whole batch, sums over all ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.utils.deterministic
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as differentiable_all_reduce

Network = TypeVar("Network", bound=nn.Module)
_MOMENTUM = 0.1
"""Weight of a batch in the running statistics. MobileNetV3's own 0.01 is for a million steps: after hundreds, its first
values linger. Pretrained ones are of other images, and forgotten as soon, or kept altogether (`encoder_statistics`)."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads on a CPU; the process may be a worker that others have started."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def sums_in_one_order(device: torch.device) -> Iterator[None]:
    """torch uses only kernels that give the same bits again, as long as the block lasts."""
    if device.type == "cuda":
        # cuBLAS reads it when the process first multiplies; without it torch refuses every product on a GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    memory: Any = torch.utils.deterministic  # mypy does not see its property
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # torch would also fill what nobody has written yet, which slowed a ResNet50 on a GPU by a quarter
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that train together; without torch.distributed there is one."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """The first rank writes files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This rank's part of `count` things; `count` is a multiple of the number of ranks."""
        assert count % self.world == 0, (count, self.world)
        each = count // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, without a gradient."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier()


class BatchNormOverRanks(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of all ranks' images. torch's SyncBatchNorm does this on GPUs alone.

    Args:
        norm: whose place it takes; timm's have an activation in them.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self.load_state_dict(norm.state_dict())
        self._after = [part for name in ("drop", "act") if (part := getattr(norm, name, None)) is not None]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same; every rank has the same B."""
        x = self._normalised(x) if self.training else super().forward(x)
        for part in self._after:
            x = part(x)
        return x

    def _normalised(self, x: Tensor) -> Tensor:
        dtype, x = x.dtype, x.float()  # autocast hands bfloat16 on, in which sums and running values would be coarse
        world = dist.get_world_size()
        count = x.numel() // x.shape[1] * world
        mean = differentiable_all_reduce(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = differentiable_all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(dtype)


class SeededDropout(nn.Module):
    """Dropout with masks that depend on the step's seed and the pair's place in the global batch.

    Both dates of a pair and every layer draw masks of their own, as the papers' networks do; only where the numbers
    come from differs from nn.Dropout2d, or from nn.Dropout where single values are dropped.
    """

    def __init__(self, share: float, *, place: int, ranks: Ranks, whole_channels: bool = True) -> None:
        super().__init__()
        self.share, self._place, self._ranks, self._whole_channels = share, place, ranks, whole_channels
        self.seed = 0
        self.pairs = 1

    def forward(self, x: Tensor) -> Tensor:
        """(dates · pairs, C, h, w), the first date's first, of a batch of `pairs`; the same in eval mode."""
        if not self.training or not self.share:
            return x
        dates, pairs = len(x) // self.pairs, self.pairs * self._ranks.world
        shape = (x.shape[1], 1, 1) if self._whole_channels else x.shape[1:]
        random = torch.Generator().manual_seed(self.seed * 64 + self._place)
        kept = torch.rand((dates, pairs, *shape), generator=random) >= self.share
        mine = kept[:, self._ranks.part(pairs)].flatten(0, 1)
        return x * (mine.to(x.device, x.dtype) / (1 - self.share))


def made_parallel(model: nn.Module, *, dropout: float, ranks: Ranks, on_gpu: bool) -> Sequence[SeededDropout]:
    """Replace dropout, and with several ranks normalisation, inside `model`; returns the dropouts, to be seeded."""
    dropouts: list[SeededDropout] = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout2d) and child.p:  # pretrained encoders name theirs, of 0
                whole = isinstance(child, nn.Dropout2d)
                dropouts.append(SeededDropout(dropout, place=len(dropouts), ranks=ranks, whole_channels=whole))
                setattr(module, name, dropouts[-1])
            elif isinstance(child, nn.BatchNorm2d):
                child.momentum = _MOMENTUM
                if ranks.world > 1 and not on_gpu:
                    setattr(module, name, BatchNormOverRanks(child))
    return dropouts


def with_statistics_of_all_gpus(model: Network) -> Network:
    """The network with torch's SyncBatchNorm in the place of BatchNorm, and timm's of those with an activation."""
    if any(isinstance(module, nn.BatchNorm2d) and hasattr(module, "act") for module in model.modules()):
        from dasnet.networks._timm import timm

        converted: Network = timm.layers.convert_sync_batchnorm(model)
    else:
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted
