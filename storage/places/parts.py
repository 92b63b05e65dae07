"""The parts in which a store takes what is uploaded, and what the store says of them afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

PART_BYTES = 5 * 2**20
"""Bytes of the smallest part that stores take."""

PARTS_AT_ONCE = 4
"""Parts of a stream that are on their way; they wait in memory."""

_MOST_PARTS = 9_000  # stores take 10,000


def part_bytes(size: int) -> int:
    """Bytes of each part in which so many are uploaded."""
    return max(PART_BYTES, -(-size // _MOST_PARTS))


def in_parts(pieces: Iterable[bytes], part: int) -> Iterator[bytes]:
    """The same bytes, so many at a time."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= part:
            yield bytes(waiting[:part])
            del waiting[:part]
    if waiting:
        yield bytes(waiting)


def digests(parts: Iterable[bytes]) -> tuple[str, str]:
    """SHA-256, and the entity tag of an upload in these parts, as S3 makes it of their MD5."""
    total, tags = hashlib.sha256(), []
    for chunk in parts:
        total.update(chunk)
        tags.append(hashlib.md5(chunk, usedforsecurity=False))
    if len(tags) > 1:
        joined = hashlib.md5(b"".join(tag.digest() for tag in tags), usedforsecurity=False)
        return total.hexdigest(), f"{joined.hexdigest()}-{len(tags)}"
    return total.hexdigest(), (tags or [hashlib.md5(usedforsecurity=False)])[0].hexdigest()
