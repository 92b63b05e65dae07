"""Inputs that are easily misread, each tried as a user would: right, refused well, or wrong; and what headers cost.

    python -m benchmarks.door --cases FOLDER_OF_make.py [--only NAME …] [--keep FOLDER]
    python -m benchmarks.door --headers [--tiles 100000] [--runs 5]

The cases are made by the script `make.py`, which is not part of the project. *Refused well* is exit code 2 within 30 s,
a message of a few lines that names the file and what clashes, and no traceback. `benchmarks/door_mosaics.py` holds the
bytes of real mosaics against another checkout.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import machine
from benchmarks.door_desk import Desk, Verdict, wrong


def try_cases(maker: Path, folder: Path, names: Sequence[str]) -> Counter[str]:
    """Make the cases, try each, print a line each; how many ended how."""
    import benchmarks.door_lists  # noqa: F401  its cases are among them then
    import flows.archive.job
    import flows.detect.job
    import flows.interface  # noqa: F401  once, for all commands
    from benchmarks.commands import scheduler
    from benchmarks.door_cases import CASES

    verdicts: Counter[str] = Counter()
    chosen = names or list(CASES)
    subprocess.run([sys.executable, str(maker), str(folder / "cases"), *chosen], check=True, capture_output=True)
    with scheduler() as address:
        desk = Desk(folder=folder / "runs", cluster=address)
        desk.folder.mkdir()
        for name in chosen:
            began = time.perf_counter()
            verdict = _tried(desk, folder / "cases" / name, name)
            verdicts[verdict.kind] += 1
            took = time.perf_counter() - began
            print(f"{name}: {verdict.kind}: {verdict.words} ({took:.1f} s)", flush=True)
    return verdicts


def _tried(desk: Desk, folder: Path, name: str) -> Verdict:
    from benchmarks.door_cases import CASES

    try:
        return CASES[name](desk, folder)
    except Exception as error:  # a case that its oracle did not expect must not hide the others
        return wrong(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, metavar="FOLDER", help="where make.py is")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names of cases")
    parser.add_argument("--keep", type=Path, help="new folder for cases and runs; default: a temporary one")
    parser.add_argument("--headers", action="store_true", help="measure what headers and many tiles cost")
    parser.add_argument("--tiles", type=int, default=100_000, help="of 64 px, for --headers")
    parser.add_argument("--runs", type=int, default=5, help="of each command, for --headers")
    options = parser.parse_args()
    if not (options.cases or options.headers):
        parser.error("give --cases, --headers, or both")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.cases is not None:
            maker = options.cases / "make.py"
            if not maker.exists():
                print(f"the cases are left out: {maker} does not exist")
            else:
                verdicts = try_cases(maker.resolve(), folder.resolve(), options.only)
                failed = verdicts["wrong"] > 0
                print(f"{sum(verdicts.values())} cases: {dict(verdicts)}; {machine()}", flush=True)
        if options.headers:
            from benchmarks.door_costs import measure

            measure(folder, tiles=options.tiles, runs=options.runs)
    sys.exit(failed)


if __name__ == "__main__":
    main()
