"""The door for Python: what a run has made, opened as the field's own objects, and the page that shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import dask.array
import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.crs import CRS

from flows import ArchiveVersion, Dataset, Run, detect, open_run
from flows.archive.request import ReprocessRequest
from flows.archive.run import run_reprocessing
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from storage.errors import InputError
from storage.synthetic.pair import SyntheticPair
from tests.conftest import ROOT

PAGE = ROOT / "docs/python.md"


def test_a_run_opens_lazily_and_agrees_with_its_products(run: Path) -> None:
    opened = open_run(run)
    assert isinstance(opened, Run)
    with rasterio.open(run / "change_probability.tif") as file:
        stored, crs, transform = file.read(1), file.crs, file.transform
    assert opened.probability.rio.crs == crs and opened.probability.rio.transform() == transform
    expected = np.where(stored == 255, np.nan, stored / 254)
    assert np.allclose(opened.probability.to_numpy(), expected, atol=1e-6, equal_nan=True)
    assert opened.images.dims == ("time", "band", "y", "x") and opened.valid.dims == ("time", "y", "x")
    assert opened.changes.equals(geopandas.read_parquet(run / "changes.parquet"))
    assert opened.changes.crs == opened.probability.rio.crs
    assert opened.item.assets["probability"].href.endswith("change_probability.tif")
    assert "<html" in opened.report.read_text()
    lazy = open_run(run).images  # type: ignore[union-attr]
    assert not lazy.variable._in_memory, "pixels are read when they are asked for"


def test_a_version_of_an_archive_opens(pair: SyntheticPair, tmp_path: Path) -> None:
    dates = tmp_path / "dates"
    dates.mkdir()
    for day, source in (("20190615", pair.before), ("20200615", pair.after)):
        copy = Path(shutil.copy(source, dates / f"{day}.tif"))
        with rasterio.open(copy, "r+") as file:
            file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{day[:4]}-06-15T10:30:00")
    request = {"archive": str(dates), "output": tmp_path / "archive", "block": 512, "cell": 512}
    summary = run_reprocessing(ReprocessRequest.model_validate({**request, "cluster": {"workers": 1}}))
    opened = open_run(tmp_path / "archive")
    assert isinstance(opened, ArchiveVersion) and opened == open_run(opened.path)
    assert opened.probability.sizes["time"] == 1 and opened.probability.rio.crs == CRS.from_epsg(32631)
    assert isinstance(opened.images.data, dask.array.Array) and opened.images.sizes["time"] == 2
    (changes,) = {frame.pair for frame in opened.changes.itertuples()}
    assert changes.startswith("2019-06-15_2020-06-15") and len(set(opened.changes.cell)) > 1
    assert opened.changes.area_m2.sum() == pytest.approx(sum(found.changed_m2 for *_, found in summary.pairs))
    assert {name: len(files) for name, files in opened.maps.items()} == {"peak": 4, "first": 4}
    assert opened.item.id and opened.report.exists()


def test_a_dataset_opens(pair: SyntheticPair, tmp_path: Path) -> None:
    request = {"before": str(pair.before), "after": str(pair.after), "label": pair.change, "window": 128}
    run_preparation(PrepareRequest.model_validate({**request, "output": tmp_path / "data", "cluster": {"workers": 1}}))
    opened = open_run(tmp_path / "data")
    assert isinstance(opened, Dataset) and opened.report.exists()
    assert set(np.unique(opened.samples["label"])) <= {0, 1, 255}
    assert opened.images.dims == ("date", "sample", "band", "y", "x")
    first = opened.images.isel(date=1, sample=0)
    assert xr.DataArray.equals(first.drop_vars("date"), opened.samples["after"].isel(sample=0))


def test_what_is_none_of_these_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run, no finished version of an archive and no dataset"):
        open_run(tmp_path)
    with pytest.raises(InputError, match=r"nope\.tif"):
        detect(tmp_path / "nope.tif", tmp_path / "nope.tif", output=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_the_page_does_what_it_says(
    run: Path, pair: SyntheticPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(pair.before, tmp_path / "before.tif")
    shutil.copy(pair.after, tmp_path / "after.tif")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    printed = capsys.readouterr().out
    assert "EPSG:32631" in printed and re.search(r"\d+\.\d\d ha changed", printed)


def test_detect_needs_no_prefect(pair: SyntheticPair, tmp_path: Path) -> None:
    """In an environment where Prefect cannot be imported the command does the same job."""
    hidden = tmp_path / "hidden"
    (hidden / "prefect").mkdir(parents=True)
    (hidden / "prefect/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'prefect'\")\n")
    command = [sys.executable, "-m", "flows", "detect", pair.before, pair.after, "--output", tmp_path / "run"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{hidden}:{ROOT}"}
    arguments = [*map(str, command), "--block", "512", "--workers", "1"]
    ended = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert isinstance(open_run(tmp_path / "run"), Run)
    asked = subprocess.run([*arguments, "--ui"], capture_output=True, text=True, env=environment, timeout=240)
    assert asked.returncode == 2 and "Prefect is not installed" in asked.stderr
    environment["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    asked = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=240)
    assert asked.returncode == 2 and "PREFECT_API_URL is http://127.0.0.1:4200/api" in asked.stderr
    assert not list((tmp_path / ".prefect").glob("*")), "nothing of a server is left in the home"
