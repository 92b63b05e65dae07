"""File names inside a run directory."""

from __future__ import annotations

STATISTICS = "statistics.json"
"""How far the statistics of a method without training are."""

PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "report": "report.html",
    "item": "item.json",
}
