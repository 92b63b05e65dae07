"""What the stages of prepare-dataset share: its directory, scenes that are opened once, what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.dataset.request import PrepareRequest
from flows.run.directory import RunDirectory

PICTURE_PX = 2**22
"""A scene up to this size is a picture; its file is read whole."""


CLASS_FREQUENCIES = "class_frequencies"
"""Attribute of the store: what `dasnet weights` has counted."""


class DatasetDirectory(RunDirectory[Path]):
    """``DIR/dataset.zarr``, complete or not there; beside it ``run.json``, ``ledger/``, the report."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store = path / "dataset.zarr"
        self.partial = path / ".dataset.zarr.partial"
        self.report = path / "report.html"
        self.contact_sheet = path / "contact_sheet.png"


def opening_of(request: PrepareRequest) -> dict[str, Any]:
    """How every scene of the dataset is opened."""
    return {
        "bands": request.bands,
        "resolution": request.grid_resolution,
        "said": request.said,
        "values": request.values,
    }
