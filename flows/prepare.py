"""prepare-dataset: find scenes → survey their labels → cut samples → look at what came of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from distributed import Client
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dasnet.class_frequency import TABLE_HEADER, ClassFrequency, table_one
from flows import artifacts
from flows.cluster import ClusterLayout, connect, require_cluster
from flows.console import current_reporter
from flows.dataset_config import PrepareRequest
from flows.dataset_report import DatasetSummary, write_dataset_report
from flows.endings import named_endings
from flows.failures import FailedBlocksError
from flows.fanout import StageResult, run_stage
from flows.run_directory import RunDirectory
from flows.versions import versions
from storage.cut import Cutout, SampleFacts, band_statistics, cut_samples
from storage.dataset_store import LEFT_OUT, SPLITS, DatasetStore, create_dataset
from storage.digests import digest_files
from storage.errors import InputError
from storage.label_values import coding_of, common_coding
from storage.layouts import find_scenes
from storage.scenes import Scene, SceneFiles, open_scene, quiet_pictures
from tiling.ledger import Ledger
from tiling.zones import Zone, cells, columns, dealt, whole, windows_of

_SURVEYED_PX = 32 * 2**20
"""Pixels of labels in one item of the survey: small scenes together, a large one in strips."""
_PICTURE_PX = 2**22
"""A scene up to this size is a picture; its file is read whole."""
_LISTED = 50
_HEADERS_OPENED = 1000
_FEW_PLACES = 10
_KEPT_OPEN = 64


class DatasetDirectory(RunDirectory):
    """``DIR/dataset.zarr``, complete or not there; beside it ``run.json``, ``ledger/``, the report."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store = path / "dataset.zarr"
        self.partial = path / ".dataset.zarr.partial"


@dataclass(frozen=True, kw_only=True)
class Strip:
    """An item of the survey: rows of one large scene, or several small scenes as a whole (`rows` is None then)."""

    scenes: tuple[int, ...]
    rows: tuple[int, int] | None = None


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


@dataclass(frozen=True, kw_only=True)
class SurveyTool:
    """On a worker: opens scenes, counts the values of their labels. What is wrong with one is a fact, not a failure."""

    shelf: SceneShelf

    def __call__(self, item: Strip) -> Mapping[str, Any]:
        found = {}
        for index in item.scenes:
            try:
                scene = self.shelf[index]
                rows = slice(*item.rows) if item.rows else slice(0, scene.height)
                histograms = scene.label_histograms(rows=rows, cols=slice(0, scene.width))
                found[str(index)] = {"histograms": histograms, **describe_scene(scene)}
            except InputError as error:
                found[str(index)] = {"error": str(error)}
        return {"scenes": found}


def describe_scene(scene: Scene) -> dict[str, Any]:
    """What scenes of one dataset must agree in, and the shape; JSON values."""
    return {"shape": [scene.height, scene.width], "bands": list(scene.bands), "dtype": scene.dtype}


@dataclass(frozen=True, kw_only=True)
class CutTool:
    """On a worker: cuts the samples of one shard and writes it."""

    store: DatasetStore
    shelf: SceneShelf
    coding: Literal["0/1", "0/255"]
    max_nodata: float

    def __call__(self, item: tuple[int, tuple[Cutout, ...]]) -> Mapping[str, Any]:
        first, cutouts = item
        scenes = {index: self.shelf[index] for index in {cutout.scene for cutout in cutouts}}
        digest, facts = cut_samples(
            self.store, scenes, cutouts, first=first, coding=self.coding, max_nodata=self.max_nodata
        )
        return {"digest": digest, "samples": [fact.to_json() for fact in facts]}


def make_survey_tool(files: list[SceneFiles], opening: Mapping[str, Any]) -> SurveyTool:
    return SurveyTool(shelf=SceneShelf(files, opening))


