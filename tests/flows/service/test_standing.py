"""`dasnet server` and its deployments, as an operator meets them: everything here is real, and slow."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Running, Scheduled

from flows.detect.directory import PRODUCTS
from flows.service.automations import PAUSE_S
from flows.service.processes import free_port
from storage.synthetic.pair import synthesize
from tests.flows.service.prefect_pages import Pages, pages_of
from tests.flows.service.test_ui import artifacts
from tiling.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENCE_S = 1500.0
ENDED = {"Completed", "Failed", "Crashed", "Cancelled", "Refused", "Incomplete"}


def until(what: str, check: Callable[[], Any], *, patience_s: float = PATIENCE_S) -> Any:
    """What `check` gives as soon as it gives something true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.3)
    raise AssertionError(f"within {patience_s:.0f} s not: {what}")


@dataclass(frozen=True)
class Server:
    """A `dasnet server` of its own: address, home, process, and the scene its runs work on."""

    address: str
    home: Path
    process: subprocess.Popen[str]
    scene: Path
    work: Path

    @property
    def secret(self) -> str:
        return (self.home / "dasnet-login").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": f"{self.address}/api"}

    def dasnet(self, *arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows", *map(str, arguments)],
            env={**self.environment, **extra},
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def start(self, client: SyncPrefectClient, output: str, flow: str = "detect-changes", **request: Any) -> UUID:
        """A run of a deployment, from the API, as the form of the UI makes it."""
        whole = {
            "before": str(self.scene / "before.tif"),
            "after": str(self.scene / "after.tif"),
            "output": str(self.work / output),
            "block": 128,
            "window": 64,
            "cluster": {"workers": 1, "lanes": 1},
            **request,
        }
        deployment = client.read_deployment_by_name(f"{flow}/dasnet")
        return client.create_flow_run_from_deployment(deployment.id, parameters={"request": whole}).id

    def done(self, output: str, stage: str = "infer") -> int:
        """Finished blocks of a run directory."""
        ledger = self.work / output / "ledger"
        return Ledger(ledger, stage).count("done") if (ledger / f"{stage}.jsonl").exists() else 0


def server_process(home: Path, port: int, work: Path, *options: str, **extra: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "server", "--port", str(port), *options],
        env={**os.environ, "PREFECT_HOME": str(home), **extra},
        cwd=work,
        stdout=(home / "out").open("w"),
        stderr=(home / "err").open("w"),
        text=True,
        start_new_session=True,
    )
    until("dasnet server is up", lambda: process.poll() is not None or "Ctrl-C" in (home / "out").read_text())
    assert process.poll() is None, (home / "err").read_text()
    return process


