"""What makes an input a mutated one: bytes, values of a document and its encoding, exchanged at random."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, float("nan"), float("-inf"), 2**31, 2**63, -(2**70), 0.5),
    *("", " ", "NaN", "x", "-9999", "1e999", "\u0000", "ä\u202e", "[/]", "../../etc/passwd", "2021-13-45", "A" * 5000),
    *([], {}, [[]], [[[]]], {"type": "Polygon"}, [1, [2, [3]]], [None, None], [float("nan")] * 4),
]
"""What may stand in the place of any value of a document."""


def with_other_bytes(content: bytes, random: Random, *, until: int | None = None) -> bytes:
    """Some bytes exchanged, cut off, doubled or zeroed; most of them before `until`."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at = random.randrange(min(until or len(data), len(data)))
        match random.randrange(5):
            case 0:
                data[at] = random.randrange(256)
            case 1:
                data[at] ^= 1 << random.randrange(8)
            case 2:
                data[at : at + 4] = random.choice((b"\xff\xff\xff\xff", bytes(4), b"\x01\0\0\0", b"\0\0\0\x80"))
            case 3:
                data[at : at + 8] = struct.pack("<d", random.choice((float("nan"), float("inf"), -1.0, 1e300, 0.0)))
            case 4 if random.random() < 0.2:
                del data[at:]
    return bytes(data)


def with_another_value(document: Any, random: Random) -> Any:
    """The document with one or a few of its values, of any depth, exchanged, removed or doubled."""
    document = json.loads(json.dumps(document))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _places(document, places)
        if not places:
            return random.choice(VALUES)
        parent, key = random.choice(places)
        match random.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.insert(key, parent[key])
            case _:
                parent[key] = random.choice(VALUES)
    return document


def _places(value: Any, places: list[tuple[Any, Any]]) -> None:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        places.append((value, key))
        _places(inner, places)


def written(path: Path, document: Any, random: Random) -> Path:
    """JSON as people's programs write it, now and then with a mark in front, in another encoding, or cut off."""
    text = json.dumps(document)
    match random.randrange(12):
        case 0:
            path.write_text(text, encoding="utf-8-sig")
        case 1:
            path.write_text(text, encoding="utf-16")
        case 2:
            path.write_text(text[: random.randrange(len(text) + 1)])
        case _:
            path.write_text(text)
    return path
