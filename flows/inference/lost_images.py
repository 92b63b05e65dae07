"""Imagery that a store lost, or whose bytes changed at rest: it is set back, so that the next ingest reads it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.inference.planned import PlannedSeries, read_name
from storage.errors import IntegrityError
from tiling.grid import Box
from tiling.ledger import Ledger
from tiling.protocols import DatesStore

_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One block of one date: its name in the ledger of ingest, and where it lies."""

    name: str
    images: DatesStore
    date: str
    box: Box

    def is_whole(self) -> bool:
        """Whether it can be read, decoded and checked against its checksums."""
        try:
            self.images.read_dates([self.date], rows=self.box.rows, cols=self.box.cols)
        except IntegrityError:
            return False
        return True


def stored_images(job: PlannedSeries, reads: Iterable[tuple[str, int]], images: DatesStore) -> Iterator[StoredImage]:
    """Blocks of dates as the ledger of ingest calls them; `reads`: (date, block index)."""
    for date, index in reads:
        block = job.blocks[index]
        yield StoredImage(name=read_name(date, block.name), images=images, date=date, box=block.box)


def set_back_lost(ingested: Ledger, images: Iterable[StoredImage]) -> list[str]:
    """Read the blocks that the ledger of ingest calls done; set back those that are not whole; returns their names."""
    recorded = {image.name: image for image in images if ingested.state(image.name) == "done"}
    lost = [name for name, image in recorded.items() if not image.is_whole()]
    if lost:
        ingested.forget(lost, reason="the stored imagery was lost or its bytes changed")
    return lost


@contextmanager
def looking_at(images: Iterable[StoredImage], *, ingested: Callable[[], Ledger]) -> Iterator[None]:
    """Read the imagery for a product; where that fails, set back the blocks that cannot be read.

    Args:
        ingested: opens the ledger of ingest.

    Raises:
        IntegrityError: imagery cannot be read; the message names the blocks.
    """
    try:
        yield
    except IntegrityError as error:
        lost = set_back_lost(ingested(), images)
        if not lost:
            raise
        raise IntegrityError(
            f"{error}\n{len(lost)} blocks of imagery are set back ({', '.join(lost[:_NAMED])}"
            f"{', …' if len(lost) > _NAMED else ''}); run the same command again to read them anew"
        ) from error