def stop(process: subprocess.Popen[str]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    return process.wait(timeout=300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, work = tmp_path_factory.mktemp("server-home"), tmp_path_factory.mktemp("server-work")
    scene = work / "scene"
    synthesize(scene, height=640, width=768, seed=5)
    port = free_port()
    process = server_process(home, port, work)
    server = Server(f"http://127.0.0.1:{port}", home, process, scene, work)
    with temporary_settings({PREFECT_API_URL: f"{server.address}/api", PREFECT_API_AUTH_STRING: server.secret}):
        yield server
    stop(process)


@pytest.fixture
def client(server: Server) -> SyncPrefectClient:
    return get_client(sync_client=True)


@pytest.fixture
def pages(browser: Any, server: Server, tmp_path: Path) -> Iterator[Pages]:
    """The UI, logged in."""
    with pages_of(browser, server.address, tmp_path) as pages:
        pages.log_in(server.secret)
        yield pages


@contextmanager
def too_busy(address: str, *, times: int) -> Iterator[tuple[str, list[str]]]:
    """A door before a server that answers the first requests that change something as an SQLite under load does."""
    refused: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command != "GET" and len(refused) < times:
                refused.append(self.path)
                self.answer(503, b'{"exception_message": "Service Unavailable"}')
                return
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            found = httpx.request(self.command, address + self.path, content=body, headers=headers, timeout=300)
            self.answer(found.status_code, found.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.server_port}", refused
    finally:
        door.shutdown()


def state_names(client: SyncPrefectClient, run: UUID) -> list[str]:
    return [str(state.name) for state in sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)]


def ended(client: SyncPrefectClient, run: UUID, *names: str) -> FlowRun:
    """The run when it has ended, as one of `names`."""

    def check() -> FlowRun | None:
        found = client.read_flow_run(run)
        return found if found.state_name in (set(names) or ENDED) else None

    try:
        return until(f"run {run} ended {names}", check)
    except AssertionError as error:
        raise AssertionError(f"{error}: {state_names(client, run)}") from None


def processes_of(run: UUID) -> list[int]:
    """Processes that carry out a flow run, Dask's workers included: the first is the flow's."""
    mark = f"PREFECT__FLOW_RUN_ID={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append((b"prefect.engine" not in (entry / "cmdline").read_bytes(), int(entry.name)))
            except OSError:
                continue
    return [pid for _, pid in sorted(found)]


def test_it_registers_its_deployments_once_and_keeps_what_a_person_changed(
    server: Server, client: SyncPrefectClient
) -> None:
    told = (server.home / "out").read_text()
    assert server.address in told and "detect-changes/dasnet" in told and server.secret not in told
    found = client.read_deployment_by_name("reprocess-archive/dasnet")
    [monthly] = found.schedules
    client.update_deployment_schedule(found.id, monthly.id, active=True, parameters={"request": {"archive": "/a"}})
    first = {deployment.id: deployment.name for deployment in client.read_deployments()}
    assert len(first) == 7
    with too_busy(server.address, times=3) as (address, refused):
        again = server.dasnet("deploy", PREFECT_API_URL=f"{address}/api")
    assert again.returncode == 0, again.stderr
    assert len(refused) == 3, "a server that is too busy is asked again"
    assert "1 schedules as they were" in again.stdout and "there already" in again.stdout
    assert {deployment.id: deployment.name for deployment in client.read_deployments()} == first
    [kept] = client.read_deployment_by_name("reprocess-archive/dasnet").schedules
    assert kept.active and kept.parameters == {"request": {"archive": "/a"}} and kept.slug == "monthly"
    client.update_deployment_schedule(found.id, kept.id, active=False)


def test_a_kubernetes_pool_is_made_with_what_its_jobs_need(server: Server, client: SyncPrefectClient) -> None:
    deployed = server.dasnet("deploy", "--pool", "kubernetes", DASNET_IMAGE="registry.example/dasnet:1")
    assert deployed.returncode == 0, deployed.stderr
    pool = client.read_work_pool("dasnet-kubernetes")
    pod = pool.base_job_template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {"data", "tmp", "dask"}
    # of a version before, without volumes, which the deployments name files on; and one that somebody has changed
    usual, own = deepcopy(pool.base_job_template), deepcopy(pool.base_job_template)
    spec = usual["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    del spec["volumes"], spec["containers"][0]["volumeMounts"]
    own["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["volumes"] = "{{ volumes }}"
    own["variables"]["properties"]["volumes"] = {"title": "Volumes", "type": "array", "items": {"type": "object"}}
    for before, after in ((usual, pool.base_job_template), (own, own)):
        client.update_work_pool("dasnet-kubernetes", WorkPoolUpdate(base_job_template=before))
        again = server.dasnet("deploy", "--pool", "kubernetes", DASNET_IMAGE="registry.example/dasnet:1")
        assert again.returncode == 0, again.stderr
        assert client.read_work_pool("dasnet-kubernetes").base_job_template == after
    variables = client.read_deployment_by_name("detect-changes/dasnet-kubernetes").job_variables
    assert variables["image"] == "registry.example/dasnet:1" and variables["namespace"] == "dasnet"
    assert client.read_deployment_by_name("detect-changes/dasnet").work_pool_name == "dasnet"


def test_no_secret_is_where_others_look(server: Server, client: SyncPrefectClient) -> None:
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "prefect" in lines and server.secret not in lines
    for log in server.home.glob("*.log"):
        assert server.secret not in log.read_text()
        assert log.stat().st_mode & 0o077 == 0
    stranger = subprocess.run(
        [sys.executable, "-m", "flows", "deploy"],
        env={**server.environment, "PREFECT_API_AUTH_STRING": "admin:wrong"},
        cwd=server.work,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert stranger.returncode == 2 and "refuses us (401)" in stranger.stderr and "Traceback" not in stranger.stderr
    assert httpx.get(f"{server.address}/api/admin/version").status_code == 401
    user, _, password = server.secret.partition(":")
    unprotected = httpx.post(f"{server.address}/api/flows/filter", json={}, auth=(user, password))
    assert unprotected.status_code == 403 and "CSRF" in unprotected.text


def test_runs_wait_for_each_other_and_both_complete(server: Server, client: SyncPrefectClient) -> None:
    first, second = server.start(client, "first"), server.start(client, "second")
    seen: set[tuple[str | None, str | None]] = set()

    def both() -> bool:
        states = tuple(client.read_flow_run(run).state_name for run in (first, second))
        seen.add(states)  # type: ignore[arg-type]
        return all(state in ENDED for state in states)

    until("both runs ended", both)
    assert {ended(client, run).state_name for run in (first, second)} == {"Completed"}
    assert ("Running", "Running") not in seen
    same = [(server.work / name / "change_probability.tif").read_bytes() for name in ("first", "second")]
    assert same[0] == same[1]


def test_a_refused_run_says_why_and_is_not_tried_again(server: Server, client: SyncPrefectClient) -> None:
    run = ended(client, server.start(client, "refused", before=str(server.scene / "none.tif")))
    assert run.state_name == "Refused" and run.run_count == 1
    assert run.state is not None and "none.tif" in (run.state.message or "")
    assert not (server.work / "refused").exists()


def test_a_run_whose_process_is_killed_crashes_and_is_run_again_once_where_it_stopped(
    server: Server, client: SyncPrefectClient
) -> None:
    run = server.start(client, "killed")
    until("five blocks are finished", lambda: server.done("killed") >= 5)
    os.kill(processes_of(run)[0], signal.SIGKILL)
    kept = server.done("killed")
    crashed = ended(client, run, "Crashed")
    assert crashed.state is not None and "SIGKILL" in (crashed.state.message or "")
    logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
    assert not [log.message for log in logs if "Traceback" in log.message]
    final = ended(client, run, "Completed")
    assert final.run_count == 2  # though a worker that is very busy reports one crash twice, more than a minute apart
    lines = (server.work / "killed" / "ledger" / "infer.jsonl").read_text().splitlines()
    blocks = [json.loads(line)["block"] for line in lines]
    assert len(blocks) == len(set(blocks)) == 30 > kept  # no finished block was computed a second time
    assert (server.work / "killed" / "report.html").exists()


def test_a_run_that_dies_each_time_before_it_begins_is_given_up(server: Server, client: SyncPrefectClient) -> None:
    """Before it begins an attempt does not count: without an end of its own this would go round for ever."""
    deployment = client.read_deployment_by_name("detect-changes/dasnet")
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"request": {"before": "a", "after": "b", "output": "c"}},
        state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1)),
        job_variables={"command": "false"},
    ).id
    for state in (Running(), Crashed(message="scripted")):
        client.set_flow_run_state(run, state, force=True)
    final = ended(client, run, "GaveUp")
    assert final.run_count == 1 and "died 3 times" in (final.state.message or "")
    time.sleep(PAUSE_S + 30)
    assert client.read_flow_run(run).state_name == "GaveUp"


