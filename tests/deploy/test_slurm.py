"""The SLURM script: what it refuses, and a run by it on this machine, with a stand-in for SLURM's ``srun``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.cluster.certificates import make_certificates
from storage.synthetic.pair import synthesize
from tests.conftest import ROOT
from tiling.ledger import Ledger

SCRIPT = ROOT / "deploy/slurm/dasnet.sbatch"

pytestmark = pytest.mark.timeout(1800)


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of one node: a `srun` that runs what follows its options here, and our two programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    executable(programs / "srun", '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    executable(programs / "dask", f'#!/bin/bash\nexec "{sys.executable}" -m dask "$@"\n')
    executable(programs / "dasnet", f'#!/bin/bash\nexec "{sys.executable}" -m flows "$@"\n')
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "DASNET_DEVICE": "cpu",
        "DASNET_CERTIFICATES": str(tmp_path / "certs"),
        "TMPDIR": str(tmp_path),
    }


def submit(job: dict[str, str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=job, cwd=folder, capture_output=True, text=True, timeout=1500)


def doors_until(ended: threading.Event) -> dict[int, set[str]]:
    """By port, the addresses that the processes of this test listen at, looked at again and again."""
    doors: dict[int, set[str]] = {}
    while not ended.wait(0.2):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                for door in process.net_connections("tcp"):
                    if door.status == psutil.CONN_LISTEN:
                        doors.setdefault(door.laddr.port, set()).add(door.laddr.ip)
    return doors


def test_what_is_missing_is_named(job: dict[str, str], tmp_path: Path) -> None:
    for changes, arguments, said in (
        ({}, (), "give the dasnet command"),
        ({"SLURM_JOB_ID": ""}, ("status", "x"), "submit it with sbatch"),
        ({"DASNET_CERTIFICATES": ""}, ("status", "x"), "set DASNET_CERTIFICATES"),
        ({}, ("status", "x"), "certs/ca.pem cannot be read"),
    ):
        ended = submit({**job, **changes}, tmp_path, *arguments)
        assert ended.returncode == 2
        assert said in ended.stderr
    make_certificates(tmp_path / "certs")
    ended = submit({**job, "DASNET_DEVICE": "tpu"}, tmp_path, "status", "x")
    assert (ended.returncode, "cuda or cpu, not tpu" in ended.stderr) == (2, True)
    ended = submit({**job, "SLURM_SUBMIT_DIR": str(tmp_path)}, tmp_path, "status", "x")
    assert (ended.returncode, "set DASNET_DASK_CONFIG" in ended.stderr) == (2, True)
    assert not list(tmp_path.glob(".dasnet-job-*"))


@pytest.mark.slow
def test_a_job_runs_its_command_over_tls_and_leaves_nothing_behind(job: dict[str, str], tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs")
    pair = synthesize(tmp_path / "scene", height=300, width=400, seed=3)
    over = threading.Event()
    with ThreadPoolExecutor(1) as watching:
        seen = watching.submit(doors_until, over)
        try:
            ended = submit(
                job, tmp_path, "detect", pair.before, pair.after, "--output", tmp_path / "run", "--block", 256
            )
        finally:
            over.set()
        doors = seen.result()
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run/change_probability.tif").exists()
    assert Ledger(tmp_path / "run/ledger", "infer").count("done") == 4
    assert "tls://" in ended.stderr, "the scheduler says where it listens"
    assert "tcp://" not in ended.stderr
    # Dask writes its own host before the port of a dashboard, wherever that listens
    dashboards = [int(port) for port in re.findall(r"dashboard at:.*:(\d+)", ended.stderr)]
    assert len(dashboards) == 2
    assert [doors[port] for port in dashboards] == [{"127.0.0.1"}] * 2
    assert not list(tmp_path.glob(".dasnet-job-*"))
    again = submit(job, tmp_path, "detect", pair.before, pair.before, "--output", tmp_path / "run")
    assert again.returncode == 2, "the command's exit code is the job's"
