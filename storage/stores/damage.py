"""Which stored shards are beyond reading, told apart from what only kept one from being read."""

from __future__ import annotations

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from storage.places.bucket import Location


def is_damaged(array: zarr.Array, shard: Location, index: tuple[int, ...]) -> bool:
    """Whether the bytes of a shard, the one at `index` of the array, cannot be decoded; False where it is missing.

    Its bytes are decoded in memory, so that an error of the disk, of the store that holds it or of this process passes
    for what it is, and is never taken for damage.
    """
    try:
        content = shard.read_bytes()
    except FileNotFoundError:
        return False
    prototype = default_buffer_prototype()
    documents = array.metadata.to_buffer_dict(prototype)
    key = "/".join(["c", *map(str, index)])
    alone = MemoryStore({**documents, key: prototype.buffer.from_bytes(content)})
    assert array.shards is not None
    inside = tuple(slice(n * side, (n + 1) * side) for n, side in zip(index, array.shards, strict=True))
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        copy = zarr.open_array(alone, mode="r")
    try:
        copy[inside]
    except MemoryError:
        raise
    except Exception:  # of bytes in memory: whatever a codec calls it, they are not what was written
        return True
    return False
