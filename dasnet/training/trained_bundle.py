"""From the best weights of a training run to a bundle: rounded as it ships, calibrated and cut on validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dasnet.errors import TrainingError
from dasnet.evaluation import Reliability, calibrated, reliability
from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.networks.encoders.low_rank import without_adapters
from dasnet.prediction.bundle import Bundle, build_model, save_bundle
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.header import Band
from dasnet.training.directory import BEST
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks, torch_threads
from dasnet.training.samples import Batch
from dasnet.training.validation import validation_sweep
from tiling.conventions import LEVELS, lowest_stored_as


@dataclass(frozen=True, kw_only=True)
class TrainedBundle:
    """A bundle without card, and what validation said of it.

    Attributes:
        validation: confusion at the chosen threshold.
        before, after: reliability of half the distance, which is what an uncalibrated distance in [0, 2] can be read
            as, and of the calibrated probability; both on validation.
        epoch: when validation liked the weights best, from 0.
    """

    bundle: Bundle
    validation: Confusion
    before: Reliability
    after: Reliability
    epoch: int


def bundle_of(run: TrainingRun, path: Path) -> TrainedBundle:
    """Write the best weights of a finished run as a bundle, with calibration and threshold fitted on validation.

    What is calibrated is what ships: the weights as the file rounds them.

    Raises:
        TrainingError: on validation a larger distance does not mean a more probable change.
    """
    with torch_threads(run.threads):
        return _bundle_of(run, path)


def _bundle_of(run: TrainingRun, path: Path) -> TrainedBundle:
    best = torch.load(run.directory / BEST, map_location="cpu", weights_only=True)
    draft = Bundle(
        state=without_adapters(best["model"]),
        architecture=run.recipe.network.architecture(len(run.data.bands)),
        bands=tuple(
            Band(name=name, mean=mean, std=std, scale=scale, offset=offset)
            for (name, mean, std), (scale, offset) in zip(
                run.data.bands, run.data.scaling or [(None, None)] * len(run.data.bands), strict=True
            )
        ),
        dtype=run.data.dtype,
        threshold=0.5,
        calibration=Calibration(slope=1.0, intercept=-1.0),
        window=run.data.window,
        resolution=run.data.resolution,
    )
    rounded = save_bundle(path, draft)
    sweep = sweep_of(rounded, run, "val")
    highest = sweep.best()[1].f1
    try:
        calibration = Calibration.fit(sweep.centres, changed=sweep.changed, unchanged=sweep.unchanged)
    except ValueError as error:
        raise TrainingError(
            f"after {int(best['epoch']) + 1} epochs the network has learned nothing that validation shows (highest F1 "
            f"{highest:.3f}): {error}. Train longer, or at another rate"
        ) from error
    threshold, chosen = best_stored(calibration, sweep)
    bundle = replace(rounded, threshold=threshold, calibration=calibration)
    return TrainedBundle(
        bundle=save_bundle(path, bundle),
        validation=chosen,
        before=reliability(sweep.centres / 2, sweep),
        after=reliability(calibrated(calibration, sweep), sweep),
        epoch=int(best["epoch"]),
    )


def best_stored(calibration: Calibration, sweep: ThresholdSweep) -> tuple[float, Confusion]:
    """The threshold of the highest F1 among those that judge a stored probability as they judge a distance."""
    thresholds = np.array([lowest_stored_as(level) for level in range(1, LEVELS + 1)])
    indices = np.searchsorted(sweep.thresholds, [calibration.distance(threshold) for threshold in thresholds])
    inside = indices < len(sweep.thresholds)
    cut, confusion = sweep.best(among=indices[inside])
    return float(thresholds[inside][np.searchsorted(sweep.thresholds[indices[inside]], cut)]), confusion


def sweep_of(bundle: Bundle, run: TrainingRun, split: str) -> ThresholdSweep:
    """Distances of a split by a bundle's float32 network."""
    device = torch.device(run.device)
    model = build_model(bundle).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.tensor([band.mean for band in bundle.bands], device=device)[:, None, None]
    std = torch.tensor([band.std for band in bundle.bands], device=device)[:, None, None]

    def normalise(batch: Batch) -> Tensor:
        return ((batch.images - mean) / std).masked_fill(~batch.valid, 0.0)

    return validation_sweep(
        model,
        run.source,
        run.source.indices(split),
        normalise=normalise,
        ranks=Ranks(),
        threads=run.loader_threads,
        batch=run.recipe.sampling.batch,
    )
