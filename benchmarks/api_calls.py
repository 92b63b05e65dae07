"""Prefect API calls of a run per thousand blocks, counted in the server's own access log.

python -m benchmarks.api_calls [--sides 1024 2048]

Blocks of 64 px and a predictor that returns a constant: what is counted does not depend on what a block costs, except
that progress is told by the clock (every two seconds), which a long run pays too.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, scene
from benchmarks.data_path import data_path
from flows.detect.request import DetectRequest
from flows.service.embedded import embedded_server, flush_logs

_REQUEST = re.compile(rb'"(?:GET|POST|PUT|PATCH|DELETE) /api/')


def measure(side: int, folder: Path) -> str:
    """One run of (side / 64)² blocks."""
    before, after = scene(folder, height=side, width=side)
    log = folder / f"server-{side}.log"
    with embedded_server(log, log_level="INFO"):
        asked_before = len(_REQUEST.findall(log.read_bytes()))
        began = time.perf_counter()
        request = {
            "before": str(before),
            "after": str(after),
            "output": folder / f"run-{side}",
            "block": 64,
            "window": 64,
        }
        data_path(DetectRequest.model_validate(request))
        took = time.perf_counter() - began
        flush_logs()
        calls = len(_REQUEST.findall(log.read_bytes())) - asked_before
    blocks = (side // 64) ** 2
    return f"{blocks} blocks in {took:.0f} s: {calls} calls, {1000 * calls / blocks:.0f} per thousand blocks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048], help="of the scene in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [measure(side, Path(folder)) for side in options.sides]
    print(f"prefect api: {'; '.join(lines)}; {machine()}")


if __name__ == "__main__":
    main()