def test_a_run_that_died_with_the_whole_machine_is_found_when_the_server_is_back(
    tmp_path: Path,
) -> None:
    """The server that is away for longer than a silence lasts forgets whom it was waiting for."""
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    process = server_process(home, port, tmp_path)
    server = Server(f"http://127.0.0.1:{port}", home, process, tmp_path, tmp_path)
    with temporary_settings({PREFECT_API_URL: f"{server.address}/api", PREFECT_API_AUTH_STRING: server.secret}):
        client = get_client(sync_client=True)
        deployment = client.read_deployment_by_name("detect-changes/dasnet")
        later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
        parameters = {"request": {"before": "a", "after": "b", "output": "c"}}
        lost = client.create_flow_run_from_deployment(deployment.id, parameters=parameters, state=later).id
        client.set_flow_run_state(lost, Running(), force=True)  # nothing of it is there, as after a power cut
        assert stop(process) == 0
        process = server_process(home, port, tmp_path)
        try:
            client = get_client(sync_client=True)
            crashed = ended(client, lost, "Crashed")
            assert "No sign of life for 120 s" in (crashed.state.message or "")
        finally:
            stop(process)


def test_what_dies_with_its_worker_or_on_a_terminal_is_found_by_its_silence_sub_flows_too(
    server: Server, client: SyncPrefectClient, pages: Pages
) -> None:
    archive = killed_archive(server)
    run = server.start(client, "silent")
    until("a block is finished", lambda: server.done("silent") >= 1)
    victims = processes_of(run)
    parent = int(Path(f"/proc/{victims[0]}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"worker" in Path(f"/proc/{parent}/cmdline").read_bytes()
    for pid in (parent, *victims):
        os.kill(pid, signal.SIGKILL)
    crashed = ended(client, run, "Crashed")
    assert crashed.state is not None and "No sign of life for 120 s" in (crashed.state.message or "")
    assert ended(client, run, "Completed").run_count == 2  # by the worker that `dasnet server` has started again
    assert "the worker ended with code -9 and is started again" in (server.home / "err").read_text().replace("\n", " ")

    of_the_archive = [found for found in client.read_flow_runs() if (found.name or "").startswith(archive)]
    assert len(of_the_archive) >= 2, "the archive and at least one of its cells"
    states = {found.name: ended(client, found.id).state_name for found in of_the_archive}
    assert states[archive] == "Crashed" and "Crashed" in [states[name] for name in states if name != archive]
    assert all(client.read_flow_run(found.id).run_count == 1 for found in of_the_archive), "nobody would run them again"
    [whole] = [found for found in of_the_archive if found.name == archive]
    pages.open_run(whole.id, "Crashed")
    pages.await_bars(1, "crashed")
    pages.picture("ui-crashed")
    pages.tab("Details")
    pages.sees("No sign of life for 120 s")
    again = server.dasnet(*reprocess(server), PREFECT_API_AUTH_STRING=server.secret)
    assert again.returncode == 0, again.stderr


def reprocess(server: Server) -> list[str]:
    """Arguments of `dasnet` for an archive of two dates in four cells."""
    dates = [str(server.scene / name) for name in ("before.tif", "after.tif")]
    sizes = ["--block", "128", "--window", "64", "--cell", "384", "--workers", "1"]
    return ["reprocess", *dates, "--output", "archive", *sizes]


def killed_archive(server: Server) -> str:
    """Start `dasnet reprocess` on a terminal, kill it in the middle of a cell; the name of its run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *reprocess(server)],
        env={**server.environment, "PREFECT_API_AUTH_STRING": server.secret},
        cwd=server.work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def begun() -> bool:
        assert process.poll() is None, "it ended before it could be killed"
        return any(
            ledger.stat().st_size for ledger in (server.work / "archive").glob("versions/*/cells/*/ledger/infer.jsonl")
        )

    try:
        until("a block of a cell is finished", begun)
    finally:
        process.kill()
        process.wait()
    return "archive"


def test_a_run_cancelled_in_the_ui_stops_its_workers_and_can_be_resumed(
    server: Server, client: SyncPrefectClient, pages: Pages
) -> None:
    run = server.start(client, "cancelled")
    until("a block is finished", lambda: server.done("cancelled") >= 1)
    assert len(processes_of(run)) > 1
    pages.open_run(run, "Running")
    pages.cancel()
    assert ended(client, run).state_name == "Cancelled"
    until("its processes have ended", lambda: not processes_of(run), patience_s=60)
    kept, lines = server.done("cancelled"), (server.work / "cancelled" / "ledger" / "infer.jsonl").read_text()
    assert 1 <= kept < 30 and lines.endswith("\n")
    assert not [path for path in (server.work / "cancelled").iterdir() if path.name in PRODUCTS.values()]
    pages.open_run(run, "Cancelled")
    pages.await_bars(2, "completed")
    pages.picture("ui-cancelled")
    logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
    assert not [log.message for log in logs if "Traceback" in log.message]
    resumed = server.start(client, "cancelled")
    assert ended(client, resumed).state_name == "Completed"
    blocks = (server.work / "cancelled" / "ledger" / "infer.jsonl").read_text().splitlines()
    assert len(blocks) == 30, "no finished block is computed again"
    assert client.read_flow_run(run).run_count == 1
    for product in ("change_probability.tif", "changes.parquet"):
        whole = [(server.work / name / product).read_bytes() for name in ("cancelled", "first")]
        assert whole[0] == whole[1], product
    drafts = [
        path for path in (server.work / "cancelled").rglob("*") if path.name.startswith(".") or "tmp" in path.name
    ]
    assert not drafts, "nothing half-written is left"


def test_somebody_is_told_of_a_run_that_ends_badly(server: Server, client: SyncPrefectClient, pages: Pages) -> None:
    from prefect.blocks.webhook import Webhook

    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    assert "no block 'webhook/failures'" in server.dasnet("deploy", "--notify", "webhook/failures").stderr
    listener = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    webhook = Webhook(method="POST", url=f"http://127.0.0.1:{listener.server_port}/hook")  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as outside_any_loop:  # the browser's is in this thread: Prefect would not wait
        outside_any_loop.submit(copy_context().run, webhook.save, "failures").result()
    deployed = server.dasnet("deploy", "--notify", "webhook/failures")
    assert deployed.returncode == 0 and "tell somebody: made" in deployed.stdout, deployed.stderr
    output = server.work / "quarantined"
    shutil.copytree(server.work / "first", output)
    (output / "ledger" / "products.json").unlink(missing_ok=True)
    from tiling.ledger import Entry

    failed = Entry(block="r00001c00001", state="failed", facts={"error": "scripted", "attempts": 3})
    Ledger(output / "ledger", "infer").append([failed])
    run = ended(client, server.start(client, "quarantined"))
    assert run.state_name == "Incomplete" and run.run_count == 1
    pages.open_run(run.id, "Incomplete")
    pages.open_artifact(artifacts(client, run)["blocks"].id)
    pages.sees("r00001c00001")
    pages.sees("scripted")
    message = until("a message arrives", lambda: heard[0] if heard else None, patience_s=300)
    listener.shutdown()
    assert "quarantined ended Incomplete" in message and "r00001c00001: scripted" in message
    assert f"{run.id}" in message and server.secret not in message


def test_ctrl_c_ends_everything_without_a_traceback_and_the_same_request_goes_on(
    server: Server, client: SyncPrefectClient
) -> None:
    run = server.start(client, "interrupted")
    until("a block is finished", lambda: server.done("interrupted") >= 1)
    assert stop(server.process) == 0
    told = (server.home / "err").read_text()
    assert "stopping" in told and "Traceback" not in told and "refused" not in told
    assert processes_of(run) == []
    assert not re.search(rf"--port {server.address.rpartition(':')[2]}\b", subprocess.getoutput("ps -eo args"))
    again = server_process(server.home, int(server.address.rpartition(":")[2]), server.work)
    try:
        assert "detect-changes" not in (server.home / "out").read_text()  # registered already
        assert ended(client, server.start(client, "interrupted"), "Completed").run_count == 1
        lines = (server.work / "interrupted" / "ledger" / "infer.jsonl").read_text().splitlines()
        assert len(lines) == 30
    finally:
        assert stop(again) == 0
