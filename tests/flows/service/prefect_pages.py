"""Pages of Prefect's UI, as a person opens them: the version that its address leads to."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from PIL import Image
from scipy import ndimage

PATIENCE_S = 240.0

_COLORS = {"completed": (33, 157, 75), "crashed": (234, 88, 12)}
"""Of a state's bars in the timeline, about."""


@dataclass(frozen=True)
class Pages:
    """A tab of a browser.

    Attributes:
        address: the server's.
        folder: takes the pictures, unless ``DASNET_PICTURES`` names another (for the documentation).
    """

    page: Any
    address: str
    folder: Path

    def log_in(self, secret: str) -> None:
        self.page.goto(self.address)
        self.page.get_by_placeholder("admin:pass").fill(secret)
        self.page.get_by_role("button", name="Login").click()
        self.page.get_by_role("link", name="Deployments").wait_for()

    def open_run(self, run: UUID, state: str) -> None:
        """The page of a flow run that is in a state."""
        self.page.goto(f"{self.address}/v2/runs/flow-run/{run}")
        self.sees(re.compile(f"^{state}$"))

    def open_artifact(self, artifact: UUID) -> None:
        self.page.goto(f"{self.address}/v2/artifacts/artifact/{artifact}")

    def cancel(self) -> None:
        """Cancel the run whose page is open, as the menu lets a person do it."""
        self.page.get_by_role("button", name="Open menu").click()
        self.page.get_by_role("menuitem", name="Cancel").click()
        self.page.get_by_role("alertdialog").get_by_role("button", name="Cancel Flow Run").click()
        self.page.get_by_role("alertdialog").wait_for(state="hidden")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def sees(self, words: str | re.Pattern[str]) -> None:
        """Wait until a person can see some text."""
        self.page.get_by_text(words).first.wait_for(state="visible")

    def text(self) -> str:
        """All that the page says."""
        return str(self.page.locator("body").inner_text())

    def await_bars(self, count: int, state: str) -> None:
        """Wait until the timeline, which is drawn and has no text, shows so many bars of a state's colour."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self._bars(state)) < count:
            assert time.monotonic() < deadline, f"{found} bars are {state}, not {count}"
            time.sleep(0.5)

    def _bars(self, state: str) -> int:
        shot = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)
        alike = np.abs(shot[130:480, 280:] - np.array(_COLORS[state])).max(axis=2) < 24
        labels, count = ndimage.label(alike)
        return int(np.count_nonzero(np.bincount(labels.ravel())[1:] >= 40)) if count else 0

    def picture(self, name: str) -> None:
        """Keep what the page shows as ``name.png``, small."""
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        folder = Path(os.environ.get("DASNET_PICTURES", self.folder))
        shot.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            folder / f"{name}.png", optimize=True
        )


@contextmanager
def pages_of(browser: Any, address: str, folder: Path) -> Iterator[Pages]:
    """A new tab, which must not meet an error in a page's own code."""
    page = browser.new_page(viewport={"width": 1400, "height": 1080})
    page.set_default_timeout(1000 * PATIENCE_S)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield Pages(page, address, folder)
    finally:
        page.close()
    assert errors == []
