"""File names inside a run directory."""

from __future__ import annotations

STATISTICS = "statistics.json"
"""How far the statistics of a method without training are."""

FIRST_PASS = "first_pass.json"
"""Which cells a first pass has chosen, and by what."""

FIRST_PASS_STATISTICS = "first_pass_statistics.json"
"""How far the statistics are that it is made by."""

FIRST_PASS_STAGE = "first-pass"
"""Its stage and ledger; the passes of its statistics have a number behind it."""

PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "report": "report.html",
    "item": "item.json",
}
