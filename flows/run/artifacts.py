"""What a job shows beside its progress: tables, pages, pictures and links, for whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.run.quantities import volume
from storage.places.bucket import Location
from tiling.ledger import Ledger

_SHOWN = 200
"""Most quarantined blocks that a table lists."""

_PURPOSES = {
    "probability": "COG of uint8: probability × 254, 255 = nodata",
    "changes": "GeoParquet polygons: area, probability",
    "quicklook": "before, after and change probability",
    "report": "one page to read: swipe between the dates",
    "item": "STAC item: inputs, bundle, parameters",
}


@dataclass(frozen=True)
class Table:
    """Rows below a header.

    Attributes:
        key: name of the artifact; a later one of the same name takes its place.
    """

    key: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    description: str


@dataclass(frozen=True)
class Markdown:
    """A page of Markdown; `key` as in :class:`Table`."""

    key: str
    markdown: str
    description: str


@dataclass(frozen=True)
class Picture:
    """A PNG by its bytes: an observer may run where the file cannot be read; `key` as in :class:`Table`."""

    key: str
    png: bytes
    description: str


@dataclass(frozen=True)
class Link:
    """An address with its text; `key` as in :class:`Table`."""

    key: str
    address: str
    text: str
    description: str


Artifact = Table | Markdown | Picture | Link


def blocks_table(ledger: Ledger, *, total: int) -> Table:
    """How many blocks of a stage are in which state, and one row for each of the first quarantined blocks."""
    done, failed = ledger.count("done"), list(ledger.entries("failed"))
    rows: list[list[Any]] = [
        ["done", done, ""],
        [
            "of these: no valid pixel, nothing computed",
            sum(entry.facts["windows"] == 0 for entry in ledger.entries("done")),
            "",
        ],
        ["failed (quarantined)", len(failed), ""],
        ["pending", total - done - len(failed), ""],
        ["total", total, ""],
    ]
    rows += [["quarantined", entry.block, str(entry.facts["error"])] for entry in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        rows.append(["quarantined", "…", f"{len(failed) - _SHOWN} more: see `dasnet status`"])
    return Table("blocks", ("state", "blocks", "error"), rows, "Blocks of the run")


def page_of_lines(key: str, lines: Sequence[tuple[str, str]], description: str, *, heading: str = "") -> Markdown:
    """A table of (what, how much), `heading` above its first column."""
    rows = [f"| {heading} | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in lines)]
    return Markdown(key, "\n".join(rows), description)


def plan_page(lines: Sequence[tuple[str, str]]) -> Markdown:
    """What a run will do: (what, how much)."""
    return page_of_lines("plan", lines, "What this run does", heading="plan")


def products_page(products: Sequence[tuple[str, Location, str]], summary: str) -> Markdown:
    """The products, what each is for, and where they lie: (name, path, SHA-256)."""
    folders = sorted({str(path.resolve().parent) for _, path, _ in products})
    lines = [f"**{summary}**", "", *(f"In `{folder}`:" for folder in folders), ""]
    lines += ["| file | what it is | size | SHA-256 |", "| --- | --- | ---: | --- |"]
    # names, not links: no browser follows a link from a server's page to a file
    lines += [
        f"| `{path.name}` | {_PURPOSES.get(name, name)} | {volume(path.stat().st_size)} | `{digest[:8]}…` |"
        for name, path, digest in products
    ]
    return Markdown("products", "\n".join(lines), "Products of the run")
