"""Lists of files as editors and spreadsheets write them."""

from __future__ import annotations

import csv
import re

from storage.errors import InputError
from storage.text import decoded

LIST_SUFFIXES = (".txt", ".lst", ".list", ".csv")

_PATH_COLUMNS = ("path", "file", "filename", "file_name", "location", "href", "url")


def listed_names(data: bytes, *, path: str) -> list[str]:
    """Names that a list has, in its order: one a line, quoted or not; lines that begin with # are comments.

    Args:
        path: of the list; that of a ``.csv`` may have several columns, if one of them is called path, file, filename,
            location, href or url.

    Raises:
        InputError: naming `path`: no text, or a table without a column of names.
    """
    text = decoded(data, path=path)
    # not splitlines: it also ends a line at characters that names may have
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.lower().endswith(".csv"):
        return _column(lines, path)
    return [_unquoted(line) for line in lines]


def _column(lines: list[str], path: str) -> list[str]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True)]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    if not rows:
        return []
    head = [cell.lower() for cell in rows[0]]
    number = next((head.index(name) for name in _PATH_COLUMNS if name in head), None)
    if number is not None:
        return [row[number] for row in rows[1:] if len(row) > number and row[number]]
    if max(map(len, rows)) == 1:
        return [row[0] for row in rows if row[0]]
    raise InputError(
        f"{path} has the columns {', '.join(rows[0])}: the one with the names of the files must be called path"
    )


def _unquoted(line: str) -> str:
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line
