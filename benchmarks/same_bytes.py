"""One SHA-256 for 1 and 2 workers, a clean run and one whose worker and then whose driver were killed.

python -m benchmarks.same_bytes [--side 3072] [--block 512]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import machine, probability_sha256, scene
from tiling.ledger import Ledger


def command(before: Path, after: Path, output: Path, block: int, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "flows", "detect", str(before), str(after), "--output", str(output)),
        *("--block", str(block), "--workers", str(workers)),
    ]


def run(before: Path, after: Path, output: Path, block: int, workers: int) -> str:
    subprocess.run(command(before, after, output, block, workers), check=True, capture_output=True)
    return probability_sha256(output)


def killed(before: Path, after: Path, output: Path, block: int) -> tuple[str, int, int]:
    """Kill a worker when a quarter of the blocks is done and the driver at half; then resume.

    Returns the digest, the blocks that the first process finished and those that the second one computed.
    """
    with subprocess.Popen(
        command(before, after, output, block, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        total = None
        worker_killed = False
        while driver.poll() is None:
            time.sleep(0.1)
            done = Ledger(output / "ledger", "infer").count("done")
            ingested = Ledger(output / "ledger", "ingest").count("done")
            total = ingested // 2 or None
            if done and total and not worker_killed and done >= total // 4:
                workers = [
                    p
                    for p in psutil.Process(driver.pid).children(recursive=True)
                    if "spawn_main" in " ".join(p.cmdline())
                ]
                os.kill(workers[0].pid, signal.SIGKILL)
                worker_killed = True
            if worker_killed and total and done >= total // 2:
                driver.kill()
                break
    before_resume = Ledger(output / "ledger", "infer").count("done")
    digest = run(before, after, output, block, 2)
    return digest, before_resume, Ledger(output / "ledger", "infer").count("done") - before_resume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--block", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        before, after = scene(place, height=options.side, width=options.side)
        one = run(before, after, place / "one", options.block, 1)
        two = run(before, after, place / "two", options.block, 2)
        resumed, kept, computed = killed(before, after, place / "killed", options.block)
        ledger = place / "killed" / "ledger" / "infer.jsonl"
        lines = ledger.read_bytes()
        run(before, after, place / "killed", options.block, 2)
        again = len(ledger.read_bytes().splitlines()) - len(lines.splitlines())
    same = one == two == resumed
    print(
        f"same bytes: {'yes' if same else 'NO'} (1 worker {one[:12]}, 2 workers {two[:12]}, killed and resumed "
        f"{resumed[:12]}); {kept} blocks kept over the kill, {computed} computed after it, {again} on a re-run; "
        f"{machine()}"
    )
    sys.exit(not same or again)


if __name__ == "__main__":
    main()
