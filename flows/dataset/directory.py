"""What the stages of prepare-dataset share: its directory, scenes that are opened once, what failed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.cluster.stage import StageResult
from flows.dataset.request import PrepareRequest
from flows.failures import FailedBlocksError
from flows.run.directory import RunDirectory
from storage.datasets.scenes import Scene, SceneFiles, open_scene, quiet_pictures

PICTURE_PX = 2**22
"""A scene up to this size is a picture; its file is read whole."""

_KEPT_OPEN = 64


class DatasetDirectory(RunDirectory):
    """``DIR/dataset.zarr``, complete or not there; beside it ``run.json``, ``ledger/``, the report."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store = path / "dataset.zarr"
        self.partial = path / ".dataset.zarr.partial"


class SceneShelf:
    """On a worker: scenes by index, opened when asked for, the last ones kept open."""

    def __init__(self, files: list[SceneFiles], opening: Mapping[str, Any]) -> None:
        quiet_pictures()
        self._files, self._opening = files, opening
        self._open: OrderedDict[int, Scene] = OrderedDict()

    def __getitem__(self, index: int) -> Scene:
        scene = self._open.get(index)
        if scene is None:
            self._open[index] = scene = open_scene(self._files[index], **self._opening)
            while len(self._open) > _KEPT_OPEN:
                with suppress(KeyError):  # another thread was faster
                    self._open.popitem(last=False)
        return scene


def opening_of(request: PrepareRequest) -> dict[str, Any]:
    """How every scene of the dataset is opened."""
    return {"bands": request.bands, "resolution": request.grid_resolution}


def raise_failed(result: StageResult, directory: DatasetDirectory) -> None:
    """FailedBlocksError where a stage could not finish all its items."""
    if result.failed:
        raise FailedBlocksError(result.failed, total=result.done + len(result.failed), directory=directory.path)
