"""Where figures lie."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


class FiguresDirectory(RunDirectory[Path]):
    """``DIR/figures.html``, and each figure as PNG beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.page = path / "figures.html"

    def figure(self, name: str) -> Path:
        """Where the figure of that name lies."""
        return self.path / f"{name}.png"
