"""The stage in which workers make what the products of pairs need, plate by plate; and what the driver reads of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from flows.cluster.layout import ClusterLayout
from flows.cluster.stage import ConnectCluster, Effort, MakeTool, Stage, Tool, run_stage
from flows.inference.plate_tool import LOOK, OUTLINES, TILES, PlateTask, PlateTool, part_path
from flows.inference.verify import BlockVerifier, StoredBlock
from flows.run.observer import current_observer
from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.products.plates import PLATE, Plate, Plates
from storage.products.reader import SeriesReader
from tiling.ledger import Ledger

if TYPE_CHECKING:
    from storage.pages.quicklook import LookPart
    from storage.products.geotiff.tiles import StoredPart
    from storage.products.outlines.parts import OutlinePart
    from storage.products.plate_sums import CogResult

STAGE = "plates"
_VERSION = 1
"""Of what a plate leaves: parts of another version are made anew."""


@dataclass(kw_only=True)
class PairPlates:
    """One pair, or a part of it: what is read, and the parts of its plates.

    Attributes:
        name: of the pair; empty where there is one alone.
        place: where the parts are kept until the products stand.
        verifier: knows the blocks and their digests.
    """

    name: str
    reader: SeriesReader
    place: Location
    verifier: BlockVerifier
    size: int = PLATE

    @cached_property
    def plates(self) -> Plates:
        return Plates(height=self.reader.height, width=self.reader.width, size=self.size)

    def entry_name(self, plate: Plate) -> str:
        """What the ledger calls a plate."""
        return f"{self.name}/{plate.name}" if self.name else plate.name

    def task(self, plate: Plate, parameters: Mapping[str, Any]) -> PlateTask:
        """What a worker is told of a plate; `parameters`: what its parts depend on beside the pixels."""
        around = [slice(span.start - 1, span.stop + 1) for span in (plate.rows, plate.cols)]
        blocks = self.verifier.stored(rows=around[0], cols=around[1])
        made_of = [_VERSION, self.size, dict(parameters), [(block.name, block.sha256) for block in blocks]]
        return PlateTask(
            reader=self.reader,
            place=self.place,
            plate=plate.number,
            size=self.size,
            key=sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32],
            blocks=tuple(block for block in blocks if _begins_in(block, plate)),
        )

    def has_parts(self, plate: Plate) -> bool:
        """Whether all parts of a plate are stored."""
        return all(part_path(self.place, plate, kind).exists() for kind in (TILES, OUTLINES, LOOK))

    def tiles(self, number: int) -> StoredPart:
        """A plate's tiles of the COG."""
        from storage.products.geotiff.tiles import StoredPart

        return StoredPart(part_path(self.place, self.plates[number], TILES))

    def outlines(self) -> Iterator[tuple[Plate, OutlinePart]]:
        """Outlines of all plates, row by row."""
        from storage.products.outlines.parts import OutlinePart

        for plate in self.plates:
            path = part_path(self.place, plate, OUTLINES)
            yield plate, OutlinePart.from_bytes(_content(path), name=str(path))

    def looks(self) -> Iterator[tuple[Plate, LookPart]]:
        """Looks of all plates, row by row."""
        from storage.pages.quicklook import LookPart

        for plate in self.plates:
            path = part_path(self.place, plate, LOOK)
            try:
                yield plate, LookPart.from_bytes(_content(path))
            except ValueError as error:
                raise IntegrityError(f"{path}: {error}") from error

    def remove_parts(self) -> None:
        """Delete what the products no longer need."""
        if isinstance(self.place, ObjectPath):
            for path in [*(path for path, _ in self.place.walk()), self.place]:  # some servers keep an empty prefix
                path.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.place, ignore_errors=True)


def _begins_in(block: StoredBlock, plate: Plate) -> bool:
    """Each block is compared by the plate that has its first pixel."""
    return (
        plate.rows.start <= block.rows.start < plate.rows.stop
        and plate.cols.start <= block.cols.start < plate.cols.stop
    )


def _content(path: Location) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing: it was made for a product of this run, and was lost") from None


