"""The cube of an archive: the shards of its pairs, linked and not decoded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import IntegrityError
from storage.stores.create import create_probability_cube
from storage.stores.run_store import RunStore


def assemble_cube(
    path: Path,
    stores: Sequence[RunStore],
    *,
    times: Sequence[datetime],
    intervals: Sequence[tuple[datetime, datetime]],
    attrs: Mapping[str, Any],
) -> None:
    """All pairs as one array ``change_probability(time, y, x)``, with `start` and `end` of each pair over `time`.

    The stores' shards are linked (or copied, where the file system has no links), not computed or decoded again, and
    the cube appears in one step.

    Args:
        stores: finished, one a pair, of one grid and block size.
        times: the date that each pair tells of, ascending.
        intervals: the two dates of each pair.

    Raises:
        IntegrityError: a store has lost a shard.
    """

    def fill(draft: Path) -> None:
        for index, store in enumerate(stores):
            shards = store.path / "change_probability" / "c" / "0"
            for row, col in np.ndindex(-(-store.height // store.block), -(-store.width // store.block)):
                shard = shards / str(row) / str(col)
                if not shard.is_file():
                    raise IntegrityError(f"{shard} is missing, though its block was written")
                _link(shard, draft / "change_probability" / "c" / str(index) / str(row) / str(col))

    create_probability_cube(
        path, grid=stores[0].grid, times=times, intervals=intervals, block=stores[0].block, attrs=attrs, fill=fill
    )


def _link(shard: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(shard, target)
    except OSError:
        shutil.copyfile(shard, target)
