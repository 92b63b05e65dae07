"""The stage between ingest and infer that chooses what is worth the network.

A cheap statistic of every cell of a fixed lattice, by the workers; then one rule over all cells, by the driver. So the
choice depends neither on blocks nor on who looked when, and a run that goes on has the choice that it began with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines.coarse import CELL
from dasnet.baselines.detector import Detector
from dasnet.baselines.embeddings import EmbeddingDetector, EmbeddingDistance
from flows.cluster.stage import ConnectCluster, Stage, Tool, run_stage
from flows.detect.directory import FIRST_PASS, FIRST_PASS_STAGE, FIRST_PASS_STATISTICS
from flows.detect.first_pass_plan import FirstPass
from flows.detect.first_pass_rule import FirstPassRule
from flows.detect.job import Job
from flows.detect.statistics import Passes, make_passes
from flows.detect.tools import CoarseMosaics, CoarseStoredPair, PairSource, make_cells_tool
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer
from storage.errors import InputError
from storage.places.bucket import Location
from storage.places.publish import write_json_atomically
from storage.stores.run_store import RunStore
from tiling.chosen import ChosenCells


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a first pass has chosen.

    Attributes:
        cells: those that the network looks at; what it computes so is more than they are.
        level: of the statistic, from which on a cell is chosen; None = no cell could be judged.
        judged, unjudged: cells with and without a pixel that is valid at both dates of what the first pass looked at.
        rule: for a person.
    """

    cells: ChosenCells
    level: float | None
    judged: int
    unjudged: int
    rule: str

    @property
    def chosen(self) -> int:
        """Cells that are chosen."""
        return int(self.cells.cells.sum())

    @property
    def facts(self) -> dict[str, Any]:
        """What products say of it; JSON."""
        return {
            "rule": self.rule,
            "level": self.level,
            "cell": self.cells.lattice.size,
            "cells": len(self.cells.lattice),
            "cells_judged": self.judged,
            "cells_chosen": self.chosen,
        }

    @property
    def words(self) -> str:
        """For a person."""
        level = "" if self.level is None else f", from {self.level:.4g} on"
        return f"{self.chosen:,} of {len(self.cells.lattice):,} cells of {CELL} px are chosen: {self.rule}{level}"


def choose_cells(job: Job, plan: FirstPass, directory: RunDirectory[Location], cluster: ConnectCluster) -> Choice:
    """Choose what the network computes, or read what an earlier process has chosen.

    Raises:
        DegenerateStatisticsError: the statistics of the pair say nothing.
        FailedBlocksError: sheets that could not be looked at.
        InputError: ``first_pass.json`` is damaged.
    """
    if (former := read_choice(directory)) is not None:
        return former
    source: PairSource
    if plan.readers:
        source = CoarseMosaics(before=plan.readers[0], after=plan.readers[1])
    else:
        source = CoarseStoredPair(store=RunStore(directory.store))
    detector = _detector(job, plan, source, directory, cluster)
    sheets, ledger = plan.sheets, directory.ledger(FIRST_PASS_STAGE)
    job.take_up_failed(ledger)
    result = run_stage(
        Stage(
            name=FIRST_PASS_STAGE,
            tool=Tool(make=lambda layout: partial(make_cells_tool, source, sheets, detector)),
            items=((sheet.name, sheet.index) for sheet in sheets),
            total=len(sheets),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=job.effort,
        on_ready=partial(directory.require_execution, of="first_pass_execution"),
    )
    directory.add_seconds(FIRST_PASS_STAGE, result.seconds)
    result.require_all(directory.path)
    choice = choice_of(plan, statistics_of(plan, directory))
    write_json_atomically(
        directory.at(FIRST_PASS), {**choice.facts, "unjudged": choice.unjudged, "chosen": choice.cells.to_dict()}
    )
    directory.update(first_pass=choice.facts)
    current_observer().end(choice.words)
    if not choice.chosen:
        current_observer().warn(f"the network will look at nothing: {choice.words}")
    return choice


def statistics_of(plan: FirstPass, directory: RunDirectory[Location]) -> NDArray[np.float64]:
    """(rows, columns) statistics of all cells, once all sheets were looked at; NaN = nothing to judge by."""
    statistics = np.full((plan.cells.rows, plan.cells.cols), np.nan)
    ledger = directory.ledger(FIRST_PASS_STAGE)
    for sheet in plan.sheets:
        rows = ledger.entry(sheet.name).facts["cells"]
        y, x = sheet.box.y0 // CELL, sheet.box.x0 // CELL
        # None is NaN as a float
        statistics[y : y + len(rows), x : x + len(rows[0])] = np.array(rows, dtype=np.float64)
    return statistics


def choice_of(plan: FirstPass, statistics: NDArray[np.float64]) -> Choice:
    """The cells that a rule chooses.

    Args:
        statistics: (rows, columns) of the cells, NaN = nothing to judge by. Such a cell is computed where the first
            pass looked at other mosaics than the pair: nothing is known of it. Of the pair it has no valid pixel.
    """
    judged = ~np.isnan(statistics)
    level = level_of(plan.rule, statistics[judged])
    chosen = np.zeros(statistics.shape, dtype=bool)
    if level is not None:
        chosen[judged] = statistics[judged] >= level
    if plan.mosaics:
        chosen |= ~judged
    return Choice(
        cells=ChosenCells.of(plan.cells, chosen),
        level=level,
        judged=int(judged.sum()),
        unjudged=int((~judged).sum()),
        rule=plan.rule.words,
    )


def level_of(rule: FirstPassRule, statistics: NDArray[np.float64]) -> float | None:
    """The statistic from which on a cell is computed: the rule's level, or that of the last cell of its share.

    Cells that differ alike are computed together, so that their order decides nothing. None = no cell was judged.
    """
    if rule.level is not None or not statistics.size:
        return rule.level
    assert rule.share is not None
    count = min(max(int(np.ceil(rule.share * statistics.size - 1e-9)), 1), statistics.size)
    return float(np.partition(statistics, statistics.size - count)[statistics.size - count])


def read_choice(directory: RunDirectory[Location]) -> Choice | None:
    """What the first pass of a run has chosen; None = nothing yet. Raises InputError where the file is damaged."""
    path = directory.at(FIRST_PASS)
    if not path.exists():
        return None
    try:
        stored: Mapping[str, Any] = json.loads(path.read_text())
        return Choice(
            cells=ChosenCells.from_dict(stored["chosen"]),
            level=stored["level"],
            judged=int(stored["cells_judged"]),
            unjudged=int(stored["unjudged"]),
            rule=str(stored["rule"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): delete it, the choice is then made anew") from error


def _detector(
    job: Job, plan: FirstPass, source: PairSource, directory: RunDirectory[Location], cluster: ConnectCluster
) -> Detector:
    """The statistic of a cell's pixels; embeddings need no statistics of all pixels."""
    if isinstance(plan.method, EmbeddingDistance):
        return EmbeddingDetector(method=plan.method, threshold=1.0)
    passes = Passes(
        method=plan.method,
        names=plan.names,
        source=source,
        sheets=plan.sheets,
        identity=plan.identity,
        file=FIRST_PASS_STATISTICS,
        prefix=FIRST_PASS_STAGE,
    )
    return make_passes(job, passes, directory, cluster)
