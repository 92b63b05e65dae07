"""A series of dates that is planned: the idea that a pair and an archive share. A pair is a series of two dates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from odc.geo.geobox import GeoBox

from flows.cluster.config import ClusterConfig
from flows.cluster.stage import Effort
from flows.inference.model import BundleModel, Model
from flows.inference.request import InferenceRequest
from storage.imagery.identity.versions import REPLACED
from storage.reference_systems import crs_name
from tiling.grid import Block, BlockGrid, WindowLattice
from tiling.ledger import Ledger
from tiling.plan import Plan
from tiling.worker import SeriesTask


def read_name(date: str, block: str) -> str:
    """Name of a date's block in the ledger of ingest."""
    return f"{date}/{block}"


def failed_by_replacement(ledger: Ledger) -> list[str]:
    """Quarantined blocks whose file was another one than that which the run was planned with, or that need such."""
    return [entry.block for entry in ledger.entries("failed") if REPLACED in str(entry.facts.get("error", ""))]


@dataclass(frozen=True, kw_only=True)
class PlannedSeries:
    """What ingest, infer and estimates ask of a job.

    Attributes:
        bundle: a bundle, or a method without training in its place.
        plan: geometry and cost.
        warnings: what the user should know before the run.
    """

    request: InferenceRequest
    bundle: Model
    grid: GeoBox
    plan: Plan
    warnings: tuple[str, ...]

    @property
    def blocks(self) -> BlockGrid:
        return self.plan.blocks

    @property
    def lattice(self) -> WindowLattice:
        return self.plan.lattice

    @property
    def cluster(self) -> ClusterConfig:
        """The request's cluster, a local one with the workers and lanes of the plan."""
        config = self.request.cluster
        if config.kind != "local":
            return config
        return config.model_copy(update={"workers": self.plan.workers, "lanes": self.plan.lanes})

    @property
    def effort(self) -> Effort:
        return Effort(in_flight=self.request.cluster.in_flight, retries=self.request.retries)

    def take_up_failed(self, ledger: Ledger) -> None:
        """Let blocks that an earlier run quarantined count as pending, where the request says so.

        Those whose file was replaced are taken up in any case: what is planned with now is what lies there now.
        """
        if self.request.retry_failed:
            ledger.forget_failed("--retry-failed")
        elif replaced := failed_by_replacement(ledger):
            ledger.forget(replaced, reason=REPLACED)

    def blocks_read(self, block: int) -> Iterable[Block]:
        """The blocks from whose pixels a block is computed: itself, and those that its windows reach."""
        return self.blocks.touching(self.lattice.read_box(self.blocks[block].box))

    def reads(self, task: SeriesTask) -> Iterable[tuple[str, Block]]:
        """(date, block) of the imagery that a task needs."""
        return ((date, block) for block in self.blocks_read(task.block) for date in task.dates)

    @property
    def grid_line(self) -> tuple[str, str]:
        """Size, pixels and CRS of the grid, a line of the plan."""
        size, pixel = f"{self.grid.width:,} × {self.grid.height:,} px", self.grid.resolution
        return "grid", f"{size} of {pixel.x:g} × {-pixel.y:g} in {crs_name(self.grid.crs)}"

    @property
    def precision_lines(self) -> list[tuple[str, str]]:
        """That integers compute, a line of the plan; none where they do not."""
        model, window = self.bundle, self.lattice.window
        on_gpu = self.request.cluster.kind == "cuda"
        if not (
            isinstance(model, BundleModel)
            and model.computes_integers(self.request.precision, window=window, on_gpu=on_gpu)
        ):
            return []
        return [("precision", "int8 on CPUs, by the bundle's quantised graph; --precision float32 is without")]

    def time_lines(self, seconds: float | None) -> list[tuple[str, str]]:
        """Expected time of infer, a line of the plan; `seconds`: by a calibration, None = there was none."""
        if seconds is not None:
            return [("time", f"about {timedelta(seconds=round(seconds))} for infer, by a short calibration")]
        if self.request.cluster.kind != "local":
            return [("time", "not known before it runs: nothing is measured on the cluster's devices")]
        return []
