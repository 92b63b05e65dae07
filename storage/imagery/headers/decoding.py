"""Warnings of GDAL and its libraries while pixels are decoded: a damaged tile is told there, and nowhere else.

libjpeg paints what it cannot decode grey, and says so in a warning alone.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("rasterio._env", "rasterio._err")
_HARMLESS = re.compile(r"HTTP|CURL|retry|Sum of Photometric|unknown field|nvalid PDS|coordinate", re.IGNORECASE)
"""What a server has to do with, which is tried again, and what concerns headers."""

_heard = threading.local()


class DamagedPixelsError(OSError):
    """A file's pixels could be decoded only in part; the message is the library's."""


class _Listener(logging.Handler):
    """Keeps what is said in a thread that listens."""

    def emit(self, record: logging.LogRecord) -> None:
        messages = getattr(_heard, "messages", None)
        if messages is not None and record.levelno >= logging.WARNING:
            messages.append(record.getMessage())


_listener = _Listener()


@contextmanager
def hearing_damage() -> Iterator[None]:
    """Raise where a library warned, in this thread, that it could not decode all of what was read.

    Raises:
        DamagedPixelsError: with the warning.
    """
    for logger in map(logging.getLogger, _LOGGERS):
        if _listener not in logger.handlers:
            logger.addHandler(_listener)
    outer = getattr(_heard, "messages", None)
    messages = _heard.messages = []
    try:
        yield
    finally:
        _heard.messages = outer
    damage = [message for message in messages if not _HARMLESS.search(message)]
    if damage:
        raise DamagedPixelsError("; ".join(dict.fromkeys(damage)))
