"""prepare-dataset, cut: where the windows of every scene lie, and their samples, read and written shard by shard."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from flows.cluster.stage import Effort, Stage, Tool, run_stage
from flows.dataset.directory import PICTURE_PX, DatasetDirectory, opening_of
from flows.dataset.request import PrepareRequest
from flows.dataset.survey import Survey
from flows.dataset.tools import make_cut_tool
from flows.run.observer import current_observer
from storage.datasets.create import create_dataset
from storage.datasets.cut import Cutout
from storage.datasets.scenes import SceneFiles, open_scene
from storage.datasets.store import DatasetStore
from storage.errors import InputError
from storage.geometry import grid_facts, metres_a_pixel
from tiling.conventions import SPLITS
from tiling.zones import Zone, cells, columns, dealt, whole, windows_of

_HEADERS_OPENED = 1000
_FEW_PLACES = 10


def lay_out(request: PrepareRequest, scenes: list[SceneFiles], shapes: list[tuple[int, int]]) -> list[Cutout]:
    """Every window of every scene, with its split.

    Raises:
        InputError: too few scenes or cells to split them so.
    """
    strides = dict.fromkeys(SPLITS, request.window) | {"train": request.stride or request.window}
    shares = dict(zip(SPLITS, request.shares, strict=True))
    kind = request.split
    if kind == "auto":
        if all(scene.split is not None for scene in scenes):
            kind = "published"
        else:
            few = len({scene.place or scene.name for scene in scenes}) < _FEW_PLACES
            kind = "blocks" if few or max(h * w for h, w in shapes) > PICTURE_PX else "pictures"
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
                    row=place.window.y0,
                    col=place.window.x0,
                    height=place.inside.height,
                    width=place.inside.width,
                    split=place.split,
                )
                for zone in zones
                for place in windows_of(zone, window=request.window, stride=strides[zone.split])
            ]
    except ValueError as error:
        raise InputError(f"split {kind!r}: {error}") from error
    return cutouts


def cut(
    request: PrepareRequest,
    scenes: list[SceneFiles],
    survey: Survey,
    cutouts: list[Cutout],
    directory: DatasetDirectory,
    cluster: Any,
) -> None:
    """Read and write every shard of samples."""
    store, ledger = directory.partial, directory.ledger("cut")
    if store.exists():
        _require_same_rule(DatasetStore(store), survey)
    else:
        create_dataset(
            store,
            sources=[scenes[cutout.scene].name for cutout in cutouts],
            rows=[cutout.row for cutout in cutouts],
            cols=[cutout.col for cutout in cutouts],
            window=request.window,
            bands=request.band_names or survey.bands,
            dtype=survey.dtype,
            shard=request.shard,
            attrs={
                **_georeferencing(request, scenes, survey),
                **({} if survey.rule is None else {"label_rule": survey.rule.to_dict()}),
            },
        )
    shards = [(first, tuple(cutouts[first : first + request.shard])) for first in range(0, len(cutouts), request.shard)]
    if request.retry_failed:
        ledger.forget_failed("--retry-failed")
    result = run_stage(
        Stage(
            name="cut",
            tool=Tool(
                make=lambda layout: partial(
                    make_cut_tool, DatasetStore(store), scenes, opening_of(request), survey.rule, request.max_nodata
                )
            ),
            items=((f"{first:08d}", (first, part)) for first, part in shards),
            total=len(shards),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=request.cluster.in_flight, retries=request.retries),
    )
    directory.add_seconds("cut", result.seconds)
    rate = f", {result.computed * request.shard / result.seconds:.0f} samples/s" if result.computed else ""
    current_observer().end(f"{len(cutouts):,} windows of {request.window} px{rate}")
    result.require_all(directory.path)


def _require_same_rule(begun: DatasetStore, survey: Survey) -> None:
    """Refuse to go on with a store of the version before, which read labels by half of their range alone."""
    rule = survey.rule
    if rule is None or "label_rule" in begun.attrs or not (rule.ignored or rule.nodata or rule.reads_transparent):
        return
    raise InputError(f"{begun.path} was begun with another reading of labels than {rule}: prepare into a new directory")


def _georeferencing(request: PrepareRequest, scenes: list[SceneFiles], survey: Survey) -> dict[str, Any]:
    """Grid of each scene that has one, so that a sample's place on Earth can be told, and the size of its pixels."""
    grids, sizes = {}, []
    for scene, (height, width) in zip(scenes, survey.shapes, strict=True):
        if height * width <= PICTURE_PX and len(scenes) > _HEADERS_OPENED:
            continue
        grid = open_scene(scene, **opening_of(request)).grid
        if grid.crs is None:
            continue
        grids[scene.name] = {**grid_facts(grid), "shape": [height, width]}
        if grid.crs.geographic or grid.crs.projected:
            sizes.append(metres_a_pixel(grid))
    resolution = float(f"{np.median(sizes):.3g}") if sizes else request.resolution
    return {"scenes": grids, "resolution": resolution}
