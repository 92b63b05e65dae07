"""Clusters: what a configuration means here, and a scheduler that somebody else started."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from distributed import Client, LocalCluster
from pydantic import ValidationError

from dasnet.errors import BundleError
from dasnet.prediction.header import bundle_path
from flows.cluster import connect as cluster
from flows.cluster.certificates import Certificates, make_certificates
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect, cuda_options
from flows.cluster.layout import ClusterLayout, local_layout, planned_layout
from flows.detect.flow import detect_changes
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.inference.predictor import predictor_factory
from flows.run.errors import CertificateError, ClusterError
from flows.service.embedded import flush_logs
from storage.datasets.drawn_labels import DrawnPolygons
from storage.datasets.scenes import SceneFiles
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
from storage.stores.run_store import RunStore
from storage.synthetic.pair import SyntheticPair
from tests.conftest import ROOT
from tests.flows.conftest import Dasnet, request_for
from tiling.execute import BoundedRunner, Equipment

# a busy machine takes minutes for what takes seconds
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    ("cores", "config", "workers", "lanes"),
    [
        (2, ClusterConfig(), 2, 1),
        (16, ClusterConfig(), 4, 4),
        (16, ClusterConfig(workers=2), 2, 8),
        (16, ClusterConfig(lanes=8), 2, 8),
        (2, ClusterConfig(workers=5), 5, 1),
        (8, ClusterConfig(workers=3, lanes=5), 3, 5),
    ],
)
def test_all_cores_are_used_whatever_is_left_open(
    monkeypatch: pytest.MonkeyPatch, cores: int, config: ClusterConfig, workers: int, lanes: int
) -> None:
    monkeypatch.setattr("flows.cluster.layout.cores", lambda: cores)
    assert local_layout(config) == ClusterLayout(workers=workers, lanes=lanes)


@pytest.mark.parametrize(
    ("blocks", "config", "workers", "lanes"),
    [
        (1, ClusterConfig(), 1, 16),
        (3, ClusterConfig(), 3, 5),
        (9, ClusterConfig(), 4, 4),
        (1, ClusterConfig(workers=2), 2, 8),
        (1, ClusterConfig(lanes=4), 1, 4),
    ],
)
def test_no_worker_is_started_that_would_have_no_block(
    monkeypatch: pytest.MonkeyPatch, blocks: int, config: ClusterConfig, workers: int, lanes: int
) -> None:
    monkeypatch.setattr("flows.cluster.layout.cores", lambda: 16)
    assert local_layout(config, blocks=blocks) == ClusterLayout(workers=workers, lanes=lanes)


@pytest.fixture
def foreign_scheduler() -> Iterator[str]:
    """A scheduler with one worker of two threads, started by Dask's own means with Dask's own settings."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    ) as started:
        yield started.scheduler_address


def test_an_existing_scheduler_gives_the_same_bytes_and_lives_on(
    run: Path, pair: SyntheticPair, tmp_path: Path, foreign_scheduler: str
) -> None:
    config = ClusterConfig(kind=foreign_scheduler)
    run_detection(request_for(pair, tmp_path / "run", cluster=config))
    found, expected = (
        xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()
        for directory in (tmp_path / "run", run)
    )
    assert np.array_equal(found, expected)
    with connect(config) as (client, layout):
        assert layout == ClusterLayout(workers=1, lanes=1)
        assert client.submit(sum, [1, 2]).result() == 3


def test_what_a_killed_run_left_on_a_scheduler_is_taken_away_by_the_next(
    pair: SyntheticPair, tmp_path: Path, foreign_scheduler: str
) -> None:
    with Client(foreign_scheduler, set_as_default=False) as killed:
        name = f"infer-1-of-dasnet-{killed.id}"
        killed.register_plugin(Equipment(name, lambda: len), name=name)
        mine = Equipment("somebody else's", lambda: len)
        killed.register_plugin(mine, name=mine.name)
    run_detection(request_for(pair, tmp_path / "run", cluster=ClusterConfig(kind=foreign_scheduler)))
    with Client(foreign_scheduler, set_as_default=False) as client:
        left = client.run_on_scheduler(lambda dask_scheduler: sorted(map(str, dask_scheduler.worker_plugins)))
        on_workers = client.run(lambda dask_worker: sorted(map(str, dask_worker.plugins)))
    assert mine.name in left and not [found for found in left if "-of-dasnet-" in found]
    for names in on_workers.values():
        assert mine.name in names and not [found for found in names if "-of-dasnet-" in found]


