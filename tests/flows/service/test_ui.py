"""What the Prefect server knows of a run, and what its UI shows a person."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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

from flows.cluster.stage import MAX_BATCHES
from flows.detect.flow import detect_changes
from flows.detect.request import DetectRequest
from flows.run.errors import FailedBlocksError
from flows.service.login import login
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import request_for
from tests.flows.service.prefect_pages import Pages, pages_of
from tiling.ledger import Entry, Ledger

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def run(pair: SyntheticPair, prefect_ui: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a clean run over the pair, made by a flow run."""
    output = tmp_path_factory.mktemp("runs") / "flow"
    detect_changes(request_for(pair, output))
    return output


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
    picture = base64.b64decode(found["quicklook"].data.partition("base64,")[2].rstrip(")"))
    assert hashlib.sha256(picture).digest() == hashlib.sha256((run / "quicklook.png").read_bytes()).digest()
    assert str(run) in found["products"].data
    for product in ("change_probability.tif", "changes.parquet", "item.json", "report.html"):
        digest = hashlib.sha256((run / product).read_bytes()).hexdigest()
        assert re.search(rf"{product}.*{digest[:8]}", found["products"].data)


def test_stages_are_tasks_and_batches_are_few(client: SyncPrefectClient, completed: FlowRun) -> None:
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[completed.id])), limit=200)
    names = sorted(task.name for task in tasks)
    assert any(name.startswith("infer 1-") for name in names), names
    assert any(name.startswith("ingest 1-") for name in names)
    assert sum(name.startswith("infer ") for name in names) <= MAX_BATCHES
    assert all(task.state_name == "Completed" for task in tasks)


def test_the_log_of_the_flow_run_has_one_line_a_stage(client: SyncPrefectClient, completed: FlowRun) -> None:
    from flows.service.embedded import flush_logs

    flush_logs()
    logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[completed.id])), limit=200)
    messages = [log.message for log in logs]
    for stage in ("inputs", "ingest", "infer", "mosaic", "products"):
        assert sum(message.startswith(f"{stage}: ") for message in messages) == 1, messages


@pytest.fixture(scope="module")
def quarantined(
    client: SyncPrefectClient, run: Path, pair: SyntheticPair, tmp_path_factory: pytest.TempPathFactory
) -> FlowRun:
    """A run one of whose blocks failed three times."""
    output = tmp_path_factory.mktemp("quarantined") / "run"
    shutil.copytree(run, output)
    (output / "ledger" / "products.json").unlink()
    failed = Entry(block="r00001c00001", state="failed", facts={"error": "scripted", "attempts": 3})
    Ledger(output / "ledger", "infer").append([failed])
    with pytest.raises(FailedBlocksError, match="r00001c00001: scripted"):
        detect_changes(request_for(pair, output))
    return flow_run(client, output, "Incomplete")


def test_a_run_with_quarantined_blocks_ends_incomplete_with_their_list_and_takes_them_up_again(
    client: SyncPrefectClient, quarantined: FlowRun
) -> None:
    assert quarantined.state is not None and quarantined.state.message is not None
    assert "1 of 12 blocks failed" in quarantined.state.message
    assert "r00001c00001: scripted" in quarantined.state.message
    blocks = artifacts(client, quarantined)["blocks"].data
    assert "r00001c00001" in blocks and "scripted" in blocks
    request = DetectRequest.model_validate(quarantined.parameters["request"])
    ledger = Ledger(Path(str(request.output)) / "ledger", "infer")
    assert ledger.count("done") == 3
    detect_changes(request.model_copy(update={"retry_failed": True}))
    ledger = Ledger(Path(str(request.output)) / "ledger", "infer")
    assert (ledger.count("done"), ledger.count("failed")) == (4, 0)


@pytest.fixture
def pages(browser: Any, prefect_ui: str, tmp_path: Path) -> Iterator[Pages]:
    with pages_of(browser, prefect_ui, tmp_path) as pages:
        pages.log_in(login(None))
        yield pages


def test_a_person_finds_the_run_in_the_ui(pages: Pages, completed: FlowRun) -> None:
    pages.open_run(completed.id, "Completed")
    pages.await_bars(5, "completed")
    pages.picture("ui-run")
    pages.tab("Task Runs")
    pages.sees("infer 1-")
    pages.tab("Artifacts")
    for description in ("What this run does", "4 of 4 blocks", "Blocks of the run", "Products of the run"):
        pages.sees(description)


def test_the_products_are_a_page_to_read(pages: Pages, client: SyncPrefectClient, completed: FlowRun) -> None:
    found = artifacts(client, completed)
    pages.open_artifact(found["products"].id)
    for words in ("change_probability.tif", "changed in", "swipe between the dates", "GeoParquet polygons"):
        pages.sees(words)
    pages.picture("ui-products")
    pages.open_artifact(found["quicklook"].id)
    picture = pages.page.get_by_role("img", name="Before, after and change probability")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 1000
    assert "base64" not in pages.text(), "a picture, not its bytes"


def test_quarantined_blocks_stand_in_the_ui(pages: Pages, client: SyncPrefectClient, quarantined: FlowRun) -> None:
    pages.open_run(quarantined.id, "Incomplete")
    pages.tab("Details")
    pages.sees("r00001c00001: scripted")
    pages.open_artifact(artifacts(client, quarantined)["blocks"].id)
    pages.sees("failed (quarantined)")
    pages.sees("r00001c00001")
    pages.sees("scripted")
    pages.picture("ui-quarantined")


def test_progress_is_seen_in_the_middle_of_a_run(
    pages: Pages, client: SyncPrefectClient, prefect_ui: str, pair: SyntheticPair, tmp_path: Path
) -> None:
    command = ["detect", pair.before, pair.after, "--output", tmp_path / "run", "--block", 128, "--workers", 1]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *map(str, command)],
        env={**os.environ, "PREFECT_API_URL": f"{prefect_ui}/api", "PREFECT_API_AUTH_STRING": login(None)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (found := _in_the_middle(client, tmp_path / "run")):
            assert process.poll() is None, "the run ended before its progress was seen"
            time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)  # held there: the picture does not depend on how fast this machine is
        pages.open_run(found.flow_run_id, "Running")
        pages.tab("Artifacts")
        pages.sees(re.compile(r"\d+ of 48 blocks, \d+ (s|min) left, [\d.]+/s"))
        pages.await_bars(3, "completed")
        pages.picture("ui-progress")
        pages.open_artifact(found.id)
        pages.sees(re.compile(r"Progress: [1-8]\d(\.\d+)?%"))
    finally:
        process.kill()
        process.wait()


def _in_the_middle(client: SyncPrefectClient, output: Path) -> Any:
    runs = [run for run in client.read_flow_runs() if str(output) in str(run.parameters.get("request"))]
    infer = artifacts(client, runs[0]).get("infer") if runs else None
    return infer if infer is not None and 10 < infer.data < 90 else None
