"""What `dasnet deploy` and `dasnet server` decide before any server is asked."""

from __future__ import annotations

import importlib
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from flows.run.errors import PrefectServerError, SecretError
from flows.run.heartbeats import HEARTBEAT_S, TAG
from flows.run.prefect_observer import INCOMPLETE, REFUSED
from flows.service.automations import GAVE_UP, HEARTBEAT, PAUSE_S, SILENCE_S, automations
from flows.service.deployments import QUEUES, default_file, for_pool
from flows.service.login import login_from, make_login, read_secret
from flows.service.standing import POOL, ServerOptions, running_server, server_environment, worker_environment
from storage.errors import InputError

FLOWS = {
    "calibrate",
    "quantise",
    "detect-changes",
    "reprocess-archive",
    "prepare-dataset",
    "compute-class-weights",
    "train",
    "evaluate",
    "compare-methods",
}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return dict(yaml.safe_load(default_file().read_text()))


def entrypoint(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_flow_has_a_deployment_from_the_installed_package(content: dict[str, Any]) -> None:
    flows = [entrypoint(deployment) for deployment in content["deployments"]]
    assert all(isinstance(flow, Flow) for flow in flows)
    assert {flow.name for flow in flows} == FLOWS
    assert content["pull"] == []  # nothing is cloned: the code is the installed one
    for deployment in content["deployments"]:
        assert TAG in deployment["tags"]
        assert deployment["work_pool"]["name"] == POOL
        assert deployment["work_pool"]["work_queue_name"] in QUEUES
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_S)


def test_what_uses_a_gpu_goes_through_the_queue_that_lets_one_run_through(content: dict[str, Any]) -> None:
    queues = {entrypoint(found).name: found["work_pool"]["work_queue_name"] for found in content["deployments"]}
    assert {name for name, queue in queues.items() if queue == "gpu"} == FLOWS - {
        "prepare-dataset",
        "compute-class-weights",
        "quantise",
    }
    assert QUEUES["gpu"] == 1


def test_the_archive_has_a_schedule_that_is_off_until_it_has_parameters(content: dict[str, Any]) -> None:
    scheduled = {entrypoint(found).name: found["schedules"] for found in content["deployments"] if "schedules" in found}
    assert list(scheduled) == ["reprocess-archive"]
    [schedule] = scheduled["reprocess-archive"]
    assert schedule["active"] is False and schedule["cron"].split()[2] == "1"


def test_the_form_explains_every_field(content: dict[str, Any]) -> None:
    for deployment in content["deployments"]:
        assert deployment["description"].startswith("**")
        schema = entrypoint(deployment).parameters.model_dump()
        missing = [
            f"{model}.{name}"
            for model, definition in schema["definitions"].items()
            for name, field in definition.get("properties", {}).items()
            if not field.get("description") and "$ref" not in field and "allOf" not in field
        ]
        assert missing == []


