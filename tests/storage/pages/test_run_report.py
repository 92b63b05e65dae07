"""The report as a browser shows it: alone, without a network, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.pages.quicklook import make_quicklooks
from storage.pages.run_report import ReportData, disagreement_summary, write_report
from tests.storage.pages.test_quicklook import wide_run

HOSTILE = "<script>document.title='owned'</script>\"'.tif"


def data(**changes: Any) -> ReportData:
    values: dict[str, Any] = {
        "title": "Change from A to B",
        "subtitle": "Run 0123",
        "looks": make_quicklooks(wide_run(), threshold=0.5),
        "before_label": HOSTILE,
        "after_label": "after.tif",
        "cards": [("Changed area", "1.50 ha", "0.12% of what is valid")],
        "warnings": ["no date is known"],
        "tables": {"Inputs": [("/a/very/long/path/" * 12 + "before.tif", "SHA-256 " + "0" * 64)]},
        "histogram": [1000, *[10] * 253, 5, 100],
        "threshold": 0.5,
        "card": "# card\n" + "word " * 200,
    }
    return ReportData(**{**values, **changes})


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desk", "phone"])
def page(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height = request.param
    report = tmp_path / "report.html"
    write_report(report, data())
    opened = browser.new_page(viewport={"width": width, "height": height})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda asked: said.append(asked.url) if asked.url.startswith("http") else None)
    opened.goto(report.as_uri())
    yield opened
    assert said == [], "no error, no message, nothing fetched"
    opened.close()


def test_it_fits_the_screen_and_shows_its_pictures(page: Any) -> None:
    assert page.title() == "Change from A to B", "text of the run is never run as code"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[834, 100]] * 3
    assert HOSTILE in page.inner_text("#left-tag")
    assert "1.50 ha" in page.inner_text(".cards")
    assert "no date is known" in page.inner_text(".warning")
    assert page.locator("svg rect").count() == 64


def test_swipe_follows_slider_and_pointer(page: Any) -> None:
    def shown() -> float:
        return float(page.evaluate("parseFloat(document.getElementById('viewer').style.getPropertyValue('--at'))"))

    page.evaluate("const s = document.getElementById('swipe'); s.value = 20; s.dispatchEvent(new Event('input'))")
    assert shown() == 20
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 5)
    page.mouse.down()
    page.mouse.up()
    assert shown() == pytest.approx(75, abs=1)


def test_left_picture_and_outlines_can_be_chosen(page: Any) -> None:
    before = page.evaluate("document.getElementById('left').src")
    page.select_option("#mode", "probability")
    assert page.evaluate("document.getElementById('left').src") != before
    assert page.inner_text("#left-tag") == "change probability"
    page.select_option("#mode", "before")
    assert page.evaluate("document.getElementById('left').src") == before
    page.uncheck("#outlines")
    assert not page.is_visible("#outline")


def test_disagreement_against_numpy() -> None:
    rng = np.random.default_rng(3)
    levels = np.minimum(rng.exponential(9, 5000).astype(int), 255)
    mean, high = disagreement_summary(np.bincount(levels, minlength=256))
    assert mean == pytest.approx(levels.mean() / 510)
    assert high == pytest.approx(np.percentile(levels, 95, method="inverted_cdf") / 510)
    assert disagreement_summary(np.zeros(256, dtype=np.int64)) == (0.0, 0.0)
