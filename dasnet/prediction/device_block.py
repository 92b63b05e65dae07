"""A block of a series where it is computed: its pixels, which of them count, and windows cut from it by their numbers.

Legend of shapes: T dates, P pairs, C bands, (H, W) the block with its halo, (h, w) without, B windows of s×s pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.errors import PredictorError
from dasnet.prediction.blending import Band, bands_of
from dasnet.prediction.block_windows import BlockWindows
from dasnet.prediction.transfer import Transfer, Upload

_STRIP_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 21}
"""Of a strip of rows that is blended at a time: what a CPU's cache holds, and what a GPU has memory for beside."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceBlock:
    """A block that was sent to the device. Nothing of it may be used before :meth:`arrive`.

    Attributes:
        upload: what it came with.
        side: pixels of a window.
        batch: windows at a time.
        crop: rows and columns of the block without its halo.
        pixels: (T, C, H, W) as stored; uint16 as the int16 of the same bits.
        valid: (T, H, W), True = valid.
        masked: whether any pixel is not.
        wanted: (h, w), where a probability is asked for; None = everywhere.
        earlier, later: (P,) int64, indices of the dates of each pair.
        passed: (n,) int64, on the host and on the device: numbers of the windows that earlier blocks left and that are
            none of this block's, but of a later one; None = none.
        bands: rows of windows, in order.
    """

    upload: Upload
    side: int
    batch: int
    crop: tuple[slice, slice]
    pixels: Tensor
    valid: Tensor
    masked: bool
    wanted: Tensor | None
    earlier: Tensor
    later: Tensor
    passed: tuple[NDArray[np.int64], Tensor] | None
    bands: Sequence[Band]

    @classmethod
    def sent(
        cls,
        images: NDArray[Any],
        valid: NDArray[np.bool_],
        windows: BlockWindows,
        transfer: Transfer,
        *,
        taper: NDArray[np.float32],
        crop: tuple[slice, slice],
        wanted: NDArray[np.bool_] | None,
        earlier: Sequence[int],
        later: Sequence[int],
        batch: int,
        passed: NDArray[np.int64] | None = None,
    ) -> DeviceBlock:
        """The block on its way: all that the host has to say about it is said here.

        Args:
            images: (T, C, H, W), uint8, uint16 or float32.
            valid: (T, H, W), True = valid.
            windows: that are computed.
            taper: (s,) float32 in (0, 1].
            wanted: (H, W), True = a probability is asked for; None = everywhere.
            earlier, later: indices of the dates of each pair.
            passed: (n,) numbers of windows that earlier blocks left, which are handed on; None = none.
        """
        upload = transfer.upload()
        return cls(
            upload=upload,
            side=windows.side,
            batch=batch,
            crop=crop,
            pixels=upload.put(bits(images)),
            valid=upload.put(valid),
            masked=not valid.all(),
            wanted=None if wanted is None else upload.put(wanted[crop]),
            earlier=upload.put(np.asarray(earlier, dtype=np.int64)),
            later=upload.put(np.asarray(later, dtype=np.int64)),
            passed=None if passed is None or not len(passed) else (passed, upload.put(passed)),
            bands=bands_of(
                windows,
                pairs=len(earlier),
                shape=(valid.shape[1], valid.shape[2]),
                crop=crop,
                taper=taper,
                batch=batch,
                put=upload.put,
            ),
        )

    @property
    def height(self) -> int:
        return self.crop[0].stop - self.crop[0].start

    @property
    def width(self) -> int:
        return self.crop[1].stop - self.crop[1].start

    @cached_property
    def every_window(self) -> Tensor:
        """(T, H - s + 1, W - s + 1, C, s, s), each window that there could be: a view of `pixels`."""
        side = self.side
        return self.pixels.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)

    @cached_property
    def every_valid(self) -> Tensor:
        """(T, H - s + 1, W - s + 1, 1, s, s), the same of `valid`."""
        side = self.side
        return self.valid.unfold(1, side, 1).unfold(2, side, 1).unsqueeze(3)

    def arrive(self) -> None:
        """Let the current stream wait until the block is there."""
        self.upload.arrive()

    def cut(self, band: Band, first: int) -> tuple[Tensor, Tensor | None]:
        """A batch of windows of a band, from its `first` on: (T, B, C, s, s) as stored, and (T, B, 1, s, s), True =
        valid; None = all are. They may be views of the block, and nothing is to be written to them."""
        at: tuple[Any, ...]
        if self.batch == 1:  # a view; nothing needs to be copied from all over the block
            y, x = band.corners_on_host[:, first].tolist()
            at = (slice(y, y + 1), x)
        else:
            at = band.corners[:, first : first + self.batch].unbind()
        return self.every_window[:, *at], self.every_valid[:, *at] if self.masked else None

    def valid_in_pairs(self, rows: slice) -> Tensor:
        """(P, rows, w), True = valid in both dates, and wanted: some rows of the block without its halo."""
        top = self.crop[0].start
        valid = self.valid[:, top + rows.start : top + rows.stop, self.crop[1]]
        both = valid.index_select(0, self.earlier) & valid.index_select(0, self.later)
        return both if self.wanted is None else both & self.wanted[rows]

    def strips(self, height: int) -> Iterator[slice]:
        """Rows 0 to `height` as strips that are blended at a time."""
        most = _STRIP_PIXELS[self.pixels.device.type] // (self.width * len(self.earlier))
        return (slice(first, min(first + max(most, 1), height)) for first in range(0, height, max(most, 1)))


def bits(images: NDArray[Any]) -> NDArray[Any]:
    """uint16 as the int16 of the same bits: torch copies and slices few unsigned types."""
    return images.view(np.int16) if images.dtype == np.uint16 else images


def window_values(windows: Tensor, *, dtype: str) -> Tensor:
    """Windows as float32, whose bits :func:`bits` kept, from the data type that they had."""
    return (windows.to(torch.int32) & 0xFFFF).float() if dtype == "uint16" else windows.float()


def earlier_and_later(pairs: Sequence[tuple[int, int]] | None, *, dates: int) -> tuple[list[int], list[int]]:
    """Indices of the dates of each pair; `pairs`: None = each date with the one before it.

    Raises:
        PredictorError: a pair is not of two dates in their order, or there is none.
    """
    chosen = [(index, index + 1) for index in range(dates - 1)] if pairs is None else list(pairs)
    if not chosen or not all(0 <= earlier < later < dates for earlier, later in chosen):
        raise PredictorError(f"pairs {chosen} must each be of an earlier and a later one of {dates} dates")
    return [earlier for earlier, _ in chosen], [later for _, later in chosen]
