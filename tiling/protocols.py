"""The seams between the rooms: what the fan-out asks of a model and of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Prediction(Protocol):
    """What a predictor makes of one block of a series of T dates, of which P pairs are compared."""

    @property
    def probability(self) -> NDArray[np.uint8]:
        """(P, h, w), change probability × 254 of each pair.

        255 = nodata, which is where either date of the pair has no valid pixel, and nowhere else, but for what is not
        `wanted`.
        """
        ...

    @property
    def windows_computed(self) -> int:
        """Windows that went through the network for this block."""
        ...

    @property
    def windows_skipped(self) -> int:
        """Windows left out because no pixel of theirs is valid in both dates of any pair."""
        ...

    @property
    def disagreement(self) -> NDArray[np.int64]:
        """(256,) histogram of how far windows disagree, over the block's valid pixels that more than one covers.

        A pixel's value is the weighted standard deviation of its windows' probabilities, × 510 and rounded (a standard
        deviation of values in [0, 1] is at most 0.5).
        """
        ...


class Predictor(Protocol):
    """A loaded model on its device. One instance serves one worker, whose threads call it, as many
    at a time as there are lanes."""

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
    ) -> Prediction:
        """Change probability of one block.

        Args:
            images: (T, C, H, W), native dtype (uint8, uint16 or float32), bands in the bundle's order, block with halo.
            valid: (T, H, W), True = valid.
            origins: (N, 2) upper-left corners (y, x) of the windows, relative to `images`.
            taper: (window,) float32, blending weight along one axis.
            crop: rows and columns of the block itself within `images`.
            pairs: indices (earlier, later) of the dates that are compared; None = each date with the one before it.
            wanted: (H, W), True = a probability is asked for, and `origins` are all windows that cover the pixel;
                elsewhere the result is 255 and has no part in the disagreement. None = everywhere.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic (device, precision, library versions): equal descriptions promise equal bytes."""
        ...


@runtime_checkable
class SpreadsWindows(Protocol):
    """A predictor that computes windows of one block in several threads, to the same bytes."""

    def spread(self, lanes: int) -> None:
        """Compute so many windows at a time, of whichever blocks are at hand."""
        ...


@runtime_checkable
class BringsBlocksAhead(Protocol):
    """A predictor whose device computes one block while the next one is brought there and the last one fetched."""

    @property
    def blocks_ahead(self) -> int:
        """Blocks that may be inside :meth:`Predictor.predict` beside those that lanes compute; 0 = none."""
        ...


class CarryingPrediction(Prediction, Protocol):
    """A prediction with windows for later blocks."""

    @property
    def left(self) -> Any:
        """Those of the windows to be left that were computed for this block or an earlier one, wherever the predictor
        keeps them; None = none."""
        ...


@runtime_checkable
class CarriesWindows(Protocol):
    """A predictor that takes over windows which it computed for an earlier block, to the same bytes."""

    @property
    def carries_windows(self) -> bool:
        """Whether it does."""
        ...

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
        before: Any = None,
        leave: NDArray[np.int64] | None = None,
    ) -> CarryingPrediction:
        """As :meth:`Predictor.predict`, but for windows that are carried.

        Args:
            corner: row and column of the grid at which `images` begins.
            before: what the prediction of an earlier block of the same dates and pairs has `left`; None = nothing.
            leave: (N, 2) corners (y, x) in the grid of windows that later blocks touch; None = nothing is carried.
        """
        ...


class DatesStore(Protocol):
    """Where the pixels of dates lie, each date by its name."""

    def write_date(self, name: str, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice) -> None:
        """Write one whole shard of a date durably: image (C, h, w), valid (h, w), True = valid."""
        ...

    def read_dates(self, names: Sequence[str], *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The named dates of a range: images (T, C, h, w) and valid (T, h, w); beyond the grid: 0 and False."""
        ...


class PairSink(Protocol):
    """Where a block's result goes, each pair by its name."""

    def write_pair(self, name: str, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        """Write one whole shard (h, w) of a pair durably; return the SHA-256 of its pixels, as hex."""
        ...
