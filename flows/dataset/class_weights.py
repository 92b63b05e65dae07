"""compute-class-weights: count a dataset's labels over the cluster, keep frequencies and weights in the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from dasnet.errors import TrainingError
from dasnet.training.class_frequency import TABLE_HEADER, ClassFrequency, table_one
from flows.cluster.connect import connect
from flows.cluster.layout import planned_layout
from flows.dataset.fitting import ATTRIBUTE
from flows.dataset.request import WeightsRequest
from flows.run.artifacts import Markdown, Table
from flows.run.observer import current_observer, step
from storage.datasets.store import DatasetStore, open_dataset
from tiling.conventions import SPLITS


@dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """Labelled pixels of each split, and the weights that the training split gives.

    Attributes:
        splits: (samples, frequency) by split; splits without a sample are left out.
    """

    dataset: Path
    splits: dict[str, tuple[int, ClassFrequency]]

    @property
    def training(self) -> ClassFrequency:
        return self.splits["train"][1]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        (w1, w2), (n1, n2) = self.training.weights, self.training.normalised_weights
        return [
            *(
                (row[0], f"{row[2]} changed, {row[3]} unchanged, ratio {row[4]}, {row[1]} samples")
                for row in table_one(self.splits)
            ),
            ("P_C, P_U", f"{self.training.share_changed:.5f}, {self.training.share_unchanged:.5f}"),
            ("w1, w2", f"{w1:.4f} for unchanged, {w2:.4f} for changed pairs"),
            ("normalised", f"{n1:.4f}, {n2:.4f}"),
        ]


def _counts(labels: NDArray[np.uint8], splits: NDArray[np.int8]) -> NDArray[np.int64]:
    """(1, 1, 1, splits, 2): unchanged and changed pixels of a chunk (n, s, s) by split."""
    found = [[(labels[splits == n] == value).sum() for value in (0, 1)] for n in range(len(SPLITS))]
    return np.array(found, dtype=np.int64)[None, None, None]


@step("count labels")
def count_labels(store: DatasetStore, client: Client) -> dict[str, tuple[int, ClassFrequency]]:
    """Labelled pixels by split and class, a shard at a time on the workers."""
    labels = da.from_array(store.labels, chunks=store.labels.shards)
    per_chunk = [
        da.map_blocks(
            _counts,
            labels[first : first + store.shard],
            store.splits[first : first + store.shard],
            chunks=((1,), (1,), (1,), (len(SPLITS),), (2,)),
            new_axis=[3, 4],
            dtype=np.int64,
            meta=np.empty((0, 0, 0, 0, 0), dtype=np.int64),
        )
        for first in range(0, len(store), store.shard)
    ]
    totals = client.compute(da.concatenate(per_chunk).sum(axis=(0, 1, 2))).result()
    return {
        split: (
            int((store.splits == number).sum()),
            ClassFrequency(unchanged=int(totals[number, 0]), changed=int(totals[number, 1])),
        )
        for number, split in enumerate(SPLITS)
        if (store.splits == number).any()
    }


def count_class_weights(request: WeightsRequest) -> ClassWeights:
    """P_U and P_C over the training split, w1 = 1/P_U and w2 = 1/P_C, kept in the dataset's attributes.

    Raises:
        TrainingError: the training split has one class alone: a weight would be infinite.
    """
    planned_layout(request.cluster)
    store = open_dataset(request.dataset)
    current_observer().begin("count", 1, unit="dataset")
    with connect(request.cluster) as (client, _):
        splits = count_labels(store, client)
    result = ClassWeights(dataset=store.path, splits=splits)
    try:
        result.training.weights  # noqa: B018  refuses infinite ones
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{store.path}, training split: {error}") from error
    store.set_attrs({ATTRIBUTE: {name: {"samples": n, **found.to_dict()} for name, (n, found) in splits.items()}})
    current_observer().show(
        Table("class-weights", TABLE_HEADER, table_one(splits), "Labelled pixels by class, as in Table I")
    )
    current_observer().show(
        Markdown(
            "weights", "\n".join(f"- **{what}**: {value}" for what, value in result.lines()), "Weights of the classes"
        )
    )
    current_observer().end(f"{len(store):,} samples, weights kept in {store.path}")
    return result