def make_cut_tool(
    store: DatasetStore,
    files: list[SceneFiles],
    opening: Mapping[str, Any],
    coding: Literal["0/1", "0/255"],
    max_nodata: float,
) -> CutTool:
    return CutTool(store=store, shelf=SceneShelf(files, opening), coding=coding, max_nodata=max_nodata)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the survey found: shape of each scene in their order, what all share, the coding of their labels."""

    shapes: list[tuple[int, int]]
    bands: tuple[str, ...]
    dtype: str
    coding: Literal["0/1", "0/255"]


@task(name="find scenes", task_run_name="find scenes", cache_policy=NO_CACHE, persist_result=False)
def find(request: PrepareRequest) -> list[SceneFiles]:
    """The scenes that a request names, none of them opened but the first."""
    require_cluster(request.cluster)
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
    open_scene(scenes[0], **_opening(request))  # what is wrong with all of them shows in the first
    return scenes


@task(name="digest inputs", task_run_name="digest inputs", cache_policy=NO_CACHE, persist_result=False)
def adopt_directory(request: PrepareRequest, scenes: list[SceneFiles], directory: DatasetDirectory) -> None:
    """Digest the inputs and make the directory this dataset's; refuse one that holds another."""
    current_reporter().begin("inputs", len(scenes), unit="scenes")
    digests = digest_files(sorted({path for scene in scenes for path in _paths(scene)}))
    key = directory.adopt(
        {
            "kind": "dataset",
            "inputs": hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest(),
            "scenes": hashlib.sha256(repr(scenes).encode()).hexdigest(),
            "parameters": request.model_dump(
                mode="json",
                include={
                    "window",
                    "stride",
                    "bands",
                    "band_names",
                    "split",
                    "shares",
                    "cell",
                    "seed",
                    "max_nodata",
                    "shard",
                },
            ),
        },
        request=request.model_dump(mode="json"),
        versions=versions(),
    )
    current_reporter().end(f"{len(scenes):,} scenes in {len(digests):,} files, dataset {key[:12]}…")


def survey(
    request: PrepareRequest,
    scenes: list[SceneFiles],
    directory: DatasetDirectory,
    cluster: Any,
) -> Survey:
    """Open every scene, read every label, find out how they code change.

    Raises:
        InputError: listing every scene that cannot be used.
    """
    ledger = directory.ledger("survey")
    items = list(_strips(scenes, _opening(request)))
    result = run_stage(
        "survey",
        cluster=cluster,
        make_tool=lambda layout: partial(make_survey_tool, scenes, _opening(request)),
        items=((f"s{number:06d}", strip) for number, strip in enumerate(items)),
        total=len(items),
        ledger=ledger,
        in_flight=request.cluster.in_flight,
        retries=request.retries,
        reporter=current_reporter(),
    )
    _raise_failed(result, directory)
    found = _judge(request, scenes, ledger)
    current_reporter().end(
        f"{len(scenes):,} scenes of {', '.join(found.bands)} ({found.dtype}), labels coded {found.coding}"
    )
    return found


def _judge(request: PrepareRequest, scenes: list[SceneFiles], ledger: Ledger) -> Survey:
    facts: dict[int, dict[str, Any]] = {}
    counts: dict[str, dict[float, int]] = {}
    errors: dict[int, str] = {}
    for entry in ledger.entries("done"):
        for key, found in entry.facts["scenes"].items():
            index = int(key)
            if "error" in found:
                errors[index] = found["error"]
                continue
            facts[index] = found
            for path, histogram in found["histograms"].items():
                total = counts.setdefault(path, {})
                for value, count in histogram.items():
                    total[float(value)] = total.get(float(value), 0) + count
    problems = [errors[index] for index in sorted(errors)]
    reference = facts[min(facts)] if facts else {}
    for index in sorted(facts):
        here, there = ((f"{len(f['bands'])} bands of {f['dtype']}") for f in (facts[index], reference))
        if here != there:
            problems.append(f"{scenes[index].name} has {here}, {scenes[min(facts)].name} has {there}")
    codings = {}
    for path, histogram in counts.items():
        try:
            codings[path] = coding_of(path, histogram)
        except InputError as error:
            problems.append(str(error))
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
    drawn = [scene for scene in scenes if scene.label is not None and scene.label not in counts]
    coding = "0/1" if drawn and not codings else common_coding(codings)
    return Survey(
        shapes=[(facts[i]["shape"][0], facts[i]["shape"][1]) for i in range(len(scenes))],
        bands=tuple(reference["bands"]),
        dtype=reference["dtype"],
        coding=coding,
    )


