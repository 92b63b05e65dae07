"""What the window and the overlap of neighbouring windows are worth: F1 of whole mosaics, and windows computed.

    python -m benchmarks.overlaps --data DATA --work WORK --bundles levir=FILE water=NAME … [--lattices 256:64 256:32 …]

The mosaics are those of :mod:`benchmarks.accuracy`, prepared by its first stage. *Cost* is how often a pixel goes
through the network: pixels of all windows that were computed by the pixels of the mosaic. It does not depend on the
machine; how it turns into seconds is told by `--dry-run`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from unittest import mock

from benchmarks import accuracy
from benchmarks.accuracy import _of_task, on_mosaics
from benchmarks.accuracy_tasks import LabelledMosaic, test_mosaics
from benchmarks.common import machine
from flows.cluster.config import ClusterConfig
from flows.evaluation.directory import EvaluationDirectory
from flows.run.directory import RunDirectory
from storage.stores.run_store import RunStore


def measure(task: str, bundle: str, lattice: tuple[int, int], data: Path, work: Path) -> str:
    """One row: F1 blended at the frozen threshold, highest F1, F1 window by window, cost."""
    window, overlap = lattice

    def with_lattice(*args: object) -> list[LabelledMosaic]:
        mosaics = test_mosaics(*args)  # type: ignore[arg-type]
        return [replace(one, options={**one.options, "window": window, "overlap": overlap}) for one in mosaics]

    name = f"{Path(bundle).stem}-{window}-{overlap}"
    with mock.patch.object(accuracy, "test_mosaics", with_lattice):
        together, *_ = on_mosaics(task, bundle, name, data, work, ClusterConfig(workers=1))
    computed = pixels = 0
    for place in (work / task / "evaluations" / name).iterdir():
        run = RunDirectory(EvaluationDirectory(place).run)
        store = RunStore(run.store)
        computed += sum(entry.facts["windows"] for entry in run.ledger("infer").entries("done")) * window**2
        pixels += store.height * store.width
    return (
        f"| {task} | {window} | {overlap} | {together.f1:.4f} | {together.highest_f1:.4f} | {together.tiles_f1:.4f} | "
        f"{together.calibration_error:.4f} | {computed / pixels:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundles", nargs="+", type=_of_task, required=True, metavar="TASK=BUNDLE")
    parser.add_argument("--lattices", nargs="+", default=["256:64", "256:32", "256:16"], metavar="WINDOW:OVERLAP")
    options = parser.parse_args()
    print("| task | window | overlap | F1 | highest | window by window | calibration error | cost |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for task, bundle in options.bundles:
        for lattice in options.lattices:
            window, _, overlap = lattice.partition(":")
            print(measure(task, bundle, (int(window), int(overlap)), options.data, options.work), flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
