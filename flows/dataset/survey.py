"""prepare-dataset, survey: every scene is opened and its label read: what they share, and how change is coded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows.cluster.stage import Effort, Stage, Tool, run_stage
from flows.dataset.directory import PICTURE_PX, DatasetDirectory, opening_of
from flows.dataset.request import PrepareRequest
from flows.dataset.tools import Strip, make_survey_tool
from flows.run.observer import current_observer
from storage.datasets.label_rules import LabelError, LabelRule, rule_of
from storage.datasets.label_values import LabelCounts
from storage.datasets.scenes import SceneFiles, open_scene
from storage.errors import InputError
from tiling.ledger import Ledger

_SURVEYED_PX = 8 * 2**20
"""Pixels of labels in one item of the survey: small scenes together, a large one in strips. Counting their values takes
some twenty bytes of memory a pixel."""
_LISTED = 50
_WARNED = 5


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the survey found: shape of each scene in their order, what all share, how their labels are read.

    Attributes:
        rule: of label rasters; None where polygons say what changed.
        notes: what is remarkable about the labels' grids and palettes.
        scale_and_offset: [scale, offset] of each band, as the imagery declares it; None = it declares nothing.
    """

    shapes: list[tuple[int, int]]
    bands: tuple[str, ...]
    dtype: str
    rule: LabelRule | None
    notes: tuple[str, ...] = ()
    scale_and_offset: list[list[float]] | None = None

    @property
    def scaling(self) -> list[dict[str, float]]:
        """Scale and offset of each band by name, for the dataset's description; nothing where none is declared."""
        if self.scale_and_offset is None:
            return [{} for _ in self.bands]
        return [{"scale": scale, "offset": offset} for scale, offset in self.scale_and_offset]


def survey(request: PrepareRequest, scenes: list[SceneFiles], directory: DatasetDirectory, cluster: Any) -> Survey:
    """Open every scene, read every label, find out how they code change.

    Raises:
        InputError: listing every scene that cannot be used.
    """
    ledger = directory.ledger("survey")
    items = list(_strips(scenes, opening_of(request)))
    result = run_stage(
        Stage(
            name="survey",
            tool=Tool(make=lambda layout: partial(make_survey_tool, scenes, opening_of(request))),
            items=((f"s{number:06d}", strip) for number, strip in enumerate(items)),
            total=len(items),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=request.cluster.in_flight, retries=request.retries),
    )
    result.require_all(directory.path)
    summary = _judge(request, scenes, ledger)
    current_observer().end(
        f"{len(scenes):,} scenes of {', '.join(summary.bands)} ({summary.dtype}), labels: "
        f"{summary.rule or 'polygons, changed inside'}"
    )
    warnings = [*(() if summary.rule is None else summary.rule.warnings), *summary.notes]
    for text in warnings[:_WARNED]:
        current_observer().warn(text)
    if len(warnings) > _WARNED:
        current_observer().warn(f"{len(warnings) - _WARNED:,} more like these, in the report")
    return summary


def _judge(request: PrepareRequest, scenes: list[SceneFiles], ledger: Ledger) -> Survey:
    facts: dict[int, dict[str, Any]] = {}
    counts: dict[str, LabelCounts] = {}
    errors: dict[int, str] = {}
    for entry in ledger.entries("done"):
        for key, scene in entry.facts["scenes"].items():
            index = int(key)
            if "error" in scene:
                errors[index] = scene["error"]
                continue
            facts[index] = scene
            for path, histogram in scene["histograms"].items():
                counts[path] = counts.get(path, LabelCounts()) + LabelCounts.from_json(histogram)
    problems = [errors[index] for index in sorted(errors)]
    reference = facts[min(facts)] if facts else {}
    for index in sorted(facts):
        own, first = (_values_of(each) for each in (facts[index], reference))
        if own != first:
            problems.append(f"{scenes[index].name} has {own}, {scenes[min(facts)].name} has {first}")
    rule = None
    try:
        if counts:
            are_masks = any(scene.label is None for scene in scenes)
            rule = rule_of(dict(sorted(counts.items())), request.label_options, are_masks=are_masks)
    except LabelError as error:
        if not (error.is_of_all and problems):  # it may be wrong because some are missing
            problems += error.problems
    if not counts and facts and all("unmarked" in scene for scene in facts.values()):
        path = reference["unmarked"]
        problems.append(f"no polygon of {path} lies on its images, so nothing is changed: are its coordinates x and y?")
    if problems:
        more = f"\n  … and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(
            problems[0]
            if len(problems) == 1
            else f"{len(problems)} scenes cannot be used:\n  " + "\n  ".join(problems[:_LISTED]) + more
        )
    if request.band_names is not None and len(request.band_names) != len(reference["bands"]):
        raise InputError(
            f"--band-names gives {len(request.band_names)} names ({', '.join(request.band_names)}) to "
            f"{len(reference['bands'])} bands"
        )
    return Survey(
        shapes=[(facts[i]["shape"][0], facts[i]["shape"][1]) for i in range(len(scenes))],
        bands=tuple(reference["bands"]),
        dtype=reference["dtype"],
        scale_and_offset=reference.get("scale_and_offset"),
        rule=rule,
        notes=tuple(dict.fromkeys(note for i in sorted(facts) for note in facts[i].get("notes", ()))),
    )


def _values_of(facts: Mapping[str, Any]) -> str:
    """Bands, type and scale of a scene, in which all of one dataset must agree."""
    declared = facts.get("scale_and_offset")
    words = f"{len(facts['bands'])} bands of {facts['dtype']}"
    return f"{words} with scale and offset {declared}" if declared else words


def _strips(scenes: list[SceneFiles], opening: Mapping[str, Any]) -> Iterator[Strip]:
    """Scenes in groups of some million pixels; one that is larger alone, row by row of strips.

    The size of a scene is known from its file's alone: opening tens of thousands of headers is the workers' part.
    """
    group: list[int] = []
    for index, scene in enumerate(scenes):
        path = Path(scene.before) if isinstance(scene.before, str) else None
        if path is not None and path.is_file() and path.stat().st_size <= PICTURE_PX * 3 and len(scenes) > 1:
            group.append(index)
            if len(group) == 64:
                yield Strip(scenes=tuple(group))
                group = []
            continue
        opened = open_scene(scene, **opening)
        rows = max(_SURVEYED_PX // opened.width // 256 * 256, 256)
        for top in range(0, opened.height, rows):
            yield Strip(scenes=(index,), rows=(top, min(top + rows, opened.height)))
    if group:
        yield Strip(scenes=tuple(group))
