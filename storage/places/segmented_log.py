"""An append-only log of lines in a bucket, whose objects cannot be appended to.

It is a row of numbered objects. Those before the last one never change again; the last one is written anew, whole, with
every append, until it is :data:`SEGMENT_BYTES` long. So there is no torn line, a million blocks make a few thousand
objects, and nothing has to be compacted. Each write names the entity tag of what it replaces: two writers are found out
by the second one's first append, which fails and changes nothing.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.errors import StaleWriteError, TakenOverError
from storage.places.bucket import ObjectPath

SEGMENT_BYTES = 64 * 1024


class SegmentedLog:
    """The log below a prefix, with a copy of it in a local file that goes when this object goes."""

    def __init__(self, prefix: ObjectPath) -> None:
        self.prefix = prefix
        self._copy = tempfile.NamedTemporaryFile(prefix="ledger-", suffix=".jsonl")  # noqa: SIM115  lives as long as we
        self.path = Path(self._copy.name)
        self._number, self._last, self._tag = 0, b"", ""
        segments = [path for path in prefix.iterdir() if path.suffix == ".jsonl"]
        with ThreadPoolExecutor(8) as pool:
            for segment, (content, tag) in zip(segments, pool.map(ObjectPath.read, segments), strict=True):
                self._copy.write(content)
                self._number, self._last, self._tag = int(segment.stem), content, tag
        self._copy.flush()

    def append(self, lines: bytes) -> None:
        """Add whole lines durably: they are in the bucket when this returns.

        Raises:
            TakenOverError: another process has added to the log; these lines were not.
        """
        if not lines:
            return
        if len(self._last) + len(lines) > SEGMENT_BYTES and self._last:
            self._number, self._last, self._tag = self._number + 1, b"", ""
        segment, content = self.prefix / f"{self._number:08d}.jsonl", self._last + lines
        try:
            self._tag = segment.write(content, replacing=self._tag or None, only_new=not self._tag)
        except StaleWriteError as error:
            raise TakenOverError(
                f"another process records in {self.prefix}; this one has recorded nothing since, and ends"
            ) from error
        self._last = content
        self._copy.write(lines)
        self._copy.flush()

    def remove(self) -> None:
        """Delete the log; its local copy stays empty."""
        for segment in self.prefix.iterdir():
            segment.unlink(missing_ok=True)
        self._copy.truncate(0)
        self._copy.seek(0)
        self._number, self._last, self._tag = 0, b"", ""