@pytest.mark.parametrize("pool_type", ["docker", "kubernetes"])
def test_other_pools_take_the_same_deployments(
    content: dict[str, Any], pool_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DASNET_IMAGE", raising=False)
    with pytest.raises(InputError, match=f"--pool {pool_type} needs .*DASNET_IMAGE"):
        for_pool(content, pool_type)
    monkeypatch.setenv("DASNET_IMAGE", "registry/dasnet:1")
    monkeypatch.setenv("DASNET_DATA", "/data")
    changed = for_pool(content, pool_type)
    assert {found["name"] for found in changed["deployments"]} == {f"dasnet-{pool_type}"}
    for before, after in zip(content["deployments"], changed["deployments"], strict=True):
        assert after["work_pool"]["work_queue_name"] == before["work_pool"]["work_queue_name"]
        assert after["entrypoint"] == before["entrypoint"]
        assert "working_dir" not in after["work_pool"]["job_variables"]
    with pytest.raises(InputError, match="one of process, docker, kubernetes"):
        for_pool(content, "slurm")


def test_a_run_counts_as_dead_after_several_missed_heartbeats_and_every_ending_is_an_ending() -> None:
    silent, unborn, again, hopeless = automations(None)
    assert SILENCE_S >= 3 * HEARTBEAT_S
    assert silent.trigger.within.total_seconds() == SILENCE_S
    assert {
        f"prefect.flow-run.{name}" for name in (REFUSED, INCOMPLETE, "Completed", "Cancelled")
    } < silent.trigger.expect
    assert HEARTBEAT in silent.trigger.expect and silent.trigger.after == {HEARTBEAT}
    # once: the event of a run's second crash carries run-count 2
    assert again.trigger.match["prefect.run-count"] == ["1"]
    assert again.trigger.after == {"prefect.flow-run.Crashed", "prefect.flow-run.Failed"}
    assert again.trigger.within.total_seconds() == PAUSE_S
    # what gives up is no death that "once more" would answer, and ends what waits for an end
    assert hopeless.actions[0].name == GAVE_UP and f"prefect.flow-run.{GAVE_UP}" in again.trigger.expect
    assert f"prefect.flow-run.{GAVE_UP}" in silent.trigger.expect & unborn.trigger.expect
    assert unborn.trigger.after == {"prefect.flow-run.Pending"} and not unborn.trigger.after & unborn.trigger.expect


def test_images_serve_the_ui_from_the_one_place_that_they_may_write_to() -> None:
    """Prefect copies it to beside its package else, which no user but root may write to."""
    for kind in ("cpu", "cuda"):
        text = Path(f"deploy/docker/Dockerfile.{kind}").read_text()
        assert "PREFECT_UI_STATIC_DIRECTORY=/tmp/prefect-ui" in text


def test_a_secret_file_that_others_can_read_is_refused_by_name_and_its_content_is_never_told(tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_text("admin:hunter2\n")
    file.chmod(0o640)
    with pytest.raises(SecretError, match=r"mode 640, others can read it: chmod 600") as refused:
        read_secret(file)
    assert "hunter2" not in str(refused.value)
    file.chmod(0o600)
    assert login_from(file) == "admin:hunter2"
    file.write_text("hunter2\n")
    with pytest.raises(SecretError, match="must hold user:password") as refused:
        login_from(file)
    assert "hunter2" not in str(refused.value)
    file.write_text("a:b\nc:d\n")
    with pytest.raises(SecretError, match="must hold one line, not 2"):
        read_secret(file)
    with pytest.raises(SecretError, match="cannot be read: No such file"):
        read_secret(tmp_path / "none")


def test_a_login_is_made_for_its_owner_alone_and_never_twice_the_same(tmp_path: Path) -> None:
    first, second = make_login(tmp_path / "a"), make_login(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert login_from(tmp_path / "a") == first != second
    assert make_login(tmp_path / "a") == first, "who comes second has the login of who came first"
    with ThreadPoolExecutor(8) as commands:
        at_once = list(commands.map(lambda _: make_login(tmp_path / "c"), range(8)))
    assert set(at_once) == {login_from(tmp_path / "c")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_password_on_the_command_line_is_refused() -> None:
    with pytest.raises(PrefectServerError, match=r"must not hold a password.*pgpass") as refused:
        ServerOptions(database="postgresql+asyncpg://me:hunter2@host/prefect")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(PrefectServerError, match=r"takes postgresql\+asyncpg"):
        ServerOptions(database="mysql://host/prefect")
    assert ServerOptions(host="0.0.0.0", port=1).address == "http://127.0.0.1:1"
    assert ServerOptions(host="::1", port=1).address == "http://[::1]:1"


def test_a_taken_port_is_refused_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(PrefectServerError, match=rf"cannot listen at 127.0.0.1 port {port} .*another --port"),
            running_server(ServerOptions(port=port)),
        ):
            pytest.fail("it started")


def test_runs_do_not_inherit_what_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://me:hunter2@host/prefect")
    server = server_environment(ServerOptions(), "admin:secret")
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == "admin:secret"
    assert server["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert server["PGPASSWORD"] == "hunter2"
    worker = worker_environment("http://127.0.0.1:4200", "admin:secret")
    assert "hunter2" not in "".join(worker.values())
    assert not [name for name in worker if name.startswith("PREFECT_SERVER_")]
    assert worker["PREFECT_API_AUTH_STRING"] == "admin:secret"
