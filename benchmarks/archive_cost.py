"""What T dates cost, over what two cost, on the infer stage of `dasnet reprocess`.

    python -m benchmarks.archive_cost [--side 1024] [--dates 2,4,8] [--rounds 3]

A date is embedded once for all its pairs, so T dates should cost T / 2 times what two cost, not T − 1 times. Each round
runs every T anew, from 8 dates of one synthetic scene; the fastest round of each T counts, because a busy machine only
ever adds time. With the time stand the blocks that were embedded, which do not depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.common import dated_copies, machine


def main() -> None:
    from flows.archive.directory import ArchiveDirectory
    from flows.archive.job import resolve_archive
    from flows.archive.request import ReprocessRequest
    from flows.archive.run import run_reprocessing
    from flows.archive.work import work_of
    from flows.run.directory import RunDirectory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="of the region, in pixels")
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--dates", default="2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lengths = [int(count) for count in options.dates.split(",")]
    best: dict[int, float] = {}
    embedded: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        dates = dated_copies(place, count=max(lengths), side=options.side)
        for _ in range(options.rounds):
            for count in lengths:
                output = place / f"archive-{count}"
                request = ReprocessRequest.model_validate(
                    {
                        "archive": [str(path) for path in dates[:count]],
                        "output": output,
                        "block": options.block,
                        "cluster": {"workers": 1, "lanes": 1},
                    }
                )
                job = resolve_archive(request)
                embedded[count] = work_of(job, ArchiveDirectory(job)).embeddings
                run_reprocessing(request)
                described = RunDirectory(output / "versions" / job.version).describe() or {}
                best[count] = min(best.get(count, float("inf")), described["seconds"]["infer"])
                shutil.rmtree(output)
    first = lengths[0]
    measured = ", ".join(
        f"T = {count}: {best[count] / best[first]:.3f} (at most {1.1 * count / 2:.1f}; {best[count]:.2f} s, "
        f"{embedded[count]} blocks embedded)"
        for count in lengths
    )
    print(f"cost of T dates over that of {first}, infer, fastest of {options.rounds} rounds: {measured}; {machine()}")


if __name__ == "__main__":
    main()
