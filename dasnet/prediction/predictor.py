"""The predictor: a block of a series in, its change probability out; everything between on one device.

Legend of shapes: T dates, P pairs of them, C bands, (H, W) the block with its halo, (h, w) the block itself, B windows
of s×s pixels.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.errors import PredictorError
from dasnet.networks.decoder import upsample
from dasnet.prediction.blending import Band, Blend
from dasnet.prediction.block_prediction import BlockPrediction
from dasnet.prediction.block_windows import BlockWindows
from dasnet.prediction.bundle import Bundle
from dasnet.prediction.device_block import DeviceBlock, bits, earlier_and_later, window_values
from dasnet.prediction.lanes import Lanes
from dasnet.prediction.left_windows import LeftWindows
from dasnet.prediction.network import InferenceNetwork, Precision, prepare_bundle
from dasnet.prediction.replay import replayed_for
from dasnet.prediction.transfer import Download, Transfer

_log = logging.getLogger(__name__)

# A CPU gains nothing from more windows at a time, and which kernel it takes for several depends on the machine.
_BATCH_CPU = 1
_BATCH_CUDA = 16
_SPARE_BYTES = 256 << 20  # for what a library allocates beside

T = TypeVar("T")

_ON_A_GPU = threading.RLock()
"""cuDNN's flags are the process's: who leaves would put them back while another computes."""


class DasnetPredictor:
    """A bundle on a device; a tiling.protocols.Predictor.

    The same window gives the same bits whichever block computes it and whatever else is in the batch: the batch has a
    fixed size, and the arithmetic is fixed when the predictor is made. A CPU computes one window at a time, and
    :meth:`predict` may be called from several threads at a time there; give torch one thread each
    (``torch.set_num_threads(1)``). On a GPU one thread computes, the predictor's own; one that calls brings its block
    there and fetches the result, beside the block of another that is computed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        precision: Precision = "auto",
        batch: int | None = None,
        compile: bool = False,
        replay: bool = False,
        window: int | None = None,
        dates: int = 2,
        pairs: int = 1,
        spare: int = 0,
    ) -> None:
        """Put the bundle's network on a device.

        Args:
            device: "cpu", "cuda", "cuda:N", or "auto" for a GPU where there is one.
            precision: see :func:`dasnet.prediction.network.prepare_bundle`.
            batch: windows at a time on a GPU; None = 16, or as many as fit, half of it, a quarter, ….
            window, dates, pairs, spare: what will be computed, which decides how many windows fit onto a GPU:
                side of a window, pixels, None = the bundle's; dates of a series and pairs of them; bytes of a block and
                its accumulators, of which two are there at a time.
            compile: use torch.compile; where that does not work there is a warning and the network runs uncompiled.
            replay: on a GPU, replay the network's calls as CUDA graphs: the same bits, less for the host.

        Raises:
            PredictorError: no such device or precision, or a batch below 1, or one that does not fit into memory.
        """
        if batch is not None and batch < 1:
            raise PredictorError(f"a batch of {batch} windows computes nothing: use 1 or more")
        self._bundle = bundle
        self._stride = bundle.architecture.stride
        side = window or bundle.window
        network = prepare_bundle(bundle, side=side, device=device, precision=precision)
        self._device = network.device
        self._on_gpu = network.device.type == "cuda"
        self._transfer = Transfer(network.device)
        # cuDNN's handles and plans belong to a thread: every further one that computes takes a second to make its own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu") if self._on_gpu else None
        self._lanes = Lanes()
        self._batch = _BATCH_CPU
        if self._on_gpu:
            beside = (1 + self.blocks_ahead) * spare + _SPARE_BYTES
            self._batch = self._fitting(network, batch, side=side, dates=dates, pairs=pairs, spare=beside)
        shape = (self._batch, len(bundle.bands), side, side)
        if compile:
            network = self._computed(partial(network.compiled_for, shape))
        if replay and self._on_gpu:
            with self._reproducible():
                network = self._computed(partial(replayed_for, network, shape))
        self._network = network
        self._mean = self._per_band([band.mean for band in bundle.bands])
        self._std = self._per_band([band.std for band in bundle.bands])

    def spread(self, lanes: int) -> None:
        """Compute so many windows at a time on a CPU, each by one thread: one block keeps all lanes busy.

        Windows are added in their order whoever computed them, so the bytes are those of one lane.
        """
        if lanes > 1 and not self._on_gpu:
            self._lanes = Lanes(lanes)

    @property
    def blocks_ahead(self) -> int:
        """Blocks on their way to or from a GPU while it computes another."""
        return 1 if self._on_gpu else 0

    @property
    def carries_windows(self) -> bool:
        """What :meth:`predict` computed for one block it takes over for another."""
        return True

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic: equal descriptions promise equal bytes."""
        return {
            "device": self._network.arithmetic,
            "precision": self._network.precision,
            "batch": self._batch,
            "compile": self._network.compiled,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def predict(
        self,
        images: NDArray[Any],
        valid: NDArray[np.bool_],
        *,
        origins: NDArray[np.int64],
        taper: NDArray[np.float32],
        crop: tuple[slice, slice],
        pairs: Sequence[tuple[int, int]] | None = None,
        wanted: NDArray[np.bool_] | None = None,
        corner: tuple[int, int] = (0, 0),
        before: LeftWindows | None = None,
        leave: NDArray[np.int64] | None = None,
    ) -> BlockPrediction:
        """Change probability of one block; each date is embedded once, in however many pairs it is.

        Args:
            images: (T, C, H, W) in the bundle's data type, its bands in its order, the block with its halo.
            valid: (T, H, W), True = valid.
            origins: (N, 2) upper-left corners (y, x) of the windows in `images`; each at most once;
                a pixel's windows are added row by row, each row from left to right.
            taper: (window,) float32 in (0, 1], blending weight along one axis of a window.
            crop: rows and columns of the block within `images`.
            pairs: indices of the P pairs of dates that are compared; None = each date with the one before it.
            wanted: (H, W), where a probability is asked for, as tiling.protocols has it; None = everywhere.
            corner, before, leave: what earlier blocks left, and what is left to later ones, as tiling.protocols has it.

        Raises:
            PredictorError: the series has one date, other bands or another data type than the bundle; a pair is not of
                two of its dates; a window does not lie in the block, or is given twice; or earlier blocks left windows
                of another size or number of pairs.
            ArithmeticError: a valid pixel gets no finite probability.
        """
        self._check(images)
        earlier, later = earlier_and_later(pairs, dates=len(images))
        either = np.logical_or.reduce([valid[one] & valid[other] for one, other in zip(earlier, later, strict=True)])
        windows = BlockWindows.of(origins, side=len(taper), valid=either)
        passed = None
        if before is not None:
            before.require(pairs=len(earlier), side=len(taper))
        if leave is not None:
            windows = windows.between(corner=corner, before=before, leave=leave)
            passed = None if before is None else windows.passed(before, corner=corner, leave=leave)
        if not windows.computed.any():
            return BlockPrediction.without_windows((len(earlier), *either[crop].shape), len(origins), left=before)
        block = DeviceBlock.sent(
            images,
            valid,
            windows,
            self._transfer,
            taper=taper,
            crop=crop,
            wanted=wanted,
            earlier=earlier,
            later=later,
            batch=self._batch,
            passed=passed,
        )
        download, left = self._computed(partial(self._blended, block, earlier, later, before=before, corner=corner))
        probability, disagreement, finite = download.arrays()
        if not finite:
            raise ArithmeticError("the network gave valid pixels no finite probability: are all valid pixels finite?")
        return BlockPrediction(
            probability=probability,
            windows_computed=len(windows),
            windows_skipped=len(origins) - int(windows.computed.sum()),
            disagreement=disagreement,
            left=left,
        )

    def _blended(
        self,
        block: DeviceBlock,
        earlier: list[int],
        later: list[int],
        *,
        before: LeftWindows | None,
        corner: tuple[int, int],
    ) -> tuple[Download, LeftWindows | None]:
        """Probability, disagreement and whether all is finite, on their way to the host; a GPU may still compute. And
        what is left to later blocks."""
        kept: list[tuple[NDArray[np.int64], Tensor]] = []
        with torch.inference_mode(), self._reproducible():
            block.arrive()
            if before is not None and block.passed is not None:
                numbers, on_device = block.passed
                kept.append((before.corners[numbers], before.probability.index_select(1, on_device)))
            blend = Blend(
                pairs=len(earlier), height=block.height, width=block.width, side=block.side, device=self._device
            )
            for band in block.bands:
                blend.begin(band)
                if before is not None:
                    blend.take_over(band, before.probability)
                compute = partial(self._hold, block, band, blend, earlier=earlier, later=later)
                self._lanes.each(compute, range(0, band.windows, self._batch))
                if (held := blend.left(band)) is not None:
                    kept.append((band.corners_kept + corner, held))
                self._lanes.each(partial(blend.fold, band), block.strips(band.rows.pixels))
            self._lanes.each(lambda rows: blend.settle(block.valid_in_pairs(rows), rows), block.strips(block.height))
            return self._transfer.download(*blend.result()), LeftWindows.of(kept)

    def _hold(
        self, block: DeviceBlock, band: Band, blend: Blend, first: int, *, earlier: list[int], later: list[int]
    ) -> None:
        """Compute a batch of windows of a band, from its `first` on, and keep their probabilities (B, P, s, s)."""
        places = band.places[first : first + self._batch]
        try:
            fine = self._distances(*block.cut(band, first), earlier, later)
        except torch.OutOfMemoryError as error:
            # not with fewer windows: the bits of this block, and of those to come, would be others
            raise torch.OutOfMemoryError(
                f"{error}; a batch of {self._batch} windows no longer fits beside what else is on {self._device}: "
                f"free it and go on, or begin anew with a smaller --batch"
            ) from error
        probability = self._bundle.calibration.probability(fine).unflatten(0, (self._batch, -1))
        blend.hold(places, probability[: len(places)])

    def _distances(self, values: Tensor, valid: Tensor | None, earlier: list[int], later: list[int]) -> Tensor:
        """(T, B, C, s, s) as stored and (T, B, 1, s, s) valid to (B · P, s, s) distances, float32."""
        inputs = window_values(values, dtype=self._bundle.dtype).sub(self._mean).div_(self._std)
        if valid is not None:
            inputs.masked_fill_(~valid, 0.0)
        # date by date: memory does not grow with the series, and a GPU's bits do not depend on its other dates
        dates = [self._network.embed(date) for date in inputs.unbind()]
        pairs = zip(earlier, later, strict=True)
        distances = torch.stack([self._network.compare(dates[first], dates[second]) for first, second in pairs], dim=1)
        return upsample(
            distances.flatten(0, 1), height=values.shape[-2], width=values.shape[-1], stride=self._stride
        )  # (B · P, s, s)

    def distances(self, images: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Distances of single windows, each by itself: what a tile-wise evaluation scores.

        Args:
            images: (B, T, C, s, s) in the bundle's data type.
            valid: (B, T, s, s), True = valid.

        Returns:
            (B, T − 1, s, s) float32 in [0, 2], at invalid pixels too.

        Raises:
            PredictorError: other bands or another data type than the bundle.
        """
        self._check(images[0])
        distances = self._computed(partial(self._windows_apart, images, valid))
        return distances.reshape(len(images), images.shape[1] - 1, *images.shape[-2:])

    def _windows_apart(self, images: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        earlier, later = earlier_and_later(None, dates=images.shape[1])
        with torch.inference_mode(), self._reproducible():
            parts = []
            for first in range(0, len(images), self._batch):
                upload = self._transfer.upload()
                values = upload.put(bits(images[first : first + self._batch])).transpose(0, 1)
                usable = upload.put(valid[first : first + self._batch, :, None]).transpose(0, 1)
                upload.arrive()
                parts.append(self._distances(values, usable, earlier, later))
            distances: NDArray[np.float32] = torch.cat(parts).clamp(0, 2).cpu().numpy()
        return distances

    def _check(self, images: NDArray[Any]) -> None:
        dates, bands = images.shape[:2]
        if dates < 2:
            raise PredictorError(f"change needs two dates or more, not {dates}")
        if bands != len(self._bundle.bands) or images.dtype != self._bundle.dtype:
            needs = f"{len(self._bundle.bands)} bands of {self._bundle.dtype}"
            raise PredictorError(f"the bundle takes {needs}, not {bands} of {images.dtype}")

    def _fitting(
        self, network: InferenceNetwork, batch: int | None, *, side: int, dates: int, pairs: int, spare: int
    ) -> int:
        most, bands = batch or _BATCH_CUDA, len(self._bundle.bands)

        def fitting() -> int:
            with self._reproducible():
                return network.largest_batch(most, bands=bands, side=side, dates=dates, pairs=pairs, spare=spare)

        try:
            fitting_batch = self._computed(fitting)
        except torch.OutOfMemoryError as error:
            raise PredictorError(
                f"not one window of {side} px of {dates} dates fits onto {network.device} beside a block: it takes a "
                f"device with more memory or, for a new run, a smaller --window or --block ({error})"
            ) from error
        if batch is not None and fitting_batch < batch:
            raise PredictorError(f"a batch of {batch} windows does not fit onto {network.device}, {fitting_batch} do")
        if fitting_batch < most:
            _log.warning("%d windows at a time fit onto %s, not %d", fitting_batch, network.device, most)
        return fitting_batch

    def _computed(self, compute: Callable[[], T]) -> T:
        """What `compute` returns, on a GPU from the predictor's own thread."""
        return compute() if self._thread is None else self._thread.submit(compute).result()

    @contextmanager
    def _reproducible(self) -> Iterator[None]:
        """float32 is float32 on a GPU, and equal shapes take equal kernels."""
        if not self._on_gpu:
            yield
            return
        with _ON_A_GPU, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield

    def _per_band(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).reshape(-1, 1, 1)
