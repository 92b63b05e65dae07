"""What a worker does with one block: read it with its halo, predict, write one shard."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from tiling.grid import BlockGrid, WindowLattice
from tiling.protocols import BlockSink, BlockSource, Predictor


class BlockInference:
    """Callable of one worker: block index in, facts about the block out.

    Several threads of a worker call it at a time. At most `lanes` of them are inside the predictor; the others read
    the next block or write the last one meanwhile. One lane for a GPU; on CPU one for each core, because a predictor
    there computes with one thread so that its bits do not depend on how many cores there are.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        source: BlockSource,
        sink: BlockSink,
        blocks: BlockGrid,
        lattice: WindowLattice,
        lanes: int,
    ) -> None:
        self.predictor = predictor
        self._source = source
        self._sink = sink
        self._blocks = blocks
        self._lattice = lattice
        self._device = threading.Semaphore(lanes)

    def __call__(self, index: int) -> Mapping[str, Any]:
        """Compute block `index`.

        Returns:
            ``digest``: SHA-256 of the block's pixels; ``windows``, ``skipped``: computed and left out;
            ``disagreement``: the non-empty bins of :attr:`tiling.protocols.Prediction.disagreement`;
            ``read_s``, ``wait_s``, ``compute_s``, ``write_s``: seconds.
        """
        block = self._blocks[index]
        box = self._lattice.read_box(block.box)
        started = time.perf_counter()
        images, valid = self._source.read_series(rows=box.rows, cols=box.cols)
        read = time.perf_counter()
        inner = block.box.relative_to(box)
        origins = self._lattice.origins_touching(block.box) - (box.y0, box.x0)
        with self._device:
            free = time.perf_counter()
            prediction = self.predictor.predict(
                images, valid, origins=origins, taper=self._lattice.taper, crop=(inner.rows, inner.cols)
            )
        computed = time.perf_counter()
        digest = self._sink.write_probability(prediction.probability, rows=block.box.rows, cols=block.box.cols)
        written = time.perf_counter()
        return {
            "digest": digest,
            "windows": prediction.windows_computed,
            "skipped": prediction.windows_skipped,
            "disagreement": {str(bin): int(n) for bin, n in enumerate(prediction.disagreement) if n},
            "read_s": round(read - started, 4),
            "wait_s": round(free - read, 4),
            "compute_s": round(computed - free, 4),
            "write_s": round(written - computed, 4),
        }
