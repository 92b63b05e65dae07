"""What is written for people: every path that a document names is there, and the site needs nothing from outside."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "docs", "deploy", "benchmarks/results", "dasnet/bundles")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
NOT_YET_THERE = "NAME"
"""Stands in a path for something that a reader is about to add."""

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:flows|storage|dasnet|tiling|tests|scripts|benchmarks|deploy|docs)/[\w./-]*)`")
_FETCHED = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "use": "href",
    "object": "data",
    "embed": "src",
    "video": "src",
}
"""Elements that a browser fetches something for, and the attribute that says what."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    if document.name == "CHANGELOG.md":  # tells of what was there once
        return
    links = [link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link]
    paths = [path for path in _PATH.findall(text) if NOT_YET_THERE not in path]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    assert not missing + [path for path in paths if not (ROOT / path).exists()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it; a link that leads nowhere ends the build."""
    folder = tmp_path_factory.mktemp("documents") / "site"
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


class Fetched(HTMLParser):
    """Addresses that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        # of links of this kind nothing is fetched
        if tag == "link" and values.get("rel") in ("canonical", "prev", "next"):
            return
        self.addresses += [address for name in (_FETCHED.get(tag), "srcset") if name and (address := values.get(name))]


def test_no_page_refers_to_an_outside_resource(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "mosaics.html", "options.html", "files.html", "architecture.html"} <= {p.name for p in pages}
    for page in pages:
        fetched = Fetched()
        fetched.feed(page.read_text())
        assert fetched.addresses and not [a for a in fetched.addresses if re.match(r"(\w+:)?//", a)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_reader_finds_a_word_and_the_browser_asks_nobody_else(address: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/index.html")
    assert page.locator("article img").first.evaluate("image => image.naturalWidth") > 0
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("quarantine")
    page.locator(".md-search-result__link").first.wait_for(timeout=60_000)
    page.goto(f"{address}/architecture.html")
    assert page.locator("article img[src='rooms.svg']").evaluate("image => image.naturalWidth") > 0
    assert asked and not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not errors
    page.close()
