"""Where a quantisation keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


def draft_of(output: Path) -> Path:
    """Where the bundle lies until its scores are known, beside `output`."""
    return output.with_name(f".{output.stem}.quantised.safetensors")


class QuantisationDirectory(RunDirectory[Path]):
    """``NAME.quantisation/report.html``; the bundle itself lies beside it, ``NAME.safetensors``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.report = path / "report.html"