def lay_out(request: PrepareRequest, scenes: list[SceneFiles], shapes: list[tuple[int, int]]) -> list[Cutout]:
    """Every window of every scene, with its split.

    Raises:
        InputError: too few scenes or cells to split them so.
    """
    stride = request.stride or request.window
    shares = dict(zip(SPLITS, request.shares, strict=True))
    kind = request.split
    if kind == "auto":
        if all(scene.split is not None for scene in scenes):
            kind = "published"
        else:
            few = len({scene.place or scene.name for scene in scenes}) < _FEW_PLACES
            kind = "blocks" if few or max(h * w for h, w in shapes) > _PICTURE_PX else "pictures"
    try:
        named: dict[str, str] = {}
        if kind == "pictures":
            places = list(dict.fromkeys(scene.place or scene.name for scene in scenes))
            area = dict.fromkeys(places, 0)
            for scene, (height, width) in zip(scenes, shapes, strict=True):
                area[scene.place or scene.name] += height * width
            named = dict(zip(places, dealt(list(area.values()), seed=request.seed, shares=shares), strict=True))
        cutouts = []
        for index, (scene, (height, width)) in enumerate(zip(scenes, shapes, strict=True)):
            zones: list[Zone]
            if kind == "published":
                zones = whole(height, width, scene.split or "train")
            elif kind == "pictures":
                zones = whole(height, width, named[scene.place or scene.name])
            elif request.columns is not None:
                zones = columns(height, width, first=request.columns[0], second=request.columns[1])
            else:
                zones = cells(height, width, side=request.cell * request.window, seed=request.seed, shares=shares)
            cutouts += [
                Cutout(
                    scene=index,
                    row=found.window.y0,
                    col=found.window.x0,
                    height=found.inside.height,
                    width=found.inside.width,
                    split=found.split,
                )
                for zone in zones
                for found in windows_of(zone, window=request.window, stride=stride)
            ]
    except ValueError as error:
        raise InputError(f"split {kind!r}: {error}") from error
    return cutouts


def cut(
    request: PrepareRequest,
    scenes: list[SceneFiles],
    found: Survey,
    cutouts: list[Cutout],
    directory: DatasetDirectory,
    cluster: Any,
) -> None:
    """Read and write every shard of samples."""
    store, ledger = directory.partial, directory.ledger("cut")
    if not store.exists():
        create_dataset(
            store,
            sources=[scenes[cutout.scene].name for cutout in cutouts],
            rows=[cutout.row for cutout in cutouts],
            cols=[cutout.col for cutout in cutouts],
            window=request.window,
            bands=request.band_names or found.bands,
            dtype=found.dtype,
            shard=request.shard,
            attrs=_georeferencing(request, scenes, found),
        )
    shards = [(first, tuple(cutouts[first : first + request.shard])) for first in range(0, len(cutouts), request.shard)]
    if request.retry_failed:
        ledger.forget([entry.block for entry in ledger.entries("failed")], reason="--retry-failed")
    result = run_stage(
        "cut",
        cluster=cluster,
        make_tool=lambda layout: partial(
            make_cut_tool, DatasetStore(store), scenes, _opening(request), found.coding, request.max_nodata
        ),
        items=((f"{first:08d}", (first, part)) for first, part in shards),
        total=len(shards),
        ledger=ledger,
        in_flight=request.cluster.in_flight,
        retries=request.retries,
        reporter=current_reporter(),
    )
    directory.add_seconds("cut", result.seconds)
    rate = f", {result.computed * request.shard / result.seconds:.0f} samples/s" if result.computed else ""
    current_reporter().end(f"{len(cutouts):,} windows of {request.window} px{rate}")
    _raise_failed(result, directory)


@task(name="finish", task_run_name="finish", cache_policy=NO_CACHE, persist_result=False)
def finish(
    request: PrepareRequest, scenes: list[SceneFiles], cutouts: list[Cutout], directory: DatasetDirectory
) -> DatasetSummary:
    """Record splits and counts, look for leaks, write the report; then the store takes its name."""
    current_reporter().begin("report", 1, unit="page")
    ledger = directory.ledger("cut")
    facts: list[SampleFacts] = []
    digest = hashlib.sha256()
    for first in range(0, len(cutouts), request.shard):
        entry = ledger.entry(f"{first:08d}")
        digest.update(entry.facts["digest"].encode())
        facts += [SampleFacts.from_json(row) for row in entry.facts["samples"]]
    splits = np.array(
        [SPLITS.index(cutout.split) if fact.kept else LEFT_OUT for cutout, fact in zip(cutouts, facts, strict=True)],
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
    if not counts["train"][1].changed:
        raise InputError(
            f"not one changed pixel in the {counts['train'][0]:,} training samples (val {counts['val'][1].changed:,}, "
            f"test {counts['test'][1].changed:,} changed pixels): another --seed or --split may deal better"
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
                {"name": name, "mean": mean, "std": deviation}
                for name, (mean, deviation) in zip(
                    partial_store.bands,
                    band_statistics([facts[i] for i in np.flatnonzero(splits == SPLITS.index("train"))]),
                    strict=True,
                )
            ],
            "counts": {name: {"samples": samples, **found.to_dict()} for name, (samples, found) in counts.items()},
        },
    )
    if directory.partial.exists():
        directory.partial.rename(directory.store)
    summary = write_dataset_report(
        directory.path, DatasetStore(directory.store), facts, counts=counts, names=[s.name for s in scenes]
    )
    directory.update(state="finished")
    artifacts.show_table("table-1", TABLE_HEADER, table_one(counts), "Labelled pixels by class, as in Table I")
    artifacts.show_picture("contact-sheet", summary.contact_sheet.read_bytes(), "Samples: before, after, label")
    current_reporter().end(f"{summary.report.name}, {summary.contact_sheet.name}")
    return summary