class PlateMakers:
    """The workers of a run as makers of plates; their tool is brought to them once, whatever the number of cells."""

    def __init__(
        self,
        *,
        cluster: ConnectCluster,
        effort: Effort,
        threshold: float,
        min_area_m2: float,
        until: ExitStack | None = None,
    ) -> None:
        """`until`: when it closes, the workers give the tool back; None = when a stage ends."""
        self.cluster, self.effort = cluster, effort
        self.threshold, self.min_area_m2 = threshold, min_area_m2
        self.tool = Tool(make=self._make, until=until)

    def _make(self, layout: ClusterLayout) -> MakeTool:
        return partial(PlateTool, threshold=self.threshold, min_area_m2=self.min_area_m2, lanes=layout.lanes)


@dataclass(frozen=True, kw_only=True)
class PlateStage:
    """Makes the parts of all plates of some pairs; what is made already, of the same pixels, stays.

    Attributes:
        directory: where the run is kept, for messages.
    """

    ledger: Ledger
    directory: Location
    makers: PlateMakers

    def make(self, pairs: Sequence[PairPlates]) -> None:
        """Make what is missing.

        Raises:
            IntegrityError: storage has lost or changed blocks, which are set back, or imagery; the message says which.
            FailedBlocksError: plates could not be made.
        """
        parameters = {"threshold": self.makers.threshold, "min_area": self.makers.min_area_m2}
        tasks = {
            pair.entry_name(plate): (pair, plate, pair.task(plate, parameters))
            for pair in pairs
            for plate in pair.plates
        }
        self._set_back_stale(tasks)
        settled = self.ledger.count("done") - sum(self.ledger.state(name) == "done" for name in tasks)
        result = run_stage(
            Stage(
                name=STAGE,
                tool=self.makers.tool,
                items=((name, task) for name, (_, _, task) in tasks.items()),
                total=settled + len(tasks),
                ledger=self.ledger,
            ),
            cluster=self.makers.cluster,
            effort=self.makers.effort,
        )
        pixels = sum(pair.reader.height * pair.reader.width for pair in pairs)
        current_observer().end(result.summary(pixels=pixels, share=1.0))
        self._require_sound(tasks)
        result.require_all(self.directory, again="again")

    def set_back(self, pair: PairPlates) -> None:
        """Let a pair's plates be made anew by the next run."""
        names = [pair.entry_name(plate) for plate in pair.plates]
        self.ledger.forget((name for name in names if self.ledger.state(name) == "done"), reason="a part is damaged")

    def sums(self, pair: PairPlates) -> CogResult:
        """Sums over the plates of a pair that is made."""
        from storage.products.plate_sums import PlateSums, add_up

        def of(plate: Plate) -> PlateSums:
            facts = self.ledger.entry(pair.entry_name(plate)).facts
            counts = {int(value): count for value, count in facts["histogram"].items()}
            return PlateSums(
                pixels_sha256=facts["sha256"], histogram=tuple(counts.get(value, 0) for value in range(256))
            )

        return add_up(of(plate) for plate in pair.plates)

    def _set_back_stale(self, tasks: Mapping[str, tuple[PairPlates, Plate, PlateTask]]) -> None:
        self.ledger.forget_failed("the products are made again")
        stale = [
            name
            for name, (pair, plate, task) in tasks.items()
            if self.ledger.state(name) == "done"
            and (self.ledger.entry(name).facts.get("key") != task.key or not pair.has_parts(plate))
        ]
        if stale:
            self.ledger.forget(stale, reason="made of other pixels, or lost")

    def _require_sound(self, tasks: Mapping[str, tuple[PairPlates, Plate, PlateTask]]) -> None:
        """Raise what workers found wrong; the plates are set back, and so are wrong blocks."""
        unsound = {
            name: facts
            for name in tasks
            if self.ledger.state(name) == "done" and "sha256" not in (facts := self.ledger.entry(name).facts)
        }
        if not unsound:
            return
        self.ledger.forget(unsound, reason="what it is made of was lost or changed")
        verifiers = {id(tasks[name][0]): tasks[name][0] for name in unsound}
        for name, facts in unsound.items():
            tasks[name][0].verifier.found_wrong(facts.get("wrong", ()))
        for pair in verifiers.values():
            pair.verifier.conclude()
        lost = [str(facts[kind]) for facts in unsound.values() for kind in ("lost", "unread") if kind in facts]
        raise IntegrityError("\n".join(lost[:3]))
