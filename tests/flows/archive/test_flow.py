"""An archive through the real flow: a Prefect server, a Dask cluster, GeoTIFFs in, products out; twice and thrice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
import torch
import xarray as xr
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from prefect import flow
from prefect.client.orchestration import get_client
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from dasnet.prediction.bundle import load_bundle, save_bundle
from dasnet.prediction.predictor import DasnetPredictor
from flows.archive.directory import ArchiveDirectory
from flows.archive.job import ArchiveJob, resolve_archive
from flows.archive.overview import ArchiveSummary
from flows.archive.request import ReprocessRequest
from flows.archive.run import run_reprocessing
from flows.archive.work import PAIRS, ArchiveWork, cell_work, set_back_pairs, work_of
from flows.cli.status import directory_status
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.inference.planned import read_name
from flows.run.directory import DifferentRunError
from flows.run.errors import FailedCellsError
from flows.run.prefect_observer import observed_flow
from storage.errors import InputError, IntegrityError
from storage.synthetic.pair import synthesize
from storage.synthetic.scene import PseudoChange
from tests.flows.conftest import Dasnet
from tiling.ledger import Entry, Ledger
from tiling.plan import RefusedPlanError
from tiling.protocols import Prediction, Predictor

BLOCK = 192
HEIGHT, WIDTH = 300, 420
BLOCKS = 6
DAYS = ("2018-06-01", "2019-06-03", "2020-05-28", "2021-06-02")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One worker for all runs of this module: starting it is most of a small run's time."""
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as running, Client(running):
        yield running.scheduler_address


@dataclass(frozen=True)
class Archive:
    """Four dates of one landscape; houses come between the second and the third.

    Attributes:
        files: of each date; the second one is in two pieces, west and east.
        catalogue: a static STAC catalogue of them, one item a file.
    """

    files: list[list[Path]]
    catalogue: Path

    @property
    def folder(self) -> Path:
        return self.catalogue.parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("dates")
    root = pystac.Catalog(id="dates", description="four dates")
    files = []
    for number, day in enumerate(DAYS):
        pseudo = PseudoChange(season=0.1 * number, haze=0.05 * number)
        pair = synthesize(folder / "made", height=HEIGHT, width=WIDTH, seed=3, pseudo=pseudo, block=256)
        with rasterio.open(pair.before if number < 2 else pair.after) as source:
            pieces = [slice(0, 200), slice(200, WIDTH)] if number == 1 else [slice(0, WIDTH)]
            files.append([_piece(source, cols, folder, day, name) for cols, name in zip(pieces, "we", strict=False)])
        for path in files[-1]:
            root.add_item(_item(path, f"{day}T10:30:00Z"))
    shutil.rmtree(folder / "made")
    root.normalize_hrefs(str(folder))
    root.make_all_asset_hrefs_relative()
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return Archive(files=files, catalogue=folder / "catalog.json")


def _piece(source: rasterio.DatasetReader, cols: slice, folder: Path, day: str, name: str) -> Path:
    path = folder / f"{day.replace('-', '')}-{name}.tif"
    window = rasterio.windows.Window.from_slices((0, HEIGHT), cols)
    profile = {**source.profile, "width": window.width, "transform": source.window_transform(window)}
    with rasterio.open(path, "w", **profile) as file:
        file.write(source.read(window=window))
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{day}T10:30:00")
    return path


def _item(path: Path, time: str) -> pystac.Item:
    with rasterio.open(path) as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    outline = json.loads(json.dumps(shapely.geometry.mapping(shapely.geometry.box(*bounds))))
    moment = datetime.fromisoformat(time)
    found = pystac.Item(id=path.stem, geometry=outline, bbox=list(bounds), datetime=moment, properties={})
    found.add_asset("image", pystac.Asset(href=str(path), media_type=pystac.MediaType.COG, roles=["data"]))
    return found


