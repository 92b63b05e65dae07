"""Clusters: what a configuration means here, and a scheduler that somebody else started."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import LocalCluster

from flows import cluster
from flows.cluster import ClusterError, ClusterLayout, connect, local_layout, require_cluster
from flows.config import ClusterConfig
from flows.detect import detect_changes
from storage.synthesize import SyntheticPair
from tests.flows.conftest import request_for


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
    monkeypatch.setattr(cluster, "cores", lambda: cores)
    assert local_layout(config) == ClusterLayout(workers=workers, lanes=lanes)


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
    detect_changes(request_for(pair, tmp_path / "run", cluster=config))
    found, expected = (
        xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()
        for directory in (tmp_path / "run", run)
    )
    assert np.array_equal(found, expected)
    with connect(config) as (client, layout):
        assert layout == ClusterLayout(workers=1, lanes=1)
        assert client.submit(sum, [1, 2]).result() == 3


def test_nobody_at_the_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
    with pytest.raises(ClusterError, match=f"no Dask scheduler answers at tcp://127.0.0.1:{port}"):
        require_cluster(ClusterConfig(kind=f"tcp://127.0.0.1:{port}"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ClusterError, match="--cluster cuda"):
        require_cluster(ClusterConfig(kind="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_one_worker_a_gpu_gives_what_the_cpu_gives(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    config = ClusterConfig(kind="cuda")
    detect_changes(request_for(pair, tmp_path / "run", cluster=config))
    found, expected = (
        xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()
        for directory in (tmp_path / "run", run)
    )
    assert np.array_equal(found == 255, expected == 255)
    assert np.mean(np.abs(found.astype(int) - expected) <= 8) > 0.99, "bfloat16 rounds otherwise on another device"
