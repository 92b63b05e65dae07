"""Faults, scripted: a full disk, a second process, a server that is not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.detect.job import resolve
from flows.detect.run import run_detection
from flows.inference.predictor import predictor_factory
from flows.run.directory import RunDirectory
from storage.errors import InputError
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import Dasnet, request_for
from tiling.ledger import Ledger


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(mounted)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def _fill_the_disk_then(hog: Path, load: Callable[[], Any]) -> Any:
    """Runs on a worker before its first block: somebody else takes all the space."""
    if not hog.exists():
        with hog.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return load()


def test_a_disk_that_fills_up_costs_nothing_that_was_finished(run: Path, pair: SyntheticPair, small_disk: Path) -> None:
    output, hog = small_disk / "run", small_disk / "hog"
    request = request_for(pair, output, block=256, retries=0)

    make_predictor = partial(_fill_the_disk_then, hog, predictor_factory(resolve(request)))
    with pytest.raises((OSError, RuntimeError)) as ended:
        run_detection(request, make_predictor)
    assert "No space left on device" in str(ended.value)
    assert Ledger(output / "ledger", "ingest").count("done") == 24
    assert not (output / "change_probability.tif").exists()
    assert not [path for path in output.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    hog.unlink()
    run_detection(request.model_copy(update={"retry_failed": True}))
    finished = xr.open_zarr(output / "run.zarr", mask_and_scale=False)["change_probability"]
    expected = xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"]
    assert np.array_equal(finished, expected)


def test_a_disk_too_small_is_refused_by_the_plan(pair: SyntheticPair, small_disk: Path, dasnet_process: Dasnet) -> None:
    (small_disk / "hog").write_bytes(bytes(22_000_000))
    ended = dasnet_process("detect", pair.before, pair.after, "--output", small_disk / "run")
    assert ended.code == 2, ended.err
    assert "GB are free there" in ended.err
    assert not (small_disk / "run").exists()


def test_a_directory_that_cannot_be_written_is_refused(
    pair: SyntheticPair, small_disk: Path, dasnet_process: Dasnet
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = dasnet_process("detect", pair.before, pair.after, "--output", small_disk / "run")
    assert ended.code == 2, ended.err
    assert str(small_disk / "run") in ended.err
    assert "Traceback" not in ended.err


def test_two_processes_never_work_in_one_directory(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    with first.locked(), pytest.raises(InputError, match=f"process {os.getpid()} since .* is at work"), second.locked():
        pass
    with second.locked():
        pass


def test_a_prefect_server_that_does_not_answer_is_refused(
    pair: SyntheticPair, tmp_path: Path, dasnet_process: Dasnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    ended = dasnet_process("detect", pair.before, pair.after, "--output", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert "http://127.0.0.1:9/api" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_at_once_without_a_traceback_and_keeps_what_is_finished(
    run: Path, pair: SyntheticPair, tmp_path: Path, dasnet_process: Dasnet
) -> None:
    """A terminal sends Ctrl-C to the whole process group: server and workers must not die before the command."""
    output = tmp_path / "run"
    arguments = ["detect", pair.before, pair.after, "--output", output, "--block", 128, "--workers", 2]
    command = [sys.executable, "-m", "flows", *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        # what a shell starts in the background ignores Ctrl-C, and so would all that it starts
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as job:
        ledger = output / "ledger" / "infer.jsonl"
        deadline = time.monotonic() + 120
        while not (ledger.exists() and ledger.stat().st_size):
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 130, said
    assert "interrupted: finished blocks are kept" in said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    kept = Ledger(output / "ledger", "infer").count("done")
    assert 0 < kept < 48
    assert dasnet_process(*arguments).code == 0
    assert len(ledger.read_bytes().splitlines()) == 48
