"""The production server: PostgreSQL behind it, login and CSRF on, several flows at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.service.processes import free_port
from storage.synthetic.pair import synthesize
from tests.flows.service.test_standing import Server, ended, server_process, stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def program(name: str) -> str:
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A PostgreSQL of its own on loopback: (URL without password, password)."""
    folder = tmp_path_factory.mktemp("postgres")
    # PostgreSQL refuses to run as root
    as_postgres = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
    if not os.getuid():
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and runuser is not installed")
        for parent in (folder, *folder.parents):
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)
        shutil.chown(folder, "postgres")
    password, data, port = "hunter2", folder / "data", free_port()
    (folder / "password").write_text(password)

    def run(*command: str) -> None:
        subprocess.run([*as_postgres, *command], check=True, cwd=folder, capture_output=True, timeout=600)

    owner = ["--username=prefect", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256"]
    run(program("initdb"), "-D", str(data), *owner)
    listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run(program("pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-o", listen, "-w", "-t", "300", "start")
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres", password
    finally:
        run(program("pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


def test_several_flows_at_once_over_postgresql(
    database: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url, password = database
    home, work = tmp_path_factory.mktemp("postgres-home"), tmp_path_factory.mktemp("postgres-work")
    scene = work / "scene"
    synthesize(scene, height=256, width=256, seed=5)
    port = free_port()
    process = server_process(home, port, work, "--database", url, PGPASSWORD=password)
    try:
        server = Server(f"http://127.0.0.1:{port}", home, process, scene, work)
        with temporary_settings({PREFECT_API_URL: f"{server.address}/api", PREFECT_API_AUTH_STRING: server.secret}):
            client = get_client(sync_client=True)
            runs = [server.start(client, "detect")]
            prepare = client.read_deployment_by_name("prepare-dataset/dasnet")
            for number in range(2):
                request: dict[str, Any] = {
                    "before": str(scene / "before.tif"),
                    "after": str(scene / "after.tif"),
                    "label": str(scene / "change.tif"),
                    "output": str(work / f"dataset-{number}"),
                    "window": 64,
                    "cell": 1,
                    "cluster": {"workers": 1, "lanes": 1},
                }
                runs.append(client.create_flow_run_from_deployment(prepare.id, parameters={"request": request}).id)
            finished = [ended(client, run) for run in runs]
            assert [run.state_name for run in finished] == ["Completed"] * 3
            spans = [(run.start_time, run.end_time) for run in finished]
            assert any(
                a_start < b_end and b_start < a_end  # type: ignore[operator]
                for (a_start, a_end), (b_start, b_end) in ((spans[0], spans[1]), (spans[1], spans[2]))
            ), spans
    finally:
        code = stop(process)
    assert code == 0
    assert not (home / "prefect.db").exists()
    for log in home.glob("*.log"):
        text = log.read_text()
        assert "database is locked" not in text and password not in text
    for text in ((home / "out").read_text(), (home / "err").read_text()):
        assert "Traceback" not in text and password not in text
