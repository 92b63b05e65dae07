"""What one more date costs an archive of eight, in blocks, over what the whole archive of nine costs.

    python -m benchmarks.archive_increment [--side 1024]

Counted from the ledgers of two archives: one that grew from eight dates to nine, and one of nine from the start. Their
probabilities are compared too: they are the same bytes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.common import dated_copies, machine


def counted(output: Path) -> tuple[int, int, dict[str, str]]:
    """Blocks of probability computed, blocks of imagery read, and digest by block and pair; over all cells."""
    from flows.archive.work import finished_pairs
    from tiling.ledger import Ledger

    digests = {
        f"{block}/{pair}": digest
        for ledger in output.glob("versions/*/cells/*/ledger")
        for block, pairs in finished_pairs(Ledger(ledger, "infer")).items()
        for pair, digest in pairs.items()
    }
    return len(digests), Ledger(output / "ledger", "ingest").count("done"), digests


def main() -> None:
    from flows.archive.request import ReprocessRequest
    from flows.archive.run import run_reprocessing

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="of the region, in pixels")
    parser.add_argument("--block", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        dates = dated_copies(place, count=9, side=options.side)

        def run(count: int, name: str) -> tuple[int, int, dict[str, str]]:
            run_reprocessing(
                ReprocessRequest.model_validate(
                    {
                        "archive": [str(path) for path in dates[:count]],
                        "output": place / name,
                        "block": options.block,
                        "cluster": {"workers": 1, "lanes": 1},
                    }
                )
            )
            return counted(place / name)

        before = run(8, "growing")
        after = run(9, "growing")
        whole = run(9, "whole")
    assert after == whole, "an archive that grew is not the archive computed at once"
    computed, read = after[0] - before[0], after[1] - before[1]
    print(
        f"one date added to an archive of 8: {computed} of {whole[0]} blocks of probability computed "
        f"({computed / whole[0]:.3f} of a full run), {read} of {whole[1]} blocks of imagery read "
        f"({read / whole[1]:.3f}); all {whole[0]} blocks have the bytes of the full run; {machine()}"
    )


if __name__ == "__main__":
    main()