def request_of(source: str | Path | list[Path], output: Path, cluster: str, **changes: Any) -> ReprocessRequest:
    values = {
        "archive": [str(path) for path in source] if isinstance(source, list) else str(source),
        "output": output,
        "block": BLOCK,
        "cell": 2 * BLOCK,
        "precision": "float32",
        "cluster": {"kind": cluster, "lanes": 1},
    }
    return ReprocessRequest.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def three(archive: Archive, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ArchiveSummary]:
    """The first three dates of the catalogue, done."""
    output = tmp_path_factory.mktemp("archives") / "three"
    return output, run_reprocessing(request_of(archive.catalogue, output, cluster, end=DAYS[2]))


def _work(job: ArchiveJob) -> ArchiveWork:
    return work_of(job, ArchiveDirectory(job))


def plan_of(request: ReprocessRequest) -> str:
    """What a dry run says."""
    return "\n".join(f"{what}: {value}" for what, value in _work(resolve_archive(request)).describe())


def version_of(output: Path) -> Path:
    (version,) = (output / "versions").iterdir()
    return version


def pixels(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        found: NDArray[Any] = file.read(1)
        return found


def stitched(version: Path, *name: str) -> NDArray[Any]:
    """A product of the two cells beside each other."""
    cells = sorted((version / "cells").iterdir())
    assert [cell.name for cell in cells] == ["cell-r000c000", "cell-r000c001"]
    return np.concatenate([pixels(cell.joinpath(*name)) for cell in cells], axis=1)


def pairs_in(version: Path) -> list[str]:
    return sorted(
        path.name for path in (version / "cells" / "cell-r000c000").iterdir() if "_" in path.name and path.is_dir()
    )


def computed(output: Path) -> int:
    """Blocks of probability that were ever computed, over all versions, cells and pairs."""
    return sum(
        len(entry.facts["digests"])
        for ledger in output.glob("versions/*/cells/*/ledger/infer.jsonl")
        for entry in Ledger(ledger.parent, "infer").entries("done")
    )


def test_a_pair_has_the_bytes_of_a_run_of_its_own_whatever_the_cells(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    version = version_of(three[0])
    for first, name in enumerate(pairs_in(version)):
        run_detection(
            DetectRequest.model_validate(
                {
                    "before": [str(path) for path in archive.files[first]],
                    "after": [str(path) for path in archive.files[first + 1]],
                    "output": tmp_path / str(first),
                    "block": 256,
                    "precision": "float32",
                    "cluster": {"kind": cluster, "lanes": 1},
                }
            )
        )
        alone = pixels(tmp_path / str(first) / "change_probability.tif")
        assert alone.shape == (HEIGHT, WIDTH)
        assert first == 0 or len(np.unique(alone)) > 50  # nothing happens between the first two
        assert np.array_equal(stitched(version, name, "change_probability.tif"), alone)


def test_cube_and_maps_agree_with_the_pairs(three: tuple[Path, ArchiveSummary]) -> None:
    version = version_of(three[0])
    stored = np.stack([stitched(version, name, "change_probability.tif") for name in pairs_in(version)])
    cube = xr.open_zarr(version / "cube.zarr", decode_coords="all")
    assert cube.rio.crs.to_epsg() == 32631
    assert [str(time)[:10] for time in cube["time"].to_numpy()] == list(DAYS[1:3])
    assert [str(time)[:10] for time in cube["start"].to_numpy()] == list(DAYS[:2])
    expected = np.where(stored == 255, np.nan, stored / 254)
    assert np.allclose(cube["change_probability"].to_numpy(), expected, atol=1e-6, equal_nan=True)
    known = (stored != 255).any(axis=0)
    peak = np.where(known, np.where(stored == 255, 0, stored).max(axis=0), 255)
    assert np.array_equal(stitched(version, "peak_probability.tif"), peak)
    threshold = load_bundle("synthetic").threshold
    above = (stored != 255) & (stored / 254 >= threshold)
    first = np.where(above[0], 20190603, np.where(above[1], 20200528, 0))
    first[~known] = -1
    assert above[1].any() and not known.all()
    assert np.array_equal(stitched(version, "first_change.tif"), first)


def test_the_houses_came_when_they_came(three: tuple[Path, ArchiveSummary]) -> None:
    (early, late) = (found for *_, found in three[1].pairs)
    assert late.changed_m2 > 10 * early.changed_m2
    assert late.valid_pixels == sum(
        int((pixels(path / "change_probability.tif") != 255).sum())
        for path in version_of(three[0]).glob(f"cells/*/{DAYS[1]}_*")
    )


def test_collection_and_items_are_valid_stac_and_lead_to_each_other(
    three: tuple[Path, ArchiveSummary], archive: Archive
) -> None:
    version = version_of(three[0])
    content = json.loads((version / "collection.json").read_text())
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.COLLECTION, content["stac_version"])
    collection = pystac.Collection.from_file(str(version / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 2 * 2
    for item in items:
        described = item.to_dict(include_self_link=False, transform_hrefs=False)
        JsonSchemaSTACValidator().validate_core(described, pystac.STACObjectType.ITEM, described["stac_version"])
        assert item.get_collection() is collection
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href() or "").exists()
        days = {described["properties"][f"{end}_datetime"][:10] for end in ("start", "end")}
        sources = {Path(link.get_absolute_href() or "").resolve() for link in item.get_links("derived_from")}
        assert sources == {
            (archive.folder / path.stem / f"{path.stem}.json").resolve()
            for day, files in zip(DAYS, archive.files, strict=True)
            if day in days
            for path in files
        }
        assert all(source.exists() for source in sources)
    assert len({item.id for item in items}) == 4
    for asset in collection.assets.values():
        assert Path(asset.get_absolute_href() or "").exists()


def test_the_timeline_shows_each_pair_and_when_changes_were_first_seen(
    three: tuple[Path, ArchiveSummary], archive: Archive, browser: Any
) -> None:
    version = version_of(three[0])
    first = stitched(version, "first_change.tif")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((version / "timeline.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out on a phone
    words = [f"{start} to {end}" for start, end, _ in three[1].pairs]
    legend = page.locator(".legend li").all_inner_texts()
    for entry, name, day in zip(legend, words, (20190603, 20200528), strict=False):
        assert entry.startswith(name)
        # a picture of this size shows every pixel
        assert float(entry.rpartition(", ")[2].rstrip("%")) == pytest.approx(
            100 * (first == day).sum() / (first != -1).sum(), abs=0.06
        )
    # the pair with the most change is shown first; a bar or a picture chooses another
    said = page.locator("#said")
    assert said.inner_text().startswith(words[1])
    page.locator(".chart button").first.click()
    assert said.inner_text().startswith(words[0])
    assert [page.locator(f"#{tag}-tag").inner_text() for tag in ("left", "right")] == list(DAYS[:2])
    page.locator("#pairs button").nth(1).click()
    assert said.inner_text().startswith(words[1])
    page.locator("#mode").select_option("probability")
    assert page.locator("#right").get_attribute("src") == page.locator("#pairs img").nth(1).get_attribute("src")
    masks = [rasterio.open(path).dataset_mask() > 0 for path in archive.files[1]]
    note = f"{np.concatenate(masks, axis=1).mean():.1%} valid, of 2 files"
    assert page.locator("#dates figcaption").nth(1).inner_text() == f"{DAYS[1]}\n{note}"
    assert not errors
    assert all(url.startswith(("file:", "data:")) for url in asked)
    page.close()


def test_again_nothing_is_computed_and_no_product_changes(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str
) -> None:
    output, summary = three
    before = {path: path.stat().st_mtime_ns for path in output.glob("versions/*/cells/**/*.*") if path.is_file()}
    count = computed(output)
    request = request_of(archive.catalogue, output, cluster, end=DAYS[2])
    plan = plan_of(request)
    assert plan.count("there already") == 3 + 2 + 1  # dates, pairs, the version
    assert "computes: 0 blocks" in plan
    again = run_reprocessing(request)
    assert computed(output) == count == 2 * BLOCKS
    assert again.pairs == summary.pairs
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_new_date_adds_its_own_pairs_and_touches_no_other(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    output = tmp_path / three[0].name
    shutil.copytree(three[0], output)
    version = version_of(output)
    before = {path: path.stat().st_mtime_ns for path in version.glob("cells/*/20*/*.*")}
    # what failed of a date that is not wanted any more stays known, and takes no block's place
    gone = Entry(block="2001-01-01-abc/r00000c00000", state="failed", facts={"error": "scripted"})
    Ledger(output / "ledger", "ingest").append([gone])
    wider = request_of(archive.catalogue, output, cluster)
    plan = plan_of(wider)
    assert plan.count("there already") == 3 + 2 + 1
    assert f"read: {DAYS[3]}: {BLOCKS} blocks, new" in plan
    assert f"compare: {DAYS[2]} → {DAYS[3]}: {BLOCKS} blocks, a new pair" in plan
    assert f"reads: {BLOCKS} blocks of imagery, at most {BLOCKS * BLOCK**2 * 4 / 1e3:.1f} kB" in plan
    assert f"computes: {BLOCKS} blocks of probability" in plan
    assert f"{2 * BLOCKS} blocks embedded" in plan
    run_reprocessing(wider)
    assert computed(output) == 3 * BLOCKS
    assert Ledger(output / "ledger", "ingest").state(gone.block) == "failed"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(pairs_in(version)) == 3
    assert xr.open_zarr(version / "cube.zarr").sizes["time"] == 3
    clean = tmp_path / "clean"
    run_reprocessing(request_of(archive.catalogue, clean, cluster))
    for name in pairs_in(version):
        product = (name, "change_probability.tif")
        assert np.array_equal(stitched(version, *product), stitched(version_of(clean), *product))


def test_a_changed_input_redoes_what_used_it_and_another_bundle_stands_beside(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    output, mine = tmp_path / "archive", tmp_path / "dates"
    shutil.copytree(three[0], output)
    shutil.copytree(archive.folder, mine)
    with rasterio.open(mine / archive.files[0][0].name, "r+") as file:
        file.write(np.clip(file.read().astype(int) + 9, 1, 255).astype(np.uint8))
    request = request_of(mine / "catalog.json", output, cluster, end=DAYS[2])
    plan = plan_of(request)
    assert f"read: {DAYS[0]}: {BLOCKS} blocks, its files changed" in plan
    assert f"compare: {DAYS[0]} → {DAYS[1]}: {BLOCKS} blocks, an image of it changed" in plan
    assert f"compare: {DAYS[1]} → {DAYS[2]}: there already" in plan
    run_reprocessing(request)
    assert computed(output) == (2 + 1) * BLOCKS  # one of the two pairs anew
    version = version_of(output)
    assert len(pairs_in(version)) == 3  # the superseded one stays on disk, and in no collection
    collection = pystac.Collection.from_file(str(version / "collection.json"))
    # the directory had another name before: no item keeps it
    assert [found.collection_id for found in collection.get_items()] == [f"archive-{version.name}"] * 4
    assert collection.id == f"archive-{version.name}"

    bundle = tmp_path / "other.safetensors"
    shipped = load_bundle("synthetic")
    save_bundle(bundle, replace(shipped, threshold=shipped.threshold / 2))
    with_other = request.model_copy(update={"bundle": str(bundle)})
    assert f"new, of another bundle or other parameters than {version.name}" in plan_of(with_other)
    run_reprocessing(with_other)
    names = sorted(path.name.partition("-")[0] for path in (output / "versions").iterdir())
    assert names == ["other", "synthetic"]
    assert len(list((output / "images").glob("*.zarr"))) == 4  # nothing was read again


def plain_predictor() -> Predictor:
    return DasnetPredictor(load_bundle("synthetic"), device="cpu", precision="float32")


class FailsOnce:
    """A predictor that cannot compute blocks with bright pixels in a corner; a scripted fault of one cell."""

    def __init__(self, inner: Predictor, flag: Path) -> None:
        self._inner, self._flag = inner, flag

    def predict(self, images: NDArray[Any], valid: NDArray[np.bool_], **options: Any) -> Prediction:
        # blocks of the second cell alone are this narrow
        if self._flag.exists() and options["crop"][1].stop - options["crop"][1].start < BLOCK:
            raise RuntimeError("scripted fault")
        return self._inner.predict(images, valid, **options)

    def describe(self) -> Any:
        return self._inner.describe()


def failing_predictor(flag: Path) -> FailsOnce:
    return FailsOnce(plain_predictor(), flag)


def test_a_failed_cell_does_not_stop_the_others_and_resumes_alone(
    archive: Archive, cluster: str, prefect_ui: str, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    whole = [archive.files[number][0] for number in (0, 2, 3)]
    request = request_of(whole, tmp_path / "faulty", cluster, retries=0)

    @flow(name="scripted", persist_result=False)
    @observed_flow
    def scripted(again: bool) -> ArchiveSummary:
        asked = request.model_copy(update={"retry_failed": again})
        return run_reprocessing(asked, partial(failing_predictor, flag))

    with pytest.raises(FailedCellsError, match=r"1 of 2 cells failed(.|\n)*cell-r000c001(.|\n)*scripted fault"):
        scripted(False)
    version = version_of(tmp_path / "faulty")
    assert (version / "cells" / "cell-r000c000" / "peak_probability.tif").exists()
    collection = pystac.Collection.from_file(str(version / "collection.json"))
    assert {found.id.partition("cell-")[2][:8] for found in collection.get_items()} == {"r000c000"}
    assert set(collection.assets) == {"peak-cell-r000c000", "first-cell-r000c000"}
    assert collection.summaries.lists["dasnet:missing_cells"] == ["cell-r000c001"]
    assert "not finished: cell-r000c001" in collection.description
    with get_client(sync_client=True) as client:
        cells = {run.name: run.state_name for run in client.read_flow_runs() if run.name.startswith("faulty cell-")}
    assert cells == {"faulty cell-r000c000": "Completed", "faulty cell-r000c001": "Incomplete"}
    state = directory_status(tmp_path / "faulty")
    assert dict(state.lines())[version.name] == "4 tasks done, 2 failed, in 2 cells"
    assert all("cell-r000c001" in name and "scripted fault" in error for name, error in state.failed.items())
    flag.unlink()
    plan = plan_of(request)
    assert plan.count("2 blocks quarantined, left out without --retry-failed") == 2
    assert "computes: 0 blocks" in plan
    assert "computes: 4 blocks" in plan_of(request.model_copy(update={"retry_failed": True}))
    scripted(True)
    assert not directory_status(tmp_path / "faulty").failed
    assert computed(tmp_path / "faulty") == 2 * BLOCKS
    collection = pystac.Collection.from_file(str(version / "collection.json"))
    assert {"cube", "timeline"} < set(collection.assets)
    assert "dasnet:missing_cells" not in collection.summaries.lists


def test_bytes_that_changed_at_rest_are_found_and_computed_again(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    output = tmp_path / "archive"
    shutil.copytree(three[0], output)
    version = version_of(output)
    name = pairs_in(version)[0]
    request = request_of(archive.catalogue, output, cluster, end=DAYS[2])
    for product in version.glob(f"cells/*/{name}/*.tif"):
        product.unlink()
    shards = version / "pairs" / f"{name}.zarr" / "change_probability" / "c" / "0" / "0"
    (shards / "0").write_bytes((shards / "1").read_bytes())  # decodes well, and is another block's
    with pytest.raises(FailedCellsError, match="storage lost or changed bytes"):
        run_reprocessing(request)
    assert f"compare: {DAYS[0]} → {DAYS[1]}: 1 block, of {BLOCKS}, the others are finished" in plan_of(request)
    run_reprocessing(request)
    whole = stitched(version_of(three[0]), name, "change_probability.tif")
    assert np.array_equal(stitched(version, name, "change_probability.tif"), whole)

    # what is lost when all files of a cell stand is missed by the cube, and by maps that are made anew
    (shards / "1").unlink()
    with pytest.raises(IntegrityError, match=rf"cell-r000c000, {name}: 1 blocks .*They are set back"):
        run_reprocessing(request)
    assert f"compare: {DAYS[0]} → {DAYS[1]}: 1 block, of {BLOCKS}, the others are finished" in plan_of(request)
    (shards / "2").write_bytes((shards / "0").read_bytes())
    wider = request_of(archive.catalogue, output, cluster)
    with pytest.raises(FailedCellsError, match=rf"1 of 2 cells failed(.|\n)*cell-r000c001, {name}: 1 blocks"):
        run_reprocessing(wider)
    run_reprocessing(wider)
    cube = xr.open_zarr(version / "cube.zarr")["change_probability"].isel(time=0).to_numpy()
    assert np.allclose(cube, np.where(whole == 255, np.nan, whole / 254), atol=1e-6, equal_nan=True)


def test_a_date_without_a_partner_is_left_out_and_blocks_may_be_of_any_size(
    archive: Archive, cluster: str, tmp_path: Path
) -> None:
    table = tmp_path / "dates.csv"
    days = zip(("2018-01-15", "2018-06-01", "2019-06-03"), (0, 2, 3), strict=True)
    table.write_text("date,path\n" + "".join(f"{day},{archive.files[number][0]}\n" for day, number in days))
    output = tmp_path / "archive"
    request = request_of(table, output, cluster, pairing="same-season", block=320, cell=320)
    summary = run_reprocessing(request)
    assert [(start, end) for start, end, _ in summary.pairs] == [("2018-06-01", "2019-06-03")]
    assert "left out: 2018-01-15: in no pair by the rule same-season" in plan_of(request)
    assert len(list((output / "images").glob("*.zarr"))) == 2
    page = summary.products["timeline"].read_text()
    assert "2018-01-15: left out, in no pair by the rule same-season" in page
    assert xr.open_zarr(summary.products["cube"]).sizes == {"time": 1, "y": HEIGHT, "x": WIDTH}


def test_by_a_baseline_in_the_middle_each_layer_has_the_time_of_the_other_date(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    """Its pairs are those of consecutive dates, so nothing is computed."""
    output = tmp_path / "archive"
    shutil.copytree(three[0], output)
    count = computed(output)
    request = request_of(archive.catalogue, output, cluster, end=DAYS[2], pairing=f"baseline:{DAYS[1]}")
    run_reprocessing(request)
    assert computed(output) == count
    version = version_of(output)
    cube = xr.open_zarr(version / "cube.zarr")
    assert [str(time)[:10] for time in cube["time"].to_numpy()] == [DAYS[0], DAYS[2]]
    assert [str(time)[:10] for time in cube["end"].to_numpy()] == [DAYS[1], DAYS[2]]
    before, after = (stitched(version, name, "change_probability.tif") for name in pairs_in(version))
    above = [(layer != 255) & (layer / 254 >= load_bundle("synthetic").threshold) for layer in (before, after)]
    first = np.where(above[0], 20180601, np.where(above[1], 20200528, 0))
    first[(before == 255) & (after == 255)] = -1
    assert np.array_equal(stitched(version, "first_change.tif"), first)
    asset = pystac.Collection.from_file(str(version / "collection.json")).assets["first-cell-r000c000"]
    assert asset.title == "First day that differs from the baseline, cell-r000c000"


class OtherArithmetic:
    """A predictor of another version of torch."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner

    def predict(self, images: NDArray[Any], valid: NDArray[np.bool_], **options: Any) -> Prediction:
        return self._inner.predict(images, valid, **options)

    def describe(self) -> Any:
        return {**self._inner.describe(), "torch": "another"}


def other_arithmetic() -> OtherArithmetic:
    return OtherArithmetic(plain_predictor())


def test_an_archive_outlives_a_version_of_torch_and_no_pair_is_of_two(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    output = tmp_path / "archive"
    shutil.copytree(three[0], output)
    version = version_of(output)
    first, second = pairs_in(version)
    ledgers = [Ledger(cell / "ledger", "infer") for cell in sorted((version / "cells").iterdir())]
    set_back_pairs(ledgers[1], {first}, blocks={"r00000c00002"}, reason="scripted")

    def scripted() -> ArchiveSummary:
        return run_reprocessing(request_of(archive.catalogue, output, cluster), other_arithmetic)

    before = [sum(1 for _ in ledger.path.open()) for ledger in ledgers]
    scripted()
    third = next(name for name in pairs_in(version) if name not in (first, second))
    executions = json.loads((version / "run.json").read_text())["executions"]
    assert {name: facts["torch"] for name, facts in executions.items()} == {
        first: "another",
        second: torch.__version__,
        third: "another",
    }
    computed_now = [
        name
        for ledger, count in zip(ledgers, before, strict=True)
        for line in ledger.path.read_text().splitlines()[count:]
        for name in json.loads(line)["facts"].get("digests", ())
    ]
    assert computed(output) == 3 * BLOCKS
    assert computed_now.count(third) == computed_now.count(first) == BLOCKS
    item = json.loads((version / "cells" / "cell-r000c000" / first / "item.json").read_text())
    assert "another" in json.dumps(item["properties"])


def test_a_date_that_cannot_be_read_costs_no_pair_of_other_dates(
    archive: Archive, cluster: str, tmp_path: Path
) -> None:
    def tasks(end: str) -> tuple[ArchiveJob, dict[str, list[str]], frozenset[str]]:
        request = request_of(archive.catalogue, tmp_path / "x", cluster, end=end, pairing=f"baseline:{DAYS[0]}")
        job = resolve_archive(request)
        work = cell_work(job, job.cells[0], ingested=ingested, inferred=inferred)
        first = {
            name: [pair for *_, pair in task.pairs]
            for name, task in work.tasks.items()
            if name.startswith("r00000c00000/")
        }
        return job, first, work.quarantined

    ingested, inferred = Ledger(tmp_path, "ingest"), Ledger(tmp_path, "infer")
    job, together, _ = tasks(DAYS[2])
    assert list(map(len, together.values())) == [2]
    bad = Entry(block=read_name(job.images[1].name, "r00000c00000"), state="failed", facts={"error": "scripted"})
    ingested.append([bad])
    job, apart, _ = tasks(DAYS[2])
    lacking = next(name for name, pairs in apart.items() if job.pairs[0].name in pairs)
    assert sorted(apart.values()) == sorted([[job.pairs[0].name], [job.pairs[1].name]])
    # quarantined, it keeps its name and stays alone when a date comes
    inferred.append([Entry(block=lacking, state="failed", facts={"error": "scripted", PAIRS: apart[lacking]})])
    job, apart, quarantined = tasks(DAYS[3])
    assert quarantined == {lacking} and apart[lacking] == [job.pairs[0].name]
    assert [pair.name for pair in job.pairs[1:]] in apart.values()


def test_a_region_reaches_as_far_as_any_date_and_says_where_it_does_not(
    archive: Archive, cluster: str, tmp_path: Path
) -> None:
    west, later = archive.files[1][0], archive.files[3][0]
    with rasterio.open(later) as file:
        left, bottom, right, top = file.bounds
    source = [west, later]
    assert resolve_archive(request_of(source, tmp_path / "x", cluster)).grid.width == 200
    job = resolve_archive(request_of(source, tmp_path / "x", cluster, grid={"bbox": (left, bottom, right, top)}))
    assert job.grid.shape == (HEIGHT, WIDTH) and not job.resampled and not job.warnings
    beyond = {"bbox": (left, bottom, 2 * right - left, top)}
    job = resolve_archive(request_of(source, tmp_path / "x", cluster, grid=beyond))
    assert job.grid.shape == (HEIGHT, WIDTH)
    assert any("the grid has 50.0% of the box around the region asked for" in warning for warning in job.warnings)


def test_imagery_that_was_lost_is_read_anew_for_products_and_for_pairs(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path
) -> None:
    output = tmp_path / "archive"
    shutil.copytree(three[0], output)
    version = version_of(output)
    request = request_of(archive.catalogue, output, cluster, end=DAYS[2])
    (middle,) = (output / "images").glob(f"{DAYS[1]}-*.zarr")
    shard = Path("image", "c", "0", "0", "0", "0")  # of the first cell alone
    whole = (middle / shard).read_bytes()

    # all pairs are finished, and a picture is to be made of imagery that is gone
    (middle / shard).unlink()
    for picture in version.glob("cells/cell-r000c000/*/quicklook.png"):
        picture.unlink()
    with pytest.raises(FailedCellsError, match=r"1 blocks of imagery are set back .*r00000c00000.*same command"):
        run_reprocessing(request)
    assert f"read: {DAYS[1]}: 1 block, of {BLOCKS}, the others were read before" in plan_of(request)
    run_reprocessing(request)
    assert (middle / shard).read_bytes() == whole
    assert len(list(version.glob("cells/*/*/quicklook.png"))) == 2 * 2

    # a new date is to be compared with imagery whose bytes are others
    (last,) = (output / "images").glob(f"{DAYS[2]}-*.zarr")
    whole = (last / shard).read_bytes()
    (last / shard).write_bytes(whole[: len(whole) // 2])
    request = request_of(archive.catalogue, output, cluster, retries=0)
    with pytest.raises(FailedCellsError, match=r"IntegrityError(.|\n)*--retry-failed"):
        run_reprocessing(request)
    run_reprocessing(request.model_copy(update={"retry_failed": True}))
    assert (last / shard).read_bytes() == whole


def test_what_cannot_work_is_refused_before_anything_is_written(
    three: tuple[Path, ArchiveSummary], archive: Archive, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = archive.catalogue
    with pytest.raises(InputError, match="no two of these dates") as alone:
        resolve_archive(request_of(source, tmp_path / "x", cluster, end=DAYS[0]))
    assert "do not touch the region" not in str(alone.value), "no region was asked for"
    with pytest.raises(InputError, match=r"baseline 2001-01-01 is not among the dates: 2018-06-01"):
        resolve_archive(request_of(source, tmp_path / "x", cluster, pairing="baseline:2001-01-01"))
    before = sorted(path for path in three[0].rglob("*"))
    with pytest.raises(DifferentRunError, match=r"block: 192 → 256"):
        resolve_archive(request_of(source, three[0], cluster, block=256, cell=384))
    with pytest.raises(DifferentRunError, match=r"asked.resolution: None → 1.0"):
        resolve_archive(request_of(source, three[0], cluster, grid={"resolution": 1.0}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(RefusedPlanError, match=r"x may need another 0.0 GB \(24 blocks of imagery, 18 of probability"):
        _work(resolve_archive(request_of(source, tmp_path / "x", cluster))).require_disk()
    _work(resolve_archive(request_of(source, three[0], cluster, end=DAYS[2]))).require_disk()  # all there: none needed
    assert f"no more: {DAYS[2]}: read before" in plan_of(request_of(source, three[0], cluster, end=DAYS[1]))
    assert sorted(path for path in three[0].rglob("*")) == before
    assert not (tmp_path / "x").exists()


def test_a_date_beside_the_region_is_left_out_and_named(archive: Archive, cluster: str, tmp_path: Path) -> None:
    far = tmp_path / "20220601.tif"
    shutil.copy(archive.files[0][0], far)
    with rasterio.open(far, "r+") as file:
        file.transform = file.transform * rasterio.Affine.translation(10_000, 0)
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2022-06-01T10:30:00")
    everything = [path for files in archive.files for path in files]
    job = resolve_archive(request_of([*everything, far], tmp_path / "x", cluster))
    assert list(job.left_out) == [date(2022, 6, 1)]
    assert len(job.pairs) == 3
    assert any("2022-06-01: left out" in warning for warning in job.warnings)


def test_the_command_plans_without_touching_and_refuses_with_exit_code_2(
    dasnet: Dasnet, archive: Archive, tmp_path: Path
) -> None:
    output = tmp_path / "archive"
    options = ["--output", output, "--block", BLOCK, "--pairing", f"baseline:{DAYS[0]}"]
    planned = dasnet("reprocess", archive.catalogue, *options, "--dry-run")
    assert planned.code == 0, planned.err
    for words in (
        "4 dates, 2018-06-01 to 2021-06-02",
        "3 by the rule baseline",
        f"2018-06-01 → 2021-06-02: {BLOCKS} blocks, the version is new",
        "for infer, by a short calibration",
    ):
        assert words in planned.out
    assert not output.exists()
    (tmp_path / "catalog.json").write_text('{"type": "Catalog"}')
    refused = dasnet("reprocess", tmp_path / "catalog.json", "--output", output)
    assert refused.code == 2
    assert f"refused: {tmp_path / 'catalog.json'} cannot be read as STAC" in refused.err.replace("\n", "")
    assert "Traceback" not in refused.err
    assert not output.exists()
