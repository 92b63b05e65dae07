"""The network can learn real imagery by heart: what could not be fitted could not be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dasnet.training.augmentation import Augmentation
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks
from dasnet.training.recipes import TrainingData, recipe_named
from tests.dasnet.training.training_data import Stored

SIDE = 96


class Windows:
    """The eight windows of 96 px with most change of LEVIR's four sample pairs, to train on and to validate on."""

    def __init__(self, folder: Path) -> None:
        cut = []
        for path in sorted((folder / "label").glob("*.png")):
            label = (np.asarray(Image.open(path)) > 127).astype(np.uint8)
            dates = [np.moveaxis(np.asarray(Image.open(folder / d / path.name))[..., :3], -1, 0) for d in ("A", "B")]
            for y in range(0, label.shape[0] - SIDE + 1, SIDE):
                for x in range(0, label.shape[1] - SIDE + 1, SIDE):
                    here = (slice(y, y + SIDE), slice(x, x + SIDE))
                    cut.append((label[here], *(date[(slice(None), *here)] for date in dates)))
        chosen = sorted(cut, key=lambda window: -int(window[0].sum()))[:8]
        self.label, self.before, self.after = (np.stack([w[n] for w in chosen]) for n in range(3))

    def indices(self, split: str) -> NDArray[np.int64]:
        return np.arange(8)

    def read(self, indices: Sequence[int]) -> Stored:
        i = list(indices)
        return Stored(self.before[i], self.after[i], np.ones((len(i), 2, SIDE, SIDE), dtype=bool), self.label[i])


@pytest.mark.timeout(500)
def test_eight_real_windows_are_learnt_by_heart(shared: Path, tmp_path: Path) -> None:
    source = Windows(shared / "data/pairs/levir")
    both = np.concatenate([source.before, source.after])
    run = TrainingRun(
        recipe=recipe_named(
            "cpu_small",
            augmentation=Augmentation(flips=False),
            dropout=0.0,
            balance=0.0,
            rate=4e-3,
            samples_per_epoch=80,
            epochs=8,
            seed=1,
            decoder="half",  # positions 8 px apart end at 0.905, whatever the steps: outlines are interpolated
        ),
        data=TrainingData(
            bands=tuple(
                (name, float(both[:, n].mean()), float(both[:, n].std()))
                for n, name in enumerate(("red", "green", "blue"))
            ),
            dtype="uint8",
            window=SIDE,
            frequency=ClassFrequency(changed=int(source.label.sum()), unchanged=int((1 - source.label).sum())),
            digest="windows",
        ),
        source=source,
        changed=np.arange(8),
        directory=tmp_path,
        ranks=Ranks(),
        threads=1,
    )
    assert run.run().best_f1 >= 0.95
