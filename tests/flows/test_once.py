"""What is looked at, connected to and brought to workers once, however much there is to do."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

import flows.cluster.connect
import flows.cluster.equipment
import flows.detect.job
from flows.archive.request import ReprocessRequest
from flows.archive.run import run_reprocessing
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import Dasnet


def test_a_command_opens_headers_and_bundle_and_asks_a_running_scheduler_once(
    dasnet: Dasnet, pair: SyntheticPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(flows.detect.job, "open_mosaic")
    count(flows.detect.job, "bundle_model")
    count(flows.cluster.connect, "Client")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        arguments = [pair.before, pair.after, "--output", tmp_path / "run", "--block", 512]
        ended = dasnet("detect", *arguments, "--cluster", cluster.scheduler_address)
        assert ended.code == 0, ended.err
    assert calls == {"open_mosaic": 2, "bundle_model": 1, "Client": 1}


def test_the_tools_of_an_archive_come_to_the_workers_once_whatever_the_cells(
    pair: SyntheticPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates = tmp_path / "dates"
    dates.mkdir()
    for day, source in (("20190615", pair.before), ("20200615", pair.after)):
        shutil.copy(source, dates / f"{day}.tif")
    table = tmp_path / "dates.csv"
    table.write_text(f"date,path\n2019-06-15,{dates}/20190615.tif\n2020-06-15,{dates}/20200615.tif\n")
    brought: list[str] = []
    equipped = flows.cluster.equipment.equipped

    def noted(client: Any, name: str, make_tool: Any) -> Any:
        brought.append(name)
        return equipped(client, name, make_tool)

    monkeypatch.setattr(flows.cluster.equipment, "equipped", noted)
    request = {"archive": str(table), "output": tmp_path / "archive", "block": 512, "cell": 512}
    summary = run_reprocessing(ReprocessRequest.model_validate({**request, "cluster": {"workers": 1}}))
    version = Path(summary.products["collection"]).parent
    assert len(list((version / "cells").iterdir())) == 4
    assert brought == ["ingest", "infer", "plates"]
