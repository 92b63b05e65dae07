"""What a run will do, what it will cost, and whether it can work: pure numbers, printable before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tiling.carrying import CHAIN_SIDE
from tiling.grid import BlockGrid, WindowLattice

# A worker process with torch, zarr and GDAL loaded, before it holds any block; measured on Linux with torch 2.13.
PROCESS_BYTES = 600 * 2**20


# Three are in flight, and while one is computed what it took over and what it leaves are there.
_CHAINS_A_LANE = 4


class RefusedPlanError(ValueError):
    """The run cannot work: the message names the step that needs most and both numbers."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, before it runs.

    Attributes:
        blocks, lattice: the geometry.
        dates, bands, itemsize: T, C, and bytes of one value of the run's store.
        workers, lanes: worker processes, and blocks that compute at a time in each.
        dates_at_once: dates of the series that one task reads; None = all.
        model_bytes: weights and activations of one lane.
        seconds_per_window: device time of one window of one date on one lane, from a calibration; None = not measured.
    """

    blocks: BlockGrid
    lattice: WindowLattice
    dates: int
    bands: int
    itemsize: int
    workers: int
    lanes: int
    dates_at_once: int | None = None
    model_bytes: int = 0
    seconds_per_window: float | None = None

    @property
    def pixels(self) -> int:
        return self.blocks.height * self.blocks.width

    @property
    def windows_computed(self) -> int:
        """Windows over all chains of blocks; one that touches several chains is computed for each of them."""
        size = self._chain_side * self.blocks.size

        def along(length: int, starts: np.ndarray) -> int:
            lower = np.arange(0, length, size)
            upper = np.minimum(lower + size, length)
            ended = np.searchsorted(starts, lower - self.lattice.window, side="right")
            begun = np.searchsorted(starts, upper, side="left")
            return int((begun - ended).sum())

        return along(self.blocks.height, self.lattice.starts_y) * along(self.blocks.width, self.lattice.starts_x)

    @property
    def _chain_side(self) -> int:
        """Blocks along a chain's side, as few as give every lane one."""
        side = CHAIN_SIDE
        while side > 1 and -(-self.blocks.rows // side) * -(-self.blocks.cols // side) < self.workers * self.lanes:
            side //= 2
        return side

    def _carried(self, pairs: int) -> int:
        """Bytes at most of the windows that a chain carries: a row of them along its width, a column along half of its
        height, each as wide as windows overlap."""
        stride, reach = self.lattice.stride, self.blocks.size * CHAIN_SIDE
        across, down = (-(-min(reach, length) // stride) + 1 for length in (self.blocks.width, self.blocks.height))
        windows = -(-self.lattice.window // stride) * (across + -(-down // 2))
        return 4 * pairs * windows * self.lattice.window**2

    @property
    def bytes_in(self) -> int:
        """Uncompressed bytes that ingest writes: images and validity of all dates."""
        return self.pixels * self.dates * (self.bands * self.itemsize + 1)

    @property
    def bytes_out(self) -> int:
        """Uncompressed bytes of the probability array."""
        return self.pixels * (self.dates - 1)

    @property
    def disk_bytes(self) -> int:
        """Upper bound of what the run directory will hold: imagery hardly compresses; store, COG and its draft."""
        return self.bytes_in + 3 * self.bytes_out

    def block_bytes(self, *, dates: int, pairs: int) -> int:
        """Bytes of one block in hand with its halo, its accumulators, and what two chains carry, for a task of so many
        dates and pairs."""
        return sum(self._block_and_accumulators(dates, pairs)) + 2 * self._carried(pairs)

    def _block_and_accumulators(self, dates: int, pairs: int) -> tuple[int, int]:
        halo = 2 * (self.lattice.window - 1)
        read_pixels = min(self.blocks.size + halo, self.blocks.height + halo) * min(
            self.blocks.size + halo, self.blocks.width + halo
        )
        # float32 sums of weight, probability, its square and the number of windows, for each pair of dates
        return read_pixels * dates * (self.bands * self.itemsize + 1), 4 * 4 * read_pixels * pairs

    @property
    def worker_bytes(self) -> int:
        """Expected peak memory of one worker process: model, blocks in hand, their accumulators and what is carried."""
        dates = self.dates_at_once or self.dates
        pairs = max(dates - 1, 1)
        block, accumulators = self._block_and_accumulators(dates, pairs)
        carried = _CHAINS_A_LANE * self._carried(pairs)
        return PROCESS_BYTES + (self.lanes + 1) * block + self.lanes * (accumulators + carried + self.model_bytes)

    @property
    def expected_seconds(self) -> float | None:
        """Expected time of the infer stage; None without a calibration."""
        if self.seconds_per_window is None:
            return None
        return self.windows_computed * self.dates * self.seconds_per_window / (self.workers * self.lanes)

    def require(self, *, free_disk: int | None, memory: int | None) -> None:
        """Refuse what cannot work.

        Args:
            free_disk: bytes free where the run directory is; None = not known (object store).
            memory: bytes of memory that all workers of this machine share; None = the workers are elsewhere.

        Raises:
            RefusedPlanError: naming both numbers.
        """
        if free_disk is not None and self.disk_bytes > free_disk:
            raise RefusedPlanError(
                f"the run directory may need {self.disk_bytes / 1e9:.1f} GB "
                f"({self.bytes_in / 1e9:.1f} GB of them for the ingested mosaics), but only {free_disk / 1e9:.1f} GB "
                "are free there: choose another --output, a smaller region or a coarser resolution"
            )
        if memory is not None and self.workers * self.worker_bytes > memory:
            raise RefusedPlanError(
                f"{self.workers} workers with blocks of {self.blocks.size} px need about "
                f"{self.worker_bytes / 1e9:.1f} GB each, {self.workers * self.worker_bytes / 1e9:.1f} GB in all, "
                f"but only {memory / 1e9:.1f} GB of memory are free: choose a smaller --block or fewer --workers"
            )
