"""Distances of labelled samples, counted, so that every threshold can be judged by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dasnet.errors import TrainingError
from dasnet.metrics import ThresholdSweep
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.decoder import upsample
from dasnet.training.parallel import Ranks
from dasnet.training.samples import Batch, SampleSource, prefetched
from tiling.conventions import IGNORED

BINS = 4096
"""Bins of distances over [0, 2]."""


@torch.inference_mode()
def validation_sweep(
    model: nn.Module,
    source: SampleSource,
    indices: NDArray[np.int64],
    *,
    normalise: Callable[[Batch], Tensor],
    ranks: Ranks,
    threads: int,
    batch: int,
) -> ThresholdSweep:
    """Distances of samples against their labels, counted over all ranks.

    Raises:
        TrainingError: no changed pixel in them, so that no threshold is better than another.
    """
    assert isinstance(model, ChangeNetwork)
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    counts = torch.zeros(2 * BINS, dtype=torch.int64, device=device)
    mine = indices[ranks.rank :: ranks.world]
    work = [([int(i) for i in mine[first : first + batch]], [0] * batch) for first in range(0, len(mine), batch)]
    for here in prefetched(source, work, augmentation=None, threads=threads, device=device):
        counts += binned(pixel_distances(model, normalise(here)), here.labels)
    counts = ranks.sum(counts)
    model.train(was_training)
    sweep = ThresholdSweep(low=0.0, high=2.0, bins=BINS)
    unchanged, changed = counts.cpu().numpy().reshape(2, BINS)
    if not changed.any():
        raise TrainingError(f"not one changed pixel in {len(indices)} validation samples: no threshold can be chosen")
    sweep.add_counts(changed=changed, unchanged=unchanged)
    return sweep


def pixel_distances(model: ChangeNetwork, images: Tensor) -> Tensor:
    """(2b, C, s, s) normalised, the first date's first, to the distances of b pairs at every pixel, (b, s, s)."""
    before, after = images.chunk(2)
    distance = model.distance(model.features(before), model.features(after))
    return upsample(distance, height=images.shape[-2], width=images.shape[-1], stride=model.stride)


def binned(distance: Tensor, labels: Tensor) -> Tensor:
    """(2 · BINS,) int64: unchanged, then changed pixels by distance in [0, 2], as ThresholdSweep sorts them."""
    known = labels != IGNORED
    # bins are closed below, so a distance on an edge counts as above it
    index = (distance[known].clamp(0, 2) * (BINS / 2)).long().clamp(max=BINS - 1)
    return torch.bincount(index + BINS * labels[known].long(), minlength=2 * BINS)
