"""What a worker runs to prepare a dataset: the survey of a scene, the cut of a shard of samples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from storage.datasets.cut import Cutout, cut_samples
from storage.datasets.label_rules import LabelRule
from storage.datasets.scenes import Scene, SceneFiles, open_scene, quiet_pictures
from storage.datasets.store import DatasetStore
from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Strip:
    """An item of the survey: rows of one large scene, or several small scenes as a whole (`rows` is None then)."""

    scenes: tuple[int, ...]
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class SurveyTool:
    """On a worker: opens scenes, counts the values of their labels. What is wrong with one is a fact, not a failure."""

    shelf: SceneShelf

    def __call__(self, item: Strip) -> Mapping[str, Any]:
        facts = {}
        for index in item.scenes:
            try:
                scene = self.shelf[index]
                rows = slice(*item.rows) if item.rows else slice(0, scene.height)
                counts = scene.label_counts(rows=rows, cols=slice(0, scene.width))
                facts[str(index)] = {
                    "histograms": {path: each.to_json() for path, each in counts.items()},
                    **describe_scene(scene),
                }
            except InputError as error:
                facts[str(index)] = {"error": str(error)}
        return {"scenes": facts}


def describe_scene(scene: Scene) -> dict[str, Any]:
    """What scenes of one dataset must agree in, and the shape; JSON values."""
    declared = scene.scale_and_offset
    return {
        "shape": [scene.height, scene.width],
        "bands": list(scene.bands),
        "dtype": scene.dtype,
        "notes": list(scene.notes),
        **({"unmarked": scene.polygons.path} if scene.polygons is not None and scene.polygons.is_elsewhere else {}),
        **({} if declared is None else {"scale_and_offset": [list(pair) for pair in declared]}),
    }


def make_survey_tool(files: list[SceneFiles], opening: Mapping[str, Any]) -> SurveyTool:
    return SurveyTool(shelf=SceneShelf(files, opening))


@dataclass(frozen=True, kw_only=True)
class CutTool:
    """On a worker: cuts the samples of one shard and writes it."""

    store: DatasetStore
    shelf: SceneShelf
    rule: LabelRule | None
    max_nodata: float

    def __call__(self, item: tuple[int, tuple[Cutout, ...]]) -> Mapping[str, Any]:
        first, cutouts = item
        scenes = {index: self.shelf[index] for index in {cutout.scene for cutout in cutouts}}
        digest, facts = cut_samples(
            self.store, scenes, cutouts, first=first, rule=self.rule, max_nodata=self.max_nodata
        )
        return {"digest": digest, "samples": [fact.to_json() for fact in facts]}


def make_cut_tool(
    store: DatasetStore,
    files: list[SceneFiles],
    opening: Mapping[str, Any],
    rule: LabelRule | None,
    max_nodata: float,
) -> CutTool:
    return CutTool(store=store, shelf=SceneShelf(files, opening), rule=rule, max_nodata=max_nodata)


_KEPT_OPEN = 64


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
