"""How messages show a name that a file may have and a terminal may not print."""

from __future__ import annotations


def shown(name: str) -> str:
    """The name on one line that can be printed: control characters and bytes that are no text stand as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
