"""Zarr on a disk and in a bucket."""

from __future__ import annotations

import zarr
from obstore.exceptions import BaseError
from obstore.store import S3Store
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StoreLike

from storage.errors import IntegrityError, ObjectStoreError
from storage.places.bucket import SCHEME, Location, ObjectPath, location
from storage.places.client import explain

# zarrs reads a block from a disk twice as fast as zarr's own pipeline. It reads buckets with a client of its own, which
# neither says that a shard is missing nor repeats a request as patiently: there zarr's own reads, and the network is
# what takes the time.
READING_FILES = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}


def zarr_store(path: Location, *, complete: bool = False) -> StoreLike:
    """What Zarr opens at `path`.

    Args:
        complete: in a bucket, a chunk that is not there is an IntegrityError, not a chunk of fill values.
    """
    if not isinstance(path, ObjectPath):
        return path
    return _Complete(path.store()) if complete else ObjectStore(path.store())


def open_address(address: str) -> StoreLike:
    """A Zarr store by its path or URL, as a user gives it."""
    return zarr_store(location(address)) if address.startswith(SCHEME) else address


def reading(path: Location) -> zarr.config.__class__:  # type: ignore[name-defined]
    """A context in which arrays are opened for reading, with the fastest pipeline that keeps our promises there."""
    return zarr.config.set({} if isinstance(path, ObjectPath) else READING_FILES)


class _Complete(ObjectStore[S3Store]):
    """All shards have been written: one that is missing was lost. Asking for each beforehand would cost requests."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            chunk = await super().get(key, prototype, byte_range)
        except BaseError as error:
            where = self._at(key)
            raise ObjectStoreError(f"{where}: {explain(error, bucket=where.bucket)}") from error
        if chunk is None and "/c/" in key:
            raise IntegrityError(f"{self._at(key)} is missing: that block was never written, or was lost")
        return chunk

    def _at(self, key: str) -> ObjectPath:
        return ObjectPath(self.store.config["bucket"], self.store.prefix or "") / key
