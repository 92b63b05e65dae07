"""prepare-dataset: find scenes → survey their labels → cut samples → look at what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dasnet.training.class_frequency import TABLE_HEADER, ClassFrequency, table_one
from flows.cluster.layout import planned_layout
from flows.cluster.stage import when_needed
from flows.dataset.cut import cut, lay_out
from flows.dataset.directory import DatasetDirectory, opening_of
from flows.dataset.report import DatasetSummary, write_dataset_report
from flows.dataset.request import PrepareRequest
from flows.dataset.survey import Survey, survey
from flows.run.artifacts import Picture, Table
from flows.run.observer import current_observer, step
from flows.run.planning import planning
from flows.run.versions import versions
from storage.datasets.cut import Cutout, SampleFacts, band_statistics
from storage.datasets.layouts import find_scenes
from storage.datasets.scenes import SceneFiles, open_scene, quiet_pictures
from storage.datasets.sharpness import sharpness_warnings, split_sharpness
from storage.datasets.store import LEFT_OUT, DatasetStore
from storage.errors import InputError
from storage.imagery.identity.digests import DigestCache
from tiling.conventions import SPLITS


@step("find scenes")
def find(request: PrepareRequest) -> list[SceneFiles]:
    """The scenes that a request names, none of them opened but the first."""
    planned_layout(request.cluster)
    if request.source is not None:
        scenes = find_scenes(request.source)
    else:
        scenes = [
            SceneFiles(
                name="scene",
                before=_spec(request.before),
                after=_spec(request.after),
                **{
                    name: str(path)
                    for name in ("label", "label_before", "label_after")
                    if (path := getattr(request, name)) is not None
                },
            )
        ]
    if request.split == "published" and (lacking := [s.name for s in scenes if s.split is None]):
        raise InputError(
            f"{request.source} has no published split: {lacking[0]} and {len(lacking) - 1} more are in none"
        )
    quiet_pictures()
    open_scene(scenes[0], **opening_of(request))  # what is wrong with all of them shows in the first
    return scenes


@step("digest inputs")
def adopt_directory(request: PrepareRequest, scenes: list[SceneFiles], directory: DatasetDirectory) -> None:
    """Digest the inputs and make the directory this dataset's; refuse one that holds another."""
    current_observer().begin("inputs", len(scenes), unit="scenes")
    cache = DigestCache(directory.digests)
    digests = cache.digest_files(sorted({path for scene in scenes for path in _paths(scene)}))
    identity, former = (_identity(request, scenes, digests, written) for written in (_as_json, repr))
    present = (directory.describe() or {}).get("identity", {})
    key = directory.adopt(
        # a directory of the version before has the digest of Python's own words for its scenes
        former if present.get("scenes") == former["scenes"] else identity,
        request=request.model_dump(mode="json"),
        versions=versions(),
    )
    cache.save()
    current_observer().end(f"{len(scenes):,} scenes in {len(digests):,} files, dataset {key[:12]}…")


def _identity(
    request: PrepareRequest, scenes: Sequence[SceneFiles], digests: Mapping[str, str], written: Callable[[Any], str]
) -> dict[str, Any]:
    """What a dataset depends on; `written` makes text of what is too long to stand there itself."""
    included = {"window", "stride", "bands", "band_names", "split", "shares", "cell", "seed", "max_nodata", "shard"}
    return {
        "kind": "dataset",
        "inputs": hashlib.sha256(written(sorted(digests.items())).encode()).hexdigest(),
        "scenes": hashlib.sha256(written(scenes).encode()).hexdigest(),
        "parameters": request.model_dump(mode="json", include=included),
        # a directory of the version before has no word of it
        **({"labels": named} if (named := request.label_options.to_dict()) else {}),
        **({"said": said} if (said := request.said.to_dict()) else {}),
        **({} if request.values is None else {"values": request.values}),
    }


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=asdict)


