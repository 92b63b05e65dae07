"""Text of files that people and their editors wrote."""

from __future__ import annotations

import codecs

from storage.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""

_HEAD_BYTES = 4096
_LATIN_SHARE = 4
"""UTF-16 is taken for it where one byte in so many is the zero of a letter that ASCII has."""


def decoded(data: bytes, *, path: str) -> str:
    """Text of a file by its byte order mark, else UTF-16 where many bytes on one side are zero, else UTF-8.

    A byte that is no UTF-8 stays what it is, as in names that the system gives (``surrogateescape``).

    Raises:
        InputError: naming `path`: it is no text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    head = data[:_HEAD_BYTES]
    if encoding is None and b"\0" in head:
        zeros = head[0::2].count(0), head[1::2].count(0)
        if max(zeros) * _LATIN_SHARE >= len(head):
            encoding = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    try:
        text = data.decode(encoding or "utf-8", "strict" if encoding else "surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: {error}") from error
    if "\0" in text:
        raise InputError(f"{path} is no text: it holds zero bytes")
    return text
