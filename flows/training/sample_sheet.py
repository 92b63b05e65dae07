"""The sheet of samples as the network sees them, augmented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dasnet.networks.change_network import ChangeNetwork
from dasnet.training.samples import assemble
from dasnet.training.validation import pixel_distances
from storage.datasets.store import DatasetStore, few_of
from storage.pages.contact_sheet import Panel, contact_sheet
from storage.places.publish import publish

_SHOWN = 6


class SampleSheet:
    """After an epoch: a picture of the same few validation samples, so that one sees the network learn."""

    def __init__(self, store: DatasetStore, path: Path) -> None:
        changed = store.changed("val")
        self._indices = few_of(changed if len(changed) else store.indices("val"), _SHOWN)
        self._store, self._path = store, path

    @torch.inference_mode()
    def __call__(
        self, model: nn.Module, normalise: Callable[[Any], torch.Tensor], cut: float, device: torch.device
    ) -> None:
        assert isinstance(model, ChangeNetwork)
        was_training = model.training
        model.eval()
        batch = assemble(self._store, self._indices, None, [0] * len(self._indices), device)
        fine = pixel_distances(model, normalise(batch)).clamp(0, 2).cpu().numpy()
        model.train(was_training)
        samples = self._store.read(self._indices)
        panels = [
            Panel(
                before=samples.before[n],
                after=samples.after[n],
                valid=samples.valid[n],
                label=samples.label[n],
                probability=fine[n] / 2,
                threshold=cut / 2,
                caption=f"{self._store.sources[index]}: before, after, label, distance / 2, judged",
            )
            for n, index in enumerate(self._indices)
        ]
        with publish(self._path) as draft:
            draft.write_bytes(contact_sheet(panels, bands=self._store.bands, columns=1))