@step("finish")
def finish(
    request: PrepareRequest,
    scenes: list[SceneFiles],
    scene_survey: Survey,
    cutouts: list[Cutout],
    directory: DatasetDirectory,
) -> DatasetSummary:
    """Record splits and counts, look for leaks, write the report; then the store takes its name."""
    current_observer().begin("report", 1, unit="page")
    ledger = directory.ledger("cut")
    facts: list[SampleFacts] = []
    digest = hashlib.sha256()
    for first in range(0, len(cutouts), request.shard):
        entry = ledger.entry(f"{first:08d}")
        digest.update(entry.facts["digest"].encode())
        facts += [SampleFacts.from_json(row) for row in entry.facts["samples"]]
    splits = np.array(
        [SPLITS.index(cutout.split) if fact.is_kept else LEFT_OUT for cutout, fact in zip(cutouts, facts, strict=True)],
        dtype=np.int8,
    )
    digest.update(splits.tobytes())
    counts = {}
    for number, split in enumerate(SPLITS):
        chosen = [facts[i] for i in np.flatnonzero(splits == number)]
        frequency = ClassFrequency(
            changed=sum(fact.changed for fact in chosen), unchanged=sum(fact.unchanged for fact in chosen)
        )
        counts[split] = (len(chosen), frequency)
    sharpness = split_sharpness(
        {split: [facts[i].sharpness for i in np.flatnonzero(splits == number)] for number, split in enumerate(SPLITS)}
    )
    if not counts["train"][1].changed:
        raise InputError(
            f"not one changed pixel in the {counts['train'][0]:,} training samples (val {counts['val'][1].changed:,}, "
            f"test {counts['test'][1].changed:,} changed pixels): another --seed or --split may deal better"
        )
    if not counts["train"][1].unchanged:
        raise InputError(
            f"all that is labelled in the {counts['train'][0]:,} training samples is changed: nothing is unchanged by "
            f"the rule {scene_survey.rule or 'of its polygons'}"
        )
    partial_store = DatasetStore(directory.partial if directory.partial.exists() else directory.store)
    partial_store.finish(
        splits,
        changed=[fact.changed for fact in facts],
        unchanged=[fact.unchanged for fact in facts],
        attrs={
            "digest": digest.hexdigest(),
            "left_out": int((splits == LEFT_OUT).sum()),
            "bands": [
                {"name": name, "mean": mean, "std": deviation, **scaled}
                for name, (mean, deviation), scaled in zip(
                    partial_store.bands,
                    band_statistics([facts[i] for i in np.flatnonzero(splits == SPLITS.index("train"))]),
                    scene_survey.scaling,
                    strict=True,
                )
            ],
            "counts": {
                name: {"samples": samples, **frequency.to_dict()} for name, (samples, frequency) in counts.items()
            },
            "sharpness": [asdict(each) for each in sharpness],
        },
    )
    if directory.partial.exists():
        directory.partial.rename(directory.store)
    summary = write_dataset_report(
        directory,
        DatasetStore(directory.store),
        facts,
        survey=scene_survey,
        counts=counts,
        sharpness=sharpness,
        names=[s.name for s in scenes],
    )
    for text in sharpness_warnings(sharpness):
        current_observer().warn(text)
    directory.update(state="finished")
    current_observer().show(
        Table("table-1", TABLE_HEADER, table_one(counts), "Labelled pixels by class, as in Table I")
    )
    current_observer().show(
        Picture("contact-sheet", summary.contact_sheet.read_bytes(), "Samples: before, after, label")
    )
    current_observer().end(f"{summary.report.name}, {summary.contact_sheet.name}")
    return summary


def run_preparation(request: PrepareRequest) -> DatasetSummary:
    """Labelled imagery in; one dataset store, with a report of what is in it, out.

    Run it again with the same request after any interruption: finished shards are not cut again.
    """
    with planning(request):
        scenes = find(request)
    directory = DatasetDirectory(request.output)
    with directory.locked(), ExitStack() as until_cut:
        adopt_directory(request, scenes, directory)
        cluster = when_needed(request.cluster, until_cut)
        try:
            scene_survey = survey(request, scenes, directory, cluster)
            cutouts = lay_out(request, scenes, scene_survey.shapes)
        except InputError:
            # nothing was made yet: the same command must work when the input is mended
            directory.ledger("survey").remove()
            for left in (directory.description, directory.digests):
                left.unlink(missing_ok=True)
            if directory.ledger_directory.exists() and not any(directory.ledger_directory.iterdir()):
                directory.ledger_directory.rmdir()
            raise
        if not directory.store.exists():
            cut(request, scenes, scene_survey, cutouts, directory, cluster)
        until_cut.close()
        return finish(request, scenes, scene_survey, cutouts, directory)


def _spec(mosaic: Any) -> str | tuple[str, ...]:
    return str(mosaic) if isinstance(mosaic, str | Path) else tuple(str(path) for path in mosaic)


def _paths(scene: SceneFiles) -> Iterator[str]:
    for spec in (scene.before, scene.after, scene.label, scene.label_before, scene.label_after):
        if isinstance(spec, str):
            yield spec
        elif spec is not None:
            yield from spec
