"""File names inside a run directory."""

from __future__ import annotations

STATISTICS = "statistics.json"
"""Of a method without training: what its passes have found."""

PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "report": "report.html",
    "item": "item.json",
}
