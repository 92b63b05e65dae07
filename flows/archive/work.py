"""What is still to do of an archive, and why: ledgers say it before anything is done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flows.archive.directory import ArchiveDirectory
from flows.archive.job import PAIRS_AT_ONCE, ArchiveJob, DatedImage, Pair
from flows.inference.planned import read_name
from flows.run.directory import sha256_of_facts
from flows.run.quantities import volume
from storage.places.publish import free_bytes
from tiling.grid import Cell
from tiling.ledger import Entry, Ledger
from tiling.plan import RefusedPlanError
from tiling.worker import SeriesTask

PAIRS = "pairs"
"""Fact in the ledger of a failed task: names of the pairs that it was to compute."""

_BYTES_OF_A_RESULT = 3
"""Bytes that a pixel of a pair takes: one each in the store, in the COG and in the parts that it is joined from."""


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """What is still to be computed in a cell.

    Attributes:
        to_read: (date, block index) of images that are not ingested yet or have been set back, halo included.
        tasks: tasks by their names, each a block with the pairs that it lacks.
        quarantined: names of tasks that failed before and are not taken up again.
    """

    to_read: tuple[tuple[DatedImage, int], ...]
    tasks: Mapping[str, SeriesTask]
    quarantined: frozenset[str]

    @property
    def to_compute(self) -> list[SeriesTask]:
        return [task for name, task in self.tasks.items() if name not in self.quarantined]

    @property
    def embeddings(self) -> int:
        """Blocks embedded, counted by date."""
        return sum(len(task.dates) for task in self.to_compute)


def cell_work(job: ArchiveJob, cell: Cell, *, ingested: Ledger, inferred: Ledger) -> CellWork:
    """What the ledgers leave to do in a cell."""
    digests = finished_pairs(inferred)
    compared = {image.name: image for image in job.images}
    # the cell's own blocks were read before their pairs were computed, unless they have been set back since
    images = {(name, index): image for index in cell.blocks for name, image in compared.items()}
    failed_together = {} if job.request.retry_failed else _failed_together(inferred)
    tasks: dict[str, SeriesTask] = {}
    for index in cell.blocks:
        block = job.blocks[index]
        finished = digests.get(block.name, {})
        missing = {pair.name: pair for pair in job.pairs if pair.name not in finished}
        if not missing:
            continue
        halo = [other.index for other in job.blocks_read(index)]
        for image in (image for pair in missing.values() for image in pair.images):
            images |= dict.fromkeys(((image.name, other) for other in halo), image)
        for names in failed_together.get(block.name, ()):
            if names <= missing.keys():  # one task again, which a pair with a new date must not join
                tasks |= _tasks(index, block.name, [missing.pop(pair.name) for pair in job.pairs if pair.name in names])
        unreadable = {
            name
            for name, image in compared.items()
            if any(ingested.state(read_name(image.name, job.blocks[other].name)) == "failed" for other in halo)
        }
        for is_lacking in (False, True):  # pairs with a date that could not be read are tasks of their own
            group = [p for p in missing.values() if any(image.name in unreadable for image in p.images) is is_lacking]
            tasks |= _tasks(index, block.name, group)
    to_read = [
        (image, index)
        for (_, index), image in images.items()
        if ingested.state(read_name(image.name, job.blocks[index].name)) != "done"
    ]
    again = job.request.retry_failed
    return CellWork(
        to_read=tuple(to_read),
        tasks=tasks,
        quarantined=frozenset(name for name in tasks if not again and inferred.state(name) == "failed"),
    )


def _failed_together(ledger: Ledger) -> dict[str, list[set[str]]]:
    """Block → the pairs of each of its tasks that failed."""
    pairs_by_block: dict[str, list[set[str]]] = defaultdict(list)
    for entry in ledger.entries("failed"):
        if names := set(entry.facts.get(PAIRS, ())):
            pairs_by_block[entry.block.partition("/")[0]].append(names)
    return pairs_by_block


def _tasks(index: int, block: str, pairs: Sequence[Pair]) -> dict[str, SeriesTask]:
    """Tasks of one block by their names, each of at most :data:`PAIRS_AT_ONCE` pairs."""
    parts = [_task(index, pairs[first : first + PAIRS_AT_ONCE]) for first in range(0, len(pairs), PAIRS_AT_ONCE)]
    return {f"{block}/{sha256_of_facts(list(task.names))[:8]}": task for task in parts}


def _task(index: int, pairs: Sequence[Pair]) -> SeriesTask:
    images = sorted({image.name for pair in pairs for image in pair.images})
    return SeriesTask(
        block=index,
        dates=tuple(images),
        pairs=tuple((images.index(pair.earlier.name), images.index(pair.later.name), pair.name) for pair in pairs),
    )


def finished_pairs(ledger: Ledger) -> dict[str, dict[str, str]]:
    """Digests of the finished blocks of a cell: block → pair → SHA-256."""
    digests: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in ledger.entries("done"):
        digests[entry.block.partition("/")[0]] |= entry.facts["digests"]
    return digests


def set_back_pairs(ledger: Ledger, pairs: Collection[str], *, blocks: Collection[str] | None, reason: str) -> None:
    """Let blocks of some pairs count as not computed; other pairs of the same task stay computed.

    Args:
        ledger: the ledger of infer of a cell.
        blocks: names of the blocks; None = all that are finished.
    """
    entries = []
    for entry in ledger.entries("done"):
        digests = entry.facts["digests"]
        rest = {pair: digest for pair, digest in digests.items() if pair not in pairs}
        if len(rest) < len(digests) and (blocks is None or entry.block.partition("/")[0] in blocks):
            facts = {**entry.facts, "digests": rest} if rest else {"reason": reason}
            entries.append(Entry(block=entry.block, state="done" if rest else "pending", facts=facts))
    if entries:
        ledger.append(entries)


@dataclass(frozen=True, kw_only=True)
class ArchiveWork:
    """What is to be done of an archive, cell by cell.

    Attributes:
        unreadable: (name of the image, block index) that could not be read before and are not taken up again.
    """

    job: ArchiveJob
    directory: ArchiveDirectory
    cells: Mapping[str, CellWork]
    unreadable: frozenset[tuple[str, int]]

    @cached_property
    def reads(self) -> Counter[str]:
        """Blocks to be read, by image; a block in the halo of several cells is read once."""
        reads = {(image.name, index) for work in self.cells.values() for image, index in work.to_read}
        return Counter(name for name, _ in reads - self.unreadable)

    @cached_property
    def computes(self) -> Counter[str]:
        """Blocks to be computed, by pair."""
        tasks = (task for work in self.cells.values() for task in work.to_compute)
        return Counter(name for task in tasks for name in task.names)

    @cached_property
    def begun(self) -> frozenset[str]:
        """Pairs with blocks to be computed that have finished ones already."""
        return frozenset(self.computes) - self.fresh

    @cached_property
    def fresh(self) -> frozenset[str]:
        """Pairs without a finished block."""
        missing = Counter(name for work in self.cells.values() for task in work.tasks.values() for name in task.names)
        return frozenset(name for name, count in missing.items() if count == len(self.job.blocks))

    @cached_property
    def quarantined(self) -> Counter[str]:
        """Blocks that failed before and are left out, by pair."""
        return Counter(
            name
            for work in self.cells.values()
            for quarantined in work.quarantined
            for name in work.tasks[quarantined].names
        )

    @property
    def embeddings(self) -> int:
        """Blocks embedded, counted by date."""
        return sum(work.embeddings for work in self.cells.values())

    @property
    def _bytes_in(self) -> int:
        pixels = self.job.blocks.size**2
        return self.reads.total() * pixels * (len(self.job.bundle.band_names) * self.job.plan.itemsize + 1)

    @property
    def _bytes_out(self) -> int:
        return self.computes.total() * self.job.blocks.size**2

    def require_disk(self) -> None:
        """Refuse what does not fit on the disk; raises RefusedPlanError with both numbers."""
        output = self.job.request.output.resolve()
        free = free_bytes(output)
        # the numbers of bytes take blocks at the edge of the region for whole ones, hence the minimum
        size = min(self._bytes_in, self.job.plan.bytes_in) + _BYTES_OF_A_RESULT * min(
            self._bytes_out, len(self.job.pairs) * self.job.plan.pixels
        )
        if size > free:
            raise RefusedPlanError(
                f"{output} may need another {size / 1e9:.1f} GB ({self.reads.total():,} blocks of imagery, "
                f"{self.computes.total():,} of probability), but only {free / 1e9:.1f} GB are free there: choose "
                "another --output, a smaller region, fewer dates or a coarser resolution"
            )

    def describe(self) -> list[tuple[str, str]]:
        """The plan as (what, how much) lines for a person."""
        job = self.job
        return [
            ("archive", f"{len(job.images)} dates, {job.images[0].day} to {job.images[-1].day}"),
            *(("left out", f"{day}: {why}") for day, why in job.left_out.items()),
            *(("not read", f"{day}: {why}; tried again the next time") for day, why in job.broken.items()),
            *(("no more", f"{day}: read before, not among the dates now; it is kept") for day in self._gone()),
            ("pairs", f"{len(job.pairs)} by the rule {job.request.pairing}"),
            job.grid_line,
            (
                "resampled",
                ", ".join(str(image.day) for image in job.images if image.name in job.resampled)
                or "nothing, the grids agree",
            ),
            (
                "cells",
                f"{len(job.cells):,} of at most {max(cell.box.width for cell in job.cells):,} px, "
                f"{_blocks(len(job.blocks))} in all",
            ),
            ("version", f"{job.version}: {self._why_version()}"),
            *(("read", f"{image.day}: {self._why_read(image)}") for image in job.images),
            *(("compare", f"{pair.earlier.day} → {pair.later.day}: {self._why_computed(pair)}") for pair in job.pairs),
            (
                "reads",
                f"{_blocks(self.reads.total())} of imagery, at most {volume(self._bytes_in)} uncompressed",
            ),
            (
                "computes",
                f"{_blocks(self.computes.total())} of probability, at most {volume(self._bytes_out)} "
                f"uncompressed; {_blocks(self.embeddings)} embedded, of all dates together",
            ),
            *job.precision_lines,
            *job.time_lines(self.expected_seconds),
        ]

    @property
    def expected_seconds(self) -> float | None:
        """Expected time of the infer stages of all cells; None without a calibration."""
        plan = self.job.plan
        if plan.seconds_per_window is None:
            return None
        windows = plan.windows_computed / len(plan.blocks)
        return windows * self.embeddings * plan.seconds_per_window / (plan.workers * plan.lanes)

    def _gone(self) -> list[str]:
        """Days that an earlier run has read and that the archive, or the request, has no more."""
        return sorted({name[:10] for name in self.directory.image_names()} - {str(i.day) for i in self.job.images})

    def _why_version(self) -> str:
        if self.directory.version.describe() is not None:
            return "there already"
        others = sorted(path.name for path in self.directory.version.path.parent.glob("*"))
        return f"new, of another bundle or other parameters than {', '.join(others)}" if others else "new"

    def _why_read(self, image: DatedImage) -> str:
        blocks = self.reads[image.name]
        if not blocks:
            return "there already"
        others = [name for name in self.directory.image_names(f"{image.day}-") if name != image.name]
        if self.directory.image_path(image).exists():
            why = f"of {len(self.job.blocks):,}, the others were read before"
        elif others:
            why = "its files changed, or how they are read (bands, resampling)"
        else:
            why = "new"
        return f"{_blocks(blocks)}, {why}"

    def _why_computed(self, pair: Pair) -> str:
        blocks, quarantined = self.computes[pair.name], self.quarantined[pair.name]
        left_out = f"{_blocks(quarantined)} quarantined, left out without --retry-failed" if quarantined else ""
        if not blocks:
            return left_out or "there already"
        if self.directory.version.describe() is None:
            why = "the version is new"
        elif self.directory.pair_path(pair).exists():
            why = f"of {len(self.job.blocks):,}, the others are finished"
        elif self.directory.pair_names(f"{pair.earlier.day}_{pair.later.day}-"):
            why = "an image of it changed"
        else:
            why = "a new pair"
        return "; ".join(filter(None, (f"{_blocks(blocks)}, {why}", left_out)))


def work_of(job: ArchiveJob, directory: ArchiveDirectory) -> ArchiveWork:
    """What the ledgers leave to do; reads them, changes nothing."""
    ingested = directory.root.ledger("ingest")
    cells = {
        cell.name: cell_work(job, cell, ingested=ingested, inferred=directory.cell(cell).ledger("infer"))
        for cell in job.cells
    }
    failed = set() if job.request.retry_failed else {entry.block for entry in ingested.entries("failed")}
    return ArchiveWork(
        job=job,
        directory=directory,
        cells=cells,
        unreadable=frozenset(
            (image.name, index)
            for work in cells.values()
            for image, index in work.to_read
            if read_name(image.name, job.blocks[index].name) in failed
        ),
    )


def _blocks(count: int) -> str:
    return f"{count:,} block" + ("" if count == 1 else "s")
