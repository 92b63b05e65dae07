"""compute-class-weights: count a dataset's labels over the cluster, keep frequencies and weights in the dataset."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dasnet.errors import TrainingError
from dasnet.training.class_frequency import TABLE_HEADER, ClassFrequency, table_one
from flows.cluster.layout import planned_layout
from flows.cluster.stage import when_needed
from flows.dataset.directory import CLASS_FREQUENCIES, DatasetDirectory
from flows.dataset.request import WeightsRequest
from flows.run.artifacts import Markdown, Table
from flows.run.observer import current_observer, step
from storage.datasets.store import DatasetStore, open_dataset
from tiling.conventions import SPLITS

if TYPE_CHECKING:
    from distributed import Client


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


def _counts(store: DatasetStore, first: int) -> NDArray[np.int64]:
    """(splits, 2): unchanged and changed pixels, by split, of the shard that begins with sample `first`."""
    labels = np.asarray(store.labels[first : first + store.shard])
    splits = store.splits[first : first + store.shard]
    return np.array([[(labels[splits == n] == value).sum() for value in (0, 1)] for n in range(len(SPLITS))])


@step("count labels")
def count_labels(store: DatasetStore, client: Client) -> dict[str, tuple[int, ClassFrequency]]:
    """Labelled pixels by split and class, a shard at a time on the workers."""
    shards = client.map(partial(_counts, store), range(0, len(store), store.shard), pure=False)
    totals = sum(client.gather(shards), np.zeros((len(SPLITS), 2), dtype=np.int64))
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
    # the store's description is rewritten whole: beside another process, what that has written would be lost
    with DatasetDirectory(store.path.parent).locked(), ExitStack() as until_end:
        client, _ = when_needed(request.cluster, until_end)()
        splits = count_labels(store, client)
        result = ClassWeights(dataset=store.path, splits=splits)
        try:
            result.training.weights  # noqa: B018  refuses infinite ones
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{store.path}, training split: {error}") from error
        facts = {name: {"samples": samples, **counted.to_dict()} for name, (samples, counted) in splits.items()}
        store.set_attrs({CLASS_FREQUENCIES: facts})
    table = table_one(splits)
    current_observer().show(Table("class-weights", TABLE_HEADER, table, "Labelled pixels by class, as in Table I"))
    listed = "\n".join(f"- **{what}**: {value}" for what, value in result.lines())
    current_observer().show(Markdown("weights", listed, "Weights of the classes"))
    current_observer().end(f"{len(store):,} samples, weights kept in {store.path}")
    return result
