"""Objects in a bucket, as paths: what a run directory or an input on an S3-compatible store is made of.

A bucket has no folders and no rename; an object appears whole or not at all, replaces an older one in one step, and a
write can depend on what is there (`If-Match`, `If-None-Match`). A path holds a bucket's name and a key, nothing else:
it travels to workers and into logs, and credentials and endpoint come from the environment of each process.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store
from pydantic_core import core_schema
from typing_extensions import TypeVar

from storage.errors import InputError, IntegrityError, ObjectStoreError, StaleWriteError
from storage.places.client import FIRST_CONTACT, PATIENCE, client, explain
from storage.places.credentials import refuse_credentials
from storage.places.parts import PARTS_AT_ONCE, digests, in_parts, part_bytes

SCHEME = "s3://"

_SHA256 = "sha256"
"""Name of what is kept beside an object."""


@dataclass(frozen=True)
class Facts:
    """What a store says of an object: bytes, entity tag, time of its last write by the store's own clock."""

    size: int
    tag: str
    modified: datetime

    @property
    def st_size(self) -> int:
        """As :func:`os.stat` calls it."""
        return self.size


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object, or all objects below a prefix: ``s3://bucket/key``. Behaves as a :class:`pathlib.Path` where it can.

    Every method that reaches the store raises :class:`ObjectStoreError` where it is denied or gets no answer.
    """

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, address: str) -> ObjectPath:
        """Read ``s3://bucket/key``; raises InputError as :func:`refuse_credentials`, and where there is no bucket."""
        refuse_credentials(address)
        bucket, _, key = address.removeprefix(SCHEME).partition("/")
        parts = [part for part in key.split("/") if part]
        if not address.startswith(SCHEME) or not bucket or "?" in address or "#" in address or {".", ".."} & {*parts}:
            raise InputError(f"{address} is not an address of the form s3://bucket/key")
        return cls(bucket, "/".join(parts))

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        from_text = core_schema.chain_schema(
            [
                core_schema.str_schema(pattern=f"^{SCHEME}"),
                core_schema.no_info_plain_validator_function(cls.parse),
            ]
        )
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.to_string_ser_schema(),
        )

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"

    def __truediv__(self, other: str) -> ObjectPath:
        return ObjectPath(self.bucket, "/".join(part for part in (self.key, str(other).strip("/")) if part))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name or self.bucket

    @property
    def stem(self) -> str:
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        return PurePosixPath("/" + self.key).relative_to("/" + other.key)

    def resolve(self) -> ObjectPath:
        return self

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: a bucket has no folders."""

    def exists(self) -> bool:
        """Whether there is an object; a prefix does not exist."""
        return self.facts() is not None

    def facts(self, *, patience: timedelta = PATIENCE) -> Facts | None:
        """What the store says of the object; None where there is none."""
        if not self.key:
            return None
        with _reaching(self):
            try:
                meta = obstore.head(self._client(patience), self.key)
            except FileNotFoundError:
                return None
        return Facts(meta["size"], meta["e_tag"] or "", meta["last_modified"])

    def stat(self) -> Facts:
        """As :meth:`facts`; raises FileNotFoundError where there is no object."""
        facts = self.facts()
        if facts is None:
            raise FileNotFoundError(f"{self} does not exist")
        return facts

    def read_bytes(self) -> bytes:
        return self.read()[0]

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def read(self, *, patience: timedelta = PATIENCE) -> tuple[bytes, str]:
        """Content and entity tag of the same moment; raises FileNotFoundError."""
        with _reaching(self):
            try:
                answer = obstore.get(self._client(patience), self.key)
                return bytes(answer.bytes()), answer.meta["e_tag"] or ""
            except FileNotFoundError:
                raise FileNotFoundError(f"{self} does not exist") from None

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`; fewer where the object ends before; raises FileNotFoundError."""
        if start >= stop:
            return b""
        with _reaching(self):
            try:
                return bytes(obstore.get_range(self._client(), self.key, start=start, end=stop))
            except FileNotFoundError:
                raise FileNotFoundError(f"{self} does not exist") from None
            except BaseError:
                if self.stat().size <= start:  # stores answer a range beyond the end with an error
                    return b""
                raise

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[BinaryIO]:
        """A copy of the object in a temporary file, to read; raises FileNotFoundError."""
        assert mode == "rb"
        with tempfile.TemporaryFile() as file:
            with _reaching(self):
                try:
                    for part in obstore.get(self._client(), self.key).stream():
                        file.write(part)
                except FileNotFoundError:
                    raise FileNotFoundError(f"{self} does not exist") from None
            file.seek(0)
            yield cast(BinaryIO, file)

    def write(
        self,
        content: bytes,
        *,
        replacing: str | None = None,
        only_new: bool = False,
        patience: timedelta = PATIENCE,
    ) -> str:
        """Write the object in one step; returns its entity tag.

        Args:
            replacing: entity tag of what must be there now.
            only_new: nothing may be there now.

        Raises:
            StaleWriteError: something else is there. Nothing was written.
        """
        mode: Any = "create" if only_new else {"e_tag": replacing} if replacing else "overwrite"
        with _reaching(self):
            try:
                written = obstore.put(self._client(patience), self.key, content, mode=mode, use_multipart=False)
            except (PreconditionError, AlreadyExistsError):
                # an answer that got lost makes the client ask again, and then our own first write is in the way
                with _reaching(self):
                    try:
                        content_there, tag = self.read(patience=patience)
                    except FileNotFoundError:
                        content_there, tag = b"", ""
                if tag and content_there == content:
                    return tag
                raise StaleWriteError(f"{self} was written by somebody else") from None
        return written["e_tag"] or ""

    def upload(self, file: Path) -> None:
        """Bring a local file here, with its SHA-256 beside it: it appears whole, whatever its size.

        Raises:
            IntegrityError: what the store holds is not what was sent; nothing stays there.
        """
        size = file.stat().st_size
        part = part_bytes(size)
        with file.open("rb") as content:
            sha256, tag = digests(iter(partial(content.read, part), b""))
        with _reaching(self):
            obstore.put(self._client(), self.key, file, attributes={_SHA256: sha256}, chunk_size=part)
        self._require_sent(size=size, sha256=sha256, tag=tag)

    def upload_stream(self, content: Callable[[], Iterable[bytes]], *, size: int) -> None:
        """Bring bytes here that lie nowhere together, with their SHA-256 beside them: they appear whole.

        Args:
            content: makes the bytes, in pieces of any size. It is called twice, because their digest is sent first.
            size: bytes in all.

        Raises:
            IntegrityError: what the store holds is not what was sent; nothing stays there. What `content` raises goes
                on, and nothing appears.
        """
        part = part_bytes(size)
        sha256, tag = digests(in_parts(content(), part))
        failures: list[Exception] = []

        def sent() -> Iterator[bytes]:
            try:
                yield from in_parts(content(), part)
            except Exception as error:
                failures.append(error)
                raise

        try:
            with _reaching(self):
                whole = sent() if size > part else b"".join(sent())
                options: Any = {"attributes": {_SHA256: sha256}, "chunk_size": part, "max_concurrency": PARTS_AT_ONCE}
                obstore.put(self._client(), self.key, whole, **options)
        except Exception:
            if failures:  # the client words it as an error of its own
                raise failures[0] from None
            raise
        self._require_sent(size=size, sha256=sha256, tag=tag)

    def _require_sent(self, *, size: int, sha256: str, tag: str) -> None:
        facts = self.stat()
        if (facts.size, facts.tag.strip('"')) == (size, tag):
            return
        # the tag of an encrypted object is no digest of its content: then what is there has to be read
        with _reaching(self):
            total = hashlib.sha256()
            for piece in obstore.get(self._client(), self.key).stream():
                total.update(piece)
        if total.hexdigest() == sha256:
            return
        self.unlink()
        raise IntegrityError(f"{self}: the store holds {facts.size} bytes that are not the {size} that were sent")

    def sent_sha256(self) -> str:
        """SHA-256 that :meth:`upload` sent beside the content, as hex; empty where none is; FileNotFoundError."""
        with _reaching(self):
            try:
                return str(obstore.get(self._client(), self.key, options={"head": True}).attributes.get(_SHA256, ""))
            except FileNotFoundError:
                raise FileNotFoundError(f"{self} does not exist") from None

    def unlink(self, *, missing_ok: bool = False) -> None:
        with _reaching(self):
            obstore.delete(self._client(), self.key)

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies directly below: objects, and prefixes of objects."""
        with _reaching(self):
            listing = obstore.list_with_delimiter(self._client(), self.key or None)
        keys = [str(entry["path"]) for entry in listing["objects"]] + list(listing["common_prefixes"])
        yield from (ObjectPath(self.bucket, key) for key in sorted(keys) if key != self.key)

    def walk(self) -> Iterator[tuple[ObjectPath, Facts]]:
        """All objects below, in the order of their keys; streamed."""
        with _reaching(self):
            for batch in obstore.list(self._client(), self.key or None):
                for entry in batch:
                    facts = Facts(entry["size"], entry["e_tag"] or "", entry["last_modified"])
                    yield ObjectPath(self.bucket, str(entry["path"])), facts

    def store(self) -> S3Store:
        """A client whose root is this prefix, for Zarr."""
        return client(self.bucket, prefix=self.key)

    def require_answer(self) -> None:
        """Ask for a listing, with little patience.

        Raises:
            InputError: no such bucket, access denied, or no answer.
        """
        first = self._client(FIRST_CONTACT)
        try:
            with _reaching(self):
                next(iter(obstore.list(first, self.key or None)), None)
        except ObjectStoreError as error:
            raise InputError(str(error)) from error

    def _client(self, patience: timedelta = PATIENCE) -> S3Store:
        return client(self.bucket, patience=patience)


Location = Path | ObjectPath
"""Where files lie: a local path, or objects in a bucket."""

P = TypeVar("P", bound=Location, default=Path, covariant=True)
"""The kind of place that something is kept in; most of the program writes to a disk alone."""


def location(text: str | Path | ObjectPath) -> Location:
    """An address as the right kind of path; raises InputError as :meth:`ObjectPath.parse`."""
    if isinstance(text, Path | ObjectPath):
        return text
    return ObjectPath.parse(text) if text.startswith(SCHEME) else Path(text)


@contextmanager
def _reaching(path: ObjectPath) -> Iterator[None]:
    """Turn the client's errors into one of ours, short, and without what its requests looked like."""
    try:
        yield
    except BaseError as error:
        raise ObjectStoreError(f"{path}: {explain(error, bucket=path.bucket)}") from error
