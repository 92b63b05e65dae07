"""A real Prefect server and a small synthetic pair, once for all flow tests."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster
from distributed.utils import get_mp_context

from flows.cli.main import main
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import closed_in_time
from flows.cluster.settings import SETTINGS, WORKER_ENVIRONMENT
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from storage.synthetic.pair import SyntheticPair, synthesize
from tests.flows.squares import SIDE, write_pictures


@pytest.fixture(scope="session", autouse=True)
def workers_fork() -> Iterator[None]:
    """Workers of flows in this process fork from one that has imported what they need, which saves seconds a run.

    They have its environment, whatever a test sets. Those of a command are spawned, as a user's are.
    """
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # names its own list of what to import
        multiprocessing.set_forkserver_preload(
            ["distributed", "flows.inference.tools", "dasnet.prediction.predictor", "dasnet.networks._torchvision"]
        )
        yield


@pytest.fixture
def workers_spawn() -> Iterator[None]:
    """Workers see this test's environment."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        yield


@pytest.fixture(scope="session")
def workers(workers_fork: None) -> Iterator[ClusterConfig]:
    """Two workers with a lane each on a running scheduler, for jobs whose cluster is not what a test looks at."""
    with dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0")
    with closed_in_time(cluster):
        yield ClusterConfig(kind=cluster.scheduler_address)


@pytest.fixture(scope="session")
def one_rank(workers: ClusterConfig) -> ClusterConfig:
    """One of them, to train with one thread: small networks gain little by more, and lose by those that wait."""
    return workers.model_copy(update={"workers": 1, "lanes": 1})


@pytest.fixture(scope="session")
def dataset(workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of pictures in which a square appears, with all three splits."""
    root = tmp_path_factory.mktemp("squares")
    write_pictures(root / "in", {"train": 20, "val": 6, "test": 6}, seed=1)
    asked = {"source": root / "in", "output": root / "out", "window": SIDE, "resolution": 1.0, "cluster": workers}
    run_preparation(PrepareRequest.model_validate(asked))
    return root / "out"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    """700 × 900 px: four blocks of 512 px, two of them narrow."""
    return synthesize(tmp_path_factory.mktemp("scene"), height=700, width=900, seed=5)


@pytest.fixture(scope="session")
def prefect_ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running Prefect server; flows called in this process use it."""
    from flows.service.embedded import embedded_server, flush_logs

    with embedded_server(tmp_path_factory.mktemp("prefect") / "server.log", patience_s=600) as address:
        yield address
        flush_logs()


def request_for(pair: SyntheticPair, output: Path, **changes: Any) -> DetectRequest:
    """A request for the small pair on two workers."""
    values: dict[str, Any] = {
        "before": str(pair.before),
        "after": str(pair.after),
        "output": output,
        "block": 512,
        "cluster": ClusterConfig(workers=2),
    }
    return DetectRequest.model_validate({**values, **changes})


@pytest.fixture(scope="session")
def run(pair: SyntheticPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a clean run over the pair."""
    output = tmp_path_factory.mktemp("runs") / "clean"
    run_detection(request_for(pair, output))
    return output


@dataclass(frozen=True)
class Finished:
    """A `dasnet` command that has ended."""

    code: int
    out: str
    err: str


Dasnet = Callable[..., Finished]


@pytest.fixture
def dasnet_process() -> Dasnet:
    """Run `dasnet` as a user does, in a process of its own."""

    def run(*arguments: object, timeout: float = 240) -> Finished:
        ended = subprocess.run(
            [sys.executable, "-m", "flows", *map(str, arguments)], capture_output=True, text=True, timeout=timeout
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def dasnet(monkeypatch: pytest.MonkeyPatch) -> Dasnet:
    """The same in this process, which has already imported what a command needs: seconds less each."""

    def run(*arguments: object) -> Finished:
        out, err = StringIO(), StringIO()
        code = 0
        with redirect_stdout(out), redirect_stderr(err), monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["dasnet", *map(str, arguments)])
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Finished(code, out.getvalue(), err.getvalue())

    return run
