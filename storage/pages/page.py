"""One HTML page for a person, of figures, tables and pictures; it needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.pages.pictures import data_uri
from storage.places.bucket import Location
from storage.places.publish import publish

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page; what is empty is left out.

    Attributes:
        header, rows: a table.
        pictures: PNG or JPEG bytes, each with a caption that says in words what is to be seen.
        preformatted: text shown as it is.
    """

    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    pictures: Sequence[tuple[bytes, str]] = ()
    preformatted: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows: cards are (what, figure, explanation)."""

    title: str
    subtitle: str
    cards: Sequence[tuple[str, str, str]] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()


def write_page(path: Path, page: Page) -> None:
    """Write the page; all text in it is escaped, all pictures are inside it."""
    render(path, "page.html", page=page)


def render(path: Location, template: str, **values: object) -> None:
    """Write one of the templates, filled in; `values` has ``page``, of which each shows title, subtitle, warnings."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    html = environment.get_template(template).render(values)
    with publish(path) as draft:
        draft.write_text(html, encoding="utf-8")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for artifacts and model cards."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def area_words(square_metres: float) -> str:
    """Hectares, or square kilometres from a thousand hectares on."""
    return f"{square_metres / 1e4:,.2f} ha" if square_metres < 1e7 else f"{square_metres / 1e6:,.1f} km²"
