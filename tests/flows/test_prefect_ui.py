"""What the Prefect server knows of a run, and what its UI shows a person."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun

from flows.detect import detect_changes
from flows.failures import FailedBlocksError
from flows.fanout import MAX_BATCHES
from storage.synthesize import SyntheticPair
from tests.flows.conftest import request_for
from tiling.ledger import Entry, Ledger


@pytest.fixture
def client(prefect_ui: str) -> SyncPrefectClient:
    return get_client(sync_client=True)


def flow_run(client: SyncPrefectClient, output: Path, state: str) -> FlowRun:
    """The newest flow run over a run directory in a state."""
    runs = [
        run
        for run in client.read_flow_runs()
        if str(output) in str(run.parameters.get("request")) and run.state_name == state
    ]
    assert runs, f"no flow run over {output} is {state}"
    return max(runs, key=lambda run: run.start_time)


def artifacts(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any]:
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])), limit=200
    )
    return {artifact.key: artifact for artifact in found}


@pytest.fixture
def completed(client: SyncPrefectClient, run: Path) -> FlowRun:
    with_cluster = [
        found
        for found in client.read_flow_runs()
        if str(run) in str(found.parameters.get("request")) and "dask-dashboard" in artifacts(client, found)
    ]
    assert len(with_cluster) == 1, "only the first run over the directory needed a cluster"
    return with_cluster[0]


def test_artifacts_tell_the_whole_story(client: SyncPrefectClient, completed: FlowRun, run: Path) -> None:
    found = artifacts(client, completed)
    assert completed.state_name == "Completed"
    assert {"plan", "ingest", "infer", "dask-dashboard", "blocks", "quicklook", "products"} <= set(found)
    for stage, total in (("ingest", 8), ("infer", 4)):
        assert found[stage].data == 100.0
        assert f"{total} of {total} blocks" in found[stage].description
    assert "900 × 700 px" in found["plan"].data
    assert re.search(r"http://127\.0\.0\.1:\d+/status", found["dask-dashboard"].data)
    rows = {row["state"]: row["blocks"] for row in json.loads(found["blocks"].data)}
    assert rows["done"] == rows["total"] == 4
    picture = base64.b64decode(found["quicklook"].data.partition("base64,")[2])
    assert hashlib.sha256(picture).digest() == hashlib.sha256((run / "quicklook.png").read_bytes()).digest()
    for product in ("change_probability.tif", "changes.parquet", "item.json", "report.html"):
        assert (run / product).resolve().as_uri() in found["products"].data


def test_stages_are_tasks_and_batches_are_few(client: SyncPrefectClient, completed: FlowRun) -> None:
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[completed.id])), limit=200)
    names = sorted(task.name for task in tasks)
    assert any(name.startswith("infer 1-") for name in names), names
    assert any(name.startswith("ingest 1-") for name in names)
    assert sum(name.startswith("infer ") for name in names) <= MAX_BATCHES
    assert all(task.state_name == "Completed" for task in tasks)


def test_the_log_of_the_flow_run_has_one_line_a_stage(client: SyncPrefectClient, completed: FlowRun) -> None:
    from flows.prefect_server import flush_logs

    flush_logs()
    logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[completed.id])), limit=200)
    messages = [log.message for log in logs]
    for stage in ("inputs", "ingest", "infer", "mosaic", "products"):
        assert sum(message.startswith(f"{stage}: ") for message in messages) == 1, messages


def test_a_run_with_quarantined_blocks_ends_incomplete_with_their_list(
    client: SyncPrefectClient, pair: SyntheticPair, tmp_path: Path
) -> None:
    request = request_for(pair, tmp_path / "run", retries=0)
    detect_changes(request)
    failed = Entry(block="r00001c00001", state="failed", facts={"error": "scripted", "attempts": 3})
    Ledger(tmp_path / "run" / "ledger", "infer").append([failed])
    with pytest.raises(FailedBlocksError, match="r00001c00001: scripted"):
        detect_changes(request)
    ended = flow_run(client, tmp_path / "run", "Incomplete")
    assert ended.state is not None and ended.state.message is not None
    assert "1 of 12 blocks failed" in ended.state.message
    assert "r00001c00001: scripted" in ended.state.message
    blocks = artifacts(client, ended)["blocks"].data
    assert "r00001c00001" in blocks and "scripted" in blocks
    assert Ledger(tmp_path / "run" / "ledger", "infer").count("done") == 3
    detect_changes(request.model_copy(update={"retry_failed": True}))
    assert Ledger(tmp_path / "run" / "ledger", "infer").count("failed") == 0


PATIENCE_MS = 240_000


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Any, str], None]:
    """Keep what a page shows: for the documentation too, where DASNET_PICTURES names its folder."""

    def keep(page: Any, name: str) -> None:
        folder = Path(os.environ.get("DASNET_PICTURES", tmp_path))
        page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=75)

    return keep


def test_a_person_finds_the_run_in_the_ui(
    page: Any, picture: Callable[[Any, str], None], prefect_ui: str, completed: FlowRun
) -> None:
    page.goto(f"{prefect_ui}/runs/flow-run/{completed.id}")
    page.get_by_text("detect-changes").first.wait_for()
    page.get_by_text("Completed").first.wait_for()
    page.wait_for_timeout(3000)
    picture(page, "ui-run")
    page.get_by_text("Task Runs", exact=True).first.click()
    page.get_by_text("infer 1-", exact=False).first.wait_for()
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("Blocks of the run").wait_for()
    # what the tasks of the run made stands under what the run itself made, and is drawn once one scrolls there
    quicklook = page.get_by_text("Before, after and change probability")
    page.mouse.move(700, 800)
    for _ in range(120):
        page.mouse.wheel(0, 500)
        page.wait_for_timeout(500)
        if quicklook.count():
            break
    assert quicklook.first.is_visible(), page.locator("body").inner_text()


def test_the_products_are_a_page_to_read(
    page: Any, picture: Callable[[Any, str], None], client: SyncPrefectClient, prefect_ui: str, completed: FlowRun
) -> None:
    products = artifacts(client, completed)["products"]
    page.goto(f"{prefect_ui}/artifacts/artifact/{products.id}")
    page.get_by_role("link", name="change_probability.tif").first.wait_for()
    shown = page.locator("body").inner_text()
    assert "changed in" in shown and "swipe between the dates" in shown and "GeoParquet polygons" in shown
    picture(page, "ui-products")


def test_progress_is_seen_in_the_middle_of_a_run(
    page: Any,
    picture: Callable[[Any, str], None],
    client: SyncPrefectClient,
    prefect_ui: str,
    pair: SyntheticPair,
    tmp_path: Path,
) -> None:
    command = ["detect", pair.before, pair.after, "--output", tmp_path / "run", "--block", 128, "--workers", 1]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *map(str, command)],
        env={**os.environ, "PREFECT_API_URL": f"{prefect_ui}/api"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (found := _in_the_middle(client, tmp_path / "run")):
            assert process.poll() is None, "the run ended before its progress was seen"
            time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)  # held there: the picture does not depend on how fast this machine is
        page.goto(f"{prefect_ui}/artifacts/artifact/{found.id}")
        page.get_by_text("infer:", exact=False).first.wait_for()
        page.get_by_text("of 48 blocks", exact=False).first.wait_for()
        picture(page, "ui-progress")
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=1200) == 0
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _in_the_middle(client: SyncPrefectClient, output: Path) -> Any:
    runs = [run for run in client.read_flow_runs() if str(output) in str(run.parameters.get("request"))]
    infer = artifacts(client, runs[0]).get("infer") if runs else None
    return infer if infer is not None and 10 < infer.data < 90 else None
