"""What the Prefect UI shows of a run: progress, a table of blocks, the quicklook, links."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.run.quantities import duration, volume
from storage.pages.pictures import data_uri
from storage.places.bucket import Location

# Seconds between two updates of a progress artifact: the number of API calls follows time, not blocks.
UPDATE_INTERVAL_S = 2.0


_PURPOSES = {
    "probability": "COG of uint8: probability × 254, 255 = nodata",
    "changes": "GeoParquet polygons: area, probability",
    "quicklook": "before, after and change probability",
    "report": "one page to read: swipe between the dates",
    "item": "STAC item: inputs, bundle, parameters",
}


def _synchronous(created: UUID | Coroutine[Any, Any, UUID]) -> UUID:
    # Prefect's functions serve both worlds; ours is the synchronous one
    assert isinstance(created, UUID)
    return created


class LiveProgress:
    """A progress artifact that follows a stage, at most one API call every :data:`UPDATE_INTERVAL_S`."""

    def __init__(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks") -> None:
        self._stage, self._total, self._done, self._unit = stage, total, done, unit
        self._began, self._done_before = time.monotonic(), done
        self._told = time.monotonic()
        self._artifact = _synchronous(
            create_progress_artifact(progress=self._percent, key=stage.replace(" ", "-"), description=self._description)
        )

    @property
    def _percent(self) -> float:
        return 100.0 * self._done / self._total if self._total else 100.0

    @property
    def _description(self) -> str:
        # short: a card of the UI shows some thirty letters
        elapsed = time.monotonic() - self._began
        rate = (self._done - self._done_before) / elapsed if elapsed > 0 else 0.0
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        return f"{self._done:,} of {self._total:,} {self._unit}{left}, {rate:.2f}/s"

    def advance(self, count: int = 1) -> None:
        self._done += count
        if time.monotonic() - self._told >= UPDATE_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write the present state, whenever the last one was written."""
        self._told = time.monotonic()
        update_progress_artifact(artifact_id=self._artifact, progress=self._percent, description=self._description)


def show_blocks(
    *, done: int, skipped: int, failed: Mapping[str, str], pending: int, total: int, limit: int = 200
) -> None:
    """A table of how many blocks stand where, and one row for each quarantined block (the first `limit`)."""
    rows: list[list[Any]] = [
        ["done", done, ""],
        ["of these: no valid pixel, nothing computed", skipped, ""],
        ["failed (quarantined)", len(failed), ""],
        ["pending", pending, ""],
        ["total", total, ""],
    ]
    rows += [["quarantined", name, error] for name, error in list(failed.items())[:limit]]
    if len(failed) > limit:
        rows.append(["quarantined", "…", f"{len(failed) - limit} more: see `dasnet status`"])
    table = [dict(zip(("state", "blocks", "error"), row, strict=True)) for row in rows]
    create_table_artifact(key="blocks", table=table, description="Blocks of the run")


def show_plan(lines: Sequence[tuple[str, str]]) -> None:
    """What a run will do: (what, how much)."""
    rows = ["| plan | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in lines)]
    create_markdown_artifact(key="plan", markdown="\n".join(rows), description="What this run does")


def show_dashboard(address: str | None) -> None:
    """Link to the Dask dashboard, where the cluster has one."""
    if address:
        create_link_artifact(
            key="dask-dashboard", link=address, link_text="Dask dashboard", description="Workers, live"
        )


def show_quicklook(path: Location) -> None:
    """The quicklook, inside the artifact itself: the UI may run where the run directory cannot be read."""
    show_picture("quicklook", path.read_bytes(), "Before, after and change probability")


def show_products(products: Sequence[tuple[str, Location, str]], summary: str) -> None:
    """The products, what each is for, and where they lie: (name, path, SHA-256)."""
    folders = sorted({str(path.resolve().parent) for _, path, _ in products})
    lines = [f"**{summary}**", "", *(f"In `{folder}`:" for folder in folders), ""]
    lines += ["| file | what it is | size | SHA-256 |", "| --- | --- | ---: | --- |"]
    # names, not links: no browser follows a link from a server's page to a file
    lines += [
        f"| `{path.name}` | {_PURPOSES.get(name, name)} | {volume(path.stat().st_size)} | `{digest[:8]}…` |"
        for name, path, digest in products
    ]
    create_markdown_artifact(key="products", markdown="\n".join(lines), description="Products of the run")


def show_table(key: str, header: Sequence[str], rows: Sequence[Sequence[object]], description: str) -> None:
    """A table artifact."""
    table: list[dict[str, Any]] = [dict(zip(header, map(str, row), strict=True)) for row in rows]
    create_table_artifact(key=key, table=table, description=description)


def show_picture(key: str, picture: bytes, description: str) -> None:
    """A picture, inside the artifact itself.

    Its page is Markdown: under an artifact of the kind `image` the UI writes its address, which here is all its bytes.
    """
    show_markdown(key, f"![{description}]({data_uri(picture)})", description)


def show_markdown(key: str, markdown: str, description: str) -> None:
    """A page of Markdown."""
    create_markdown_artifact(key=key, markdown=markdown, description=description)