def test_a_bundle_that_is_another_one_where_it_is_loaded_ends_the_run(
    pair: SyntheticPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mine.safetensors"
    shutil.copy(bundle_path("synthetic"), copy)
    monkeypatch.chdir(tmp_path)
    Path("synthetic").mkdir()  # a folder called as a shipped bundle is not that bundle
    named = resolve(DetectRequest(before=str(pair.before), after=str(pair.after), output=tmp_path / "run"))
    assert predictor_factory(named)().describe()["precision"]
    request = DetectRequest(
        before=str(pair.before), after=str(pair.after), output=tmp_path / "run", bundle="./mine.safetensors"
    )
    make = predictor_factory(resolve(request))
    monkeypatch.chdir("/")
    assert make().describe()["precision"]
    shutil.copy(bundle_path("water-extent"), copy)
    with pytest.raises(BundleError, match=r"mine\.safetensors on .* has SHA-256 .*replaced meanwhile"):
        make()


def test_what_travels_to_workers_names_the_same_files_from_any_folder(
    pair: SyntheticPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shutil.copy(pair.before, tmp_path / "a/before.tif")
    monkeypatch.chdir(tmp_path / "a")
    mosaic = open_mosaic("before.tif")
    reader = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=(1, 2, 3))
    expected, _ = reader.read(rows=slice(0, 64), cols=slice(0, 64))
    label = "change.geojson"
    scene = SceneFiles(name="s", before=("before.tif",), after="s3://bucket/after.tif", label=label)
    drawn = DrawnPolygons(path=label, grid=mosaic.grid)
    sent = pickle.dumps((reader, RunStore(Path("run/run.zarr")), scene, drawn))
    monkeypatch.chdir(tmp_path / "b")
    received, store, scene, drawn = pickle.loads(sent)
    assert np.array_equal(received.read(rows=slice(0, 64), cols=slice(0, 64))[0], expected)
    assert store.path == tmp_path / "a/run/run.zarr"
    assert scene.label == str(tmp_path / "a/change.geojson") and scene.before == (str(tmp_path / "a/before.tif"),)
    assert scene.after == "s3://bucket/after.tif" and drawn.path == scene.label


def test_nobody_at_the_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
    with pytest.raises(ClusterError, match=f"no Dask scheduler answers at tcp://127.0.0.1:{port}"):
        planned_layout(ClusterConfig(kind=f"tcp://127.0.0.1:{port}"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ClusterError, match="--cluster cuda"):
        planned_layout(ClusterConfig(kind="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_one_worker_a_gpu_gives_what_the_cpu_gives(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    config = ClusterConfig(kind="cuda")
    run_detection(request_for(pair, tmp_path / "run", cluster=config))
    found, expected = (
        xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()
        for directory in (tmp_path / "run", run)
    )
    assert np.array_equal(found == 255, expected == 255)
    assert np.mean(np.abs(found.astype(int) - expected) <= 8) > 0.99, "bfloat16 rounds otherwise on another device"


@dataclass(frozen=True)
class Secured:
    """A scheduler and a worker by Dask's own commands with the settings of ``deploy/dask``, joined by TLS."""

    address: str
    file: Path
    certificates: Certificates

    @property
    def config(self) -> ClusterConfig:
        return ClusterConfig(kind=self.address, certificates=self.certificates.directory)


def dask_command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """A command line of Dask and its environment."""
    return [sys.executable, "-m", "dask", *map(str, arguments)], {
        **os.environ,
        "DASK_CONFIG": str(ROOT / "deploy/dask"),
    }


def tls(certificates: Certificates, role: str) -> list[object]:
    files = (certificates.authority, certificates.certificate(role), certificates.key(role))
    return [part for pair in zip(("--tls-ca-file", "--tls-cert", "--tls-key"), files, strict=True) for part in pair]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificates, file = make_certificates(folder / "certs"), folder / "scheduler.json"
    commands = (
        ["scheduler", "--host", "tls://127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file],
        ["worker", "--scheduler-file", file, "--nthreads", 2, "--no-dashboard", "--local-directory", folder / "worker"],
    )
    with ExitStack() as started, (folder / "log").open("wb") as log:
        for command, role in zip(commands, ("scheduler", "worker"), strict=True):
            arguments, environment = dask_command(*command, *tls(certificates, role))
            process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
            started.callback(process.wait, timeout=60)
            started.callback(process.terminate)
            deadline = time.monotonic() + 600
            while not file.exists():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield Secured(json.loads(file.read_text())["address"], file, certificates)


def test_a_run_over_tls_gives_the_same_bytes_and_its_keys_are_nowhere(
    run: Path, pair: SyntheticPair, tmp_path: Path, secured: Secured, prefect_home: None, prefect_ui: str
) -> None:
    assert secured.address.startswith("tls://")
    by_file = secured.config.model_copy(update={"kind": str(secured.file)})
    detect_changes(request_for(pair, tmp_path / "run", cluster=by_file))
    found, expected = (
        xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()
        for directory in (tmp_path / "run", run)
    )
    assert np.array_equal(found, expected)
    flush_logs()
    secrets = [
        line.encode()
        for role in ("scheduler", "worker", "client")
        for line in secured.certificates.key(role).read_text().splitlines()
        if "-----" not in line
    ]
    looked_at = 0
    for folder in (tmp_path / "run", Path(os.environ["PREFECT_HOME"]), secured.file.parent):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".pem":
                content = path.read_bytes()
                assert not any(secret in content for secret in secrets), path
                looked_at += 1
    database = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    assert str(secured.certificates.directory).encode() in database.read_bytes(), "parameters are in what was looked at"
    assert looked_at > 10


def test_foreign_workers_have_a_bound_on_their_life_and_a_nanny(secured: Secured) -> None:
    with connect(secured.config) as (client, layout):
        assert layout == ClusterLayout(workers=1, lanes=1)
        (life,) = client.run(lambda dask_worker: (dask_worker.lifetime, dask_worker.lifetime_restart)).values()
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
    assert 6 * 3600 - 36 * 60 <= life[0] <= 6 * 3600 + 36 * 60
    assert life[1] is True
    assert worker["nanny"]


def test_the_settings_of_deploy_are_those_of_a_run() -> None:
    theirs = yaml.safe_load((ROOT / "deploy/dask/dasnet.yaml").read_text())

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for name, value in tree.items():
            whole = f"{prefix}{name}"
            nested = isinstance(value, dict) and name != "pre-spawn-environ"
            leaves.update(flat(value, whole + ".") if nested else {whole: value})
        return leaves

    expected = {
        **cluster.SETTINGS,
        "distributed.comm.require-encryption": True,
        "distributed.nanny.pre-spawn-environ": cluster.WORKER_ENVIRONMENT,
        "distributed.worker.lifetime.duration": "6 hours",
        "distributed.worker.lifetime.stagger": "36 minutes",
    }
    del expected["distributed.worker.preload"]  # Ctrl-C of the command's terminal does not reach them
    del expected["distributed.deploy.lost-worker-timeout"]  # of a local cluster
    assert flat(theirs) == expected
    assert ClusterConfig().worker_hours == 6


def test_tls_without_certificates_is_refused_before_anything_is_written(
    pair: SyntheticPair, tmp_path: Path, secured: Secured, dasnet: Dasnet
) -> None:
    ended = dasnet("detect", pair.before, pair.after, "--output", tmp_path / "run", "--cluster", secured.address)
    assert ended.code == 2, ended.err
    assert f"{secured.address} needs certificates: give --certificates DIR" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["tcp://127.0.0.1:8786", "ucx://127.0.0.1:8786"])
def test_certificates_for_an_open_address_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"certificates has no effect .* is open to read"):
        ClusterConfig(kind=kind, certificates=tmp_path)


def test_an_open_scheduler_behind_a_file_is_refused_when_certificates_are_given(
    tmp_path: Path, secured: Secured
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tcp://127.0.0.1:8786"}')
    with pytest.raises(CertificateError, match="certificates are given, but the scheduler is at tcp://127"):
        planned_layout(ClusterConfig(kind=str(file), certificates=secured.certificates.directory))
    with pytest.raises(ClusterError, match=r"nowhere\.json cannot be read"):
        planned_layout(ClusterConfig(kind=str(tmp_path / "nowhere.json")))
    file.write_text("[]")
    with pytest.raises(ClusterError, match="was not written by a Dask scheduler"):
        planned_layout(ClusterConfig(kind=str(file)))


def test_nobody_of_another_authority_or_without_certificates_gets_in(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", "3s")
    foreign = make_certificates(tmp_path / "foreign")
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        planned_layout(ClusterConfig(kind=secured.address, certificates=foreign.directory))
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        planned_layout(ClusterConfig(kind=secured.address.replace("tls://", "tcp://")))


def _authority_only(certificates: Certificates) -> list[object]:
    return ["--tls-ca-file", certificates.authority]


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("tcp://127.0.0.1", lambda certificates: [], "TLS expects a `ssl_context`"),
        ("tls://127.0.0.1", lambda certificates: [], "TLS expects a `ssl_context`"),
        ("tls://127.0.0.1", _authority_only, "TLS expects a `ssl_context`"),
    ],
    ids=["none", "no files", "authority only"],
)
def test_a_part_of_tls_fails_instead_of_running_open(
    secured: Secured, host: str, options: Callable[[Certificates], list[object]], said: str
) -> None:
    command, environment = dask_command(
        "scheduler", "--host", host, "--port", 0, "--no-dashboard", *options(secured.certificates)
    )
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode != 0
    assert said in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"memory_limit": "much"}, "much"),
        ({"memory_limit": "0"}, "no size in bytes"),
        ({"rmm_pool": "20GB"}, "rmm_pool has no effect on cluster local"),
        ({"protocol": "ucx"}, "protocol has no effect on cluster local"),
        ({"kind": "tcp://host:1", "memory_limit": "8GB"}, "running scheduler have their own"),
        ({"kind": "tls://host:1", "worker_hours": 2}, "running scheduler have their own"),
        ({"worker_hours": 0}, "greater than 0"),
        ({"kind": "ftp://host"}, "kind"),
    ],
)
def test_settings_that_mean_nothing_here_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ClusterConfig.model_validate(values)


