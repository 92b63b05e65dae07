"""Where a calibration keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


class CalibrationDirectory(RunDirectory[Path]):
    """``NAME.calibration/report.html``; the bundle itself lies beside it, ``NAME.safetensors``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.report = path / "report.html"
