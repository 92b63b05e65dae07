"""Lists and tables of files as editors and spreadsheets write them."""

from __future__ import annotations

import csv
import re

from storage.errors import InputError
from storage.text import decoded

LIST_SUFFIXES = (".txt", ".lst", ".list", ".csv")

_PATH_COLUMNS = ("path", "file", "filename", "file_name", "location", "href", "url")
_SEPARATORS = (",", ";", "\t")
"""Of cells: a spreadsheet takes the one of its user's language."""


def listed_names(data: bytes, *, path: str) -> list[str]:
    """Names that a list has, in its order: one a line, quoted or not; lines that begin with # are comments.

    Args:
        path: of the list; that of a ``.csv`` may have several columns, if one of them is called path, file, filename,
            location, href or url.

    Raises:
        InputError: naming `path`: no text, or a table without a column of names.
    """
    if path.lower().endswith(".csv"):
        return _column(table_rows(data, path=path), path)
    # not splitlines: it also ends a line at characters that names may have
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", decoded(data, path=path))]
    return [_unquoted(line) for line in lines if line and not line.startswith("#")]


def table_rows(data: bytes, *, path: str) -> list[tuple[int, list[str]]]:
    """Number of its line, and cells, of each row of a table that is not empty and no comment; the head is one of them.

    Cells are apart by commas, semicolons or tabs, whichever the first row has more of.

    Raises:
        InputError: naming `path`: no text, or no table.
    """
    text = decoded(data, path=path)
    head = next((line for line in re.split(r"[\r\n]+", text) if line.strip() and not line.startswith("#")), "")
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    reader = csv.reader(lines, delimiter=max(_SEPARATORS, key=head.count), strict=True)
    rows = []
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if any(row) and not row[0].startswith("#"):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table: line {reader.line_num}: {error}") from error
    return rows


def _column(rows: list[tuple[int, list[str]]], path: str) -> list[str]:
    if not rows:
        return []
    head = [cell.lower() for cell in rows[0][1]]
    number = next((head.index(name) for name in _PATH_COLUMNS if name in head), None)
    if number is not None:
        return [row[number] for _, row in rows[1:] if len(row) > number and row[number]]
    if max(len(row) for _, row in rows) == 1:
        return [row[0] for _, row in rows]
    raise InputError(
        f"{path} has the columns {', '.join(rows[0][1])}: the one with the names of the files must be called path"
    )


def _unquoted(line: str) -> str:
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line
