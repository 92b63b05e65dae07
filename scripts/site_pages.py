"""A hook of mkdocs: pages of the site that stand outside docs/, and links that hold in the repository and on the site.

A link is written as it holds in the repository. On the site one to a page leads to that page; one to code, of which the
site has no copy, becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

PAGES = {
    f"benchmarks/results/{page.name}": f"results/{page.name}" for page in (ROOT / "benchmarks/results").glob("*.md")
} | {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "servers.md",
}
"""Name on the site by path in the repository."""

_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of docs/."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page hold on the site."""
    names = {name: path for path, name in PAGES.items()}
    path = names.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def on_the_site(link: re.Match[str]) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or "://" in target:
            return link[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        name = PAGES.get(place) or place.removeprefix("docs/") * place.startswith("docs/")
        if name:
            relative = posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")
            return f"{link['text']}({relative}{'#' * bool(anchor)}{anchor})"
        # what is not there stays a link, which mkdocs then complains of
        return link["text"][1:-1] if (ROOT / place).exists() else link[0]

    return _LINK.sub(on_the_site, markdown)
