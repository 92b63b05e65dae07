"""A real Prefect server and a small synthetic pair, once for all flow tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.config import ClusterConfig, DetectRequest
from flows.detect import detect_changes
from storage.synthesize import SyntheticPair, synthesize


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    """700 × 900 px: four blocks of 512 px, two of them narrow."""
    return synthesize(tmp_path_factory.mktemp("scene"), height=700, width=900, seed=5)


@pytest.fixture(scope="session")
def prefect_ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running Prefect server; flows called in this process use it."""
    from flows.prefect_server import embedded_server, flush_logs

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
def run(pair: SyntheticPair, prefect_ui: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a clean run over the pair."""
    output = tmp_path_factory.mktemp("runs") / "clean"
    detect_changes(request_for(pair, output))
    return output


@dataclass(frozen=True)
class Finished:
    """A `dasnet` command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def dasnet() -> Callable[..., Finished]:
    """Run `dasnet` as a user does, in a process of its own."""

    def run(*arguments: object, timeout: float = 240) -> Finished:
        ended = subprocess.run(
            [sys.executable, "-m", "flows", *map(str, arguments)], capture_output=True, text=True, timeout=timeout
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    return run
