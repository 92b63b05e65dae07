"""A small series with irregular nodata, and a predictor driven over its blocks as the workers do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import Architecture
from dasnet.prediction.bundle import Bundle, random_bundle
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.network import InferenceNetwork
from dasnet.prediction.predictor import BlockPrediction, DasnetPredictor
from tiling.grid import BlockGrid, WindowLattice

SIZE = 64
LATTICE = WindowLattice(height=150, width=170, window=SIZE, overlap=24)


def made(backbone: Any, *, dtype: str = "uint8", head_channels: int = 64, decoder: Any = "none") -> Bundle:
    """Random weights, calibrated so that the small distances they give spread over the probabilities."""
    architecture = Architecture(backbone=backbone, head_channels=head_channels, decoder=decoder)
    bundle = random_bundle(architecture, seed=5, dtype=dtype)
    return replace(bundle, window=SIZE, calibration=Calibration(slope=12.0, intercept=-2.0))


BUNDLE = made("mobilenet_v3")


def scene(dates: int = 2, dtype: str = "uint8", seed: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Smooth noise with a blot of change, and an irregular part without data at each date."""
    random = np.random.default_rng(seed)
    coarse = random.random((dates, 3, 22, 20))
    fine = F.interpolate(torch.from_numpy(coarse), size=(LATTICE.height, LATTICE.width), mode="bicubic").numpy()
    values = np.clip(fine + 0.05 * random.standard_normal(fine.shape), 0, 1)
    images = (values * {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]).astype(dtype)
    valid = np.ones((dates, LATTICE.height, LATTICE.width), dtype=bool)
    valid[0, :30, :90] = valid[1, 100:, 120:] = valid[-1, 60:80, 60:75] = False
    if dtype == "float32":
        images[~np.repeat(valid[:, None], 3, axis=1)] = np.nan
    return images, valid


def whole(predictor: DasnetPredictor, images: NDArray[Any], valid: NDArray[np.bool_]) -> BlockPrediction:
    return by_blocks(predictor, images, valid, size=1000)[1][0]


def by_blocks(
    predictor: DasnetPredictor, images: NDArray[Any], valid: NDArray[np.bool_], *, size: int
) -> tuple[NDArray[np.uint8], list[BlockPrediction]]:
    """As the workers do: every block with its halo, its windows, its part of the mosaic."""
    mosaic = np.zeros((len(images) - 1, LATTICE.height, LATTICE.width), dtype=np.uint8)
    predictions = []
    for block in BlockGrid(height=LATTICE.height, width=LATTICE.width, size=size):
        halo = LATTICE.read_box(block.box)
        inner = block.box.relative_to(halo)
        prediction = predictor.predict(
            images[:, :, halo.rows, halo.cols],
            valid[:, halo.rows, halo.cols],
            origins=LATTICE.origins_touching(block.box) - (halo.y0, halo.x0),
            taper=LATTICE.taper,
            crop=(inner.rows, inner.cols),
        )
        mosaic[:, block.box.rows, block.box.cols] = prediction.probability
        predictions.append(prediction)
    return mosaic, predictions


def elementwise(bundle: Bundle = BUNDLE, *, batch: int = 1) -> DasnetPredictor:
    """A predictor whose network takes the mean difference of the bands, more of it towards a window's lower right.

    What it says of a pixel depends on the window, as a network's does, but neither on the batch nor on how a
    convolution is summed: so batches of any size can be held against each other on a CPU.
    """

    def compare(before: Tensor, after: Tensor) -> Tensor:
        ramp = torch.linspace(0.2, 1.0, before.shape[-1])
        return (before - after).abs().mean(dim=1) * ramp[:, None] * ramp

    predictor = DasnetPredictor(bundle)
    predictor._network = InferenceNetwork(
        embed=lambda images: images, compare=compare, device=torch.device("cpu"), dtype=torch.float32
    )
    predictor._stride, predictor._batch = 1, batch
    return predictor
