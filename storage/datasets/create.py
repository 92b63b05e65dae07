"""New dataset stores: laid out, with the place of every sample, and no pixel yet.

What is in them says :mod:`storage.datasets.store`, which reads and writes their samples.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning

from storage.datasets.store import DATES, FORMAT, LEFT_OUT
from storage.stores.run_store import COMPRESSORS
from tiling.conventions import IGNORED, SPLITS


def create_dataset(
    path: Path,
    *,
    sources: Sequence[str],
    rows: Sequence[int],
    cols: Sequence[int],
    window: int,
    bands: Sequence[str],
    dtype: str,
    shard: int,
    attrs: Mapping[str, Any],
) -> None:
    """Create a store whose samples are all still left out; it appears at `path` when it is complete.

    Args:
        sources, rows, cols: scene and upper-left pixel of each of the N samples.
        window: side of a sample, pixels.
        shard: samples in one shard.
        attrs: what else the store should say of itself; JSON values.
    """
    count = len(sources)
    draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    table = xr.Dataset(
        coords={
            "source": ("sample", np.array(list(sources), dtype=object)),
            "row": ("sample", np.asarray(rows, dtype=np.int32)),
            "col": ("sample", np.asarray(cols, dtype=np.int32)),
            "split": (
                "sample",
                np.full(count, LEFT_OUT, dtype=np.int8),
                {"flag_values": [LEFT_OUT, *range(len(SPLITS))], "flag_meanings": " ".join(("left_out", *SPLITS))},
            ),
            "changed": ("sample", np.zeros(count, dtype=np.int64)),
            "unchanged": ("sample", np.zeros(count, dtype=np.int64)),
            "band": np.array(list(bands), dtype=object),
            "date": np.array(DATES, dtype=object),
        },
        attrs={**attrs, "format": FORMAT, "window": window},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # strings and consolidated metadata have no standard yet
        table.to_zarr(draft, mode="w", zarr_format=3, consolidated=False)
        group = zarr.open_group(draft, mode="r+")
        for name, middle, kind in (
            ("before", ("band",), dtype),
            ("after", ("band",), dtype),
            ("valid", ("date",), "bool"),
            ("label", (), "uint8"),
        ):
            depth = tuple({"band": len(bands), "date": len(DATES)}[dimension] for dimension in middle)
            group.create_array(
                name,
                shape=(count, *depth, window, window),
                dtype=kind,
                chunks=(1, *depth, window, window),
                shards=(shard, *depth, window, window),
                compressors=COMPRESSORS,
                dimension_names=("sample", *middle, "y", "x"),
                fill_value=IGNORED if name == "label" else 0,
            )
        zarr.consolidate_metadata(draft)
    draft.replace(path)
