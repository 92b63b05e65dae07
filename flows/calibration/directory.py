"""Where a calibration keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


def draft_of(output: Path) -> Path:
    """Where the bundle lies that a calibration of embeddings begins with, beside `output` until that is written."""
    return output.with_name(f".{output.stem}.uncalibrated.safetensors")


class CalibrationDirectory(RunDirectory[Path]):
    """``NAME.calibration/report.html``; the bundle itself lies beside it, ``NAME.safetensors``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.report = path / "report.html"