def test_dask_cuda_is_told_what_was_asked() -> None:
    asked = ClusterConfig(kind="cuda", workers=4, lanes=2, memory_limit="64GB", protocol="ucx", rmm_pool="20GB")
    assert cuda_options(asked) == {
        "n_workers": 4,
        "threads_per_worker": 4,
        "memory_limit": "64GB",
        "protocol": "ucx",
        "rmm_pool_size": "20GB",
        "rmm_allocator_external_lib_list": ["torch"],
    }


class Slow:
    """Leaves the name of its process, and takes its time."""

    def __init__(self, folder: Path) -> None:
        (folder / f"made-{os.getpid()}").touch()

    def __call__(self, item: int) -> dict[str, int]:
        time.sleep(0.1)
        return {"square": item**2}


@pytest.mark.slow
def test_workers_are_replaced_when_their_time_is_over_and_no_block_is_lost(tmp_path: Path) -> None:
    def made() -> int:
        return len(list(tmp_path.glob("made-*")))

    def items() -> Iterator[tuple[str, int]]:
        number = 0
        while made() < 4:  # both workers have been replaced, or one of them twice
            yield str(number), number
            number += 1

    with connect(ClusterConfig(workers=2, lanes=1, worker_hours=8 / 3600, memory_limit="1GB")) as (client, layout):
        assert layout == ClusterLayout(workers=2, lanes=1)
        limits = {worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        assert limits == {10**9}
        client.register_plugin(Equipment("slow", lambda: Slow(tmp_path)), name="slow")
        runner = BoundedRunner(client=client, equipment="slow", items=items(), in_flight=6)
        outcomes = list(runner.advance(10**6))
    assert made() >= 4
    assert all(outcome.result == {"square": int(outcome.name) ** 2} for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {1}
