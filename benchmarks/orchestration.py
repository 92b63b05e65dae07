"""Orchestration alone: blocks that cost nothing through Prefect, Dask and the ledger; time and driver memory per block.

python -m benchmarks.orchestration [--blocks 1000 10000 100000] [--workers 2]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from prefect import flow

from benchmarks.common import machine
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.cluster.layout import ClusterLayout
from flows.cluster.stage import Effort, Stage, StageResult, Tool, run_stage
from tiling.ledger import Ledger


def trivial_tool(index: int) -> Mapping[str, Any]:
    """What a block's inference reports, without the inference."""
    return {
        "digest": f"{index:064x}",
        "windows": 144,
        "skipped": 0,
        "disagreement": {str(bin): index for bin in range(16)},
        "read_s": 0.0123,
        "wait_s": 0.0123,
        "compute_s": 0.0123,
        "write_s": 0.0123,
    }


def make_trivial_tool() -> Any:
    return trivial_tool


@flow(name="orchestration", persist_result=False)
def orchestrate(blocks: int, workers: int, folder: Path) -> tuple[StageResult, float, int]:
    """One stage of `blocks` blocks.

    Returns:
        How it ended; the driver's seconds of CPU, which other programs disturb less than the clock (the scheduler is
        in it); by how much it grew, in bytes.
    """
    me = psutil.Process()
    with connect(ClusterConfig(workers=workers, lanes=1)) as cluster:

        def ready() -> tuple[Any, ClusterLayout]:
            return cluster

        warm = _stage("warm", 300, ready, folder)
        assert warm.done == 300
        before, began = me.memory_info().rss, time.process_time()
        result = _stage("infer", blocks, ready, folder)
        return result, time.process_time() - began, me.memory_info().rss - before


def _stage(name: str, blocks: int, cluster: Any, folder: Path) -> StageResult:
    return run_stage(
        Stage(
            name=name,
            tool=Tool(make=lambda layout: make_trivial_tool),
            items=((f"r{index // 1000:05d}c{index % 1000:05d}", index) for index in range(blocks)),
            total=blocks,
            ledger=Ledger(folder, name),
        ),
        cluster=cluster,
        effort=Effort(in_flight=3, retries=2),
    )


def measure(blocks: int, workers: int) -> None:
    """One number of blocks, in a process of its own so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        result, busy, grown = orchestrate(blocks, workers, Path(folder))
        assert result.done == blocks
        peak = psutil.Process().memory_info().rss
    print(
        f"orchestration: {blocks} blocks on {workers} workers: {1000 * result.seconds / blocks:.2f} ms a block "
        f"({1000 * busy / blocks:.2f} ms of the driver's CPU); "
        f"driver grew by {grown / 1e6:.1f} MB ({grown / blocks:.0f} B a block) to {peak / 1e6:.0f} MB; {machine()}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if len(options.blocks) == 1:
        measure(options.blocks[0], options.workers)
        return
    for blocks in options.blocks:
        alone = [sys.executable, "-m", "benchmarks.orchestration", "--blocks", str(blocks)]
        subprocess.run([*alone, "--workers", str(options.workers)], check=True)


if __name__ == "__main__":
    main()