@flow(name="prepare-dataset", flow_run_name="{request.output.name}", persist_result=False)
@named_endings
def prepare_dataset(request: PrepareRequest) -> DatasetSummary:
    """Labelled imagery in; one dataset store, with a report of what is in it, out.

    Run it again with the same request after any interruption: finished shards are not cut again.
    """
    scenes = find(request)
    directory = DatasetDirectory(request.output)
    with directory.locked(), ExitStack() as until_cut:
        adopt_directory(request, scenes, directory)
        connected: list[tuple[Client, ClusterLayout]] = []

        def cluster() -> tuple[Client, ClusterLayout]:
            if not connected:
                connected.append(until_cut.enter_context(connect(request.cluster)))
                artifacts.show_dashboard(connected[0][0].dashboard_link)
            return connected[0]

        try:
            found = survey(request, scenes, directory, cluster)
            cutouts = lay_out(request, scenes, found.shapes)
        except InputError:
            # nothing was made yet: the same command must work when the input is mended
            directory.ledger("survey").path.unlink(missing_ok=True)
            directory.description.unlink(missing_ok=True)
            if directory.ledger_directory.exists() and not any(directory.ledger_directory.iterdir()):
                directory.ledger_directory.rmdir()
            raise
        if not directory.store.exists():
            cut(request, scenes, found, cutouts, directory, cluster)
        until_cut.close()
        return finish(request, scenes, cutouts, directory)


def _opening(request: PrepareRequest) -> dict[str, Any]:
    """How every scene of the dataset is opened."""
    return {"bands": request.bands, "resolution": request.grid_resolution}


def _spec(given: Any) -> str | tuple[str, ...]:
    return str(given) if isinstance(given, str | Path) else tuple(str(path) for path in given)


def _paths(scene: SceneFiles) -> Iterator[str]:
    for spec in (scene.before, scene.after, scene.label, scene.label_before, scene.label_after):
        if isinstance(spec, str):
            yield spec
        elif spec is not None:
            yield from spec


def _strips(scenes: list[SceneFiles], opening: Mapping[str, Any]) -> Iterator[Strip]:
    """Scenes in groups of some million pixels; one that is larger alone, row by row of strips.

    The size of a scene is known from its file's alone: opening tens of thousands of headers is the workers' part.
    """
    group: list[int] = []
    for index, scene in enumerate(scenes):
        path = Path(scene.before) if isinstance(scene.before, str) else None
        if path is not None and path.is_file() and path.stat().st_size <= _PICTURE_PX * 3 and len(scenes) > 1:
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


def _georeferencing(request: PrepareRequest, scenes: list[SceneFiles], found: Survey) -> dict[str, Any]:
    """Grid of each scene that has one, so that a sample's place on Earth can be told, and the size of its pixels."""
    grids, sizes = {}, []
    for scene, (height, width) in zip(scenes, found.shapes, strict=True):
        if height * width <= _PICTURE_PX and len(scenes) > _HEADERS_OPENED:
            continue
        grid = open_scene(scene, **_opening(request)).grid
        if grid.crs is None:
            continue
        grids[scene.name] = {
            "crs": str(grid.crs),
            "transform": list(grid.affine)[:6],
            "shape": [height, width],
        }
        if grid.crs.projected:
            sizes.append(abs(grid.resolution.x))
    resolution = request.resolution or (float(np.median(sizes)) if sizes else None)
    return {"scenes": grids, "resolution": resolution}


def _raise_failed(result: StageResult, directory: DatasetDirectory) -> None:
    if result.failed:
        raise FailedBlocksError(result.failed, total=result.done + len(result.failed), directory=directory.path)
