"""Products that any pair of dates has: COG, polygons, quicklook and STAC item, of a whole run or of a cell.

The libraries that write them are imported when one is to be made: a run that is finished makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from flows.inference.lost_images import StoredImage, looking_at
from flows.inference.product_ledger import ProductLedger
from flows.inference.verify import BlockVerifier
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.places.bucket import Location
from storage.products.reader import SeriesReader
from tiling.ledger import Ledger

if TYPE_CHECKING:
    from storage.pages.quicklook import Quicklooks

T = TypeVar("T")

QUICKLOOK = "Before, after and change probability"

_KINDS = {
    "probability": ("image/tiff; application=geotiff; profile=cloud-optimized", "Change probability", "data"),
    "changes": ("application/vnd.apache.parquet", "Changed areas", "data"),
    "quicklook": ("image/png", QUICKLOOK, "thumbnail"),
    "report": ("text/html", "Report", "overview"),
}
"""Media type, title and STAC role of each product."""


def import_makers() -> None:
    """Import what makes the products, while workers start and compute: it takes a second or two."""
    import storage.pages.quicklook
    import storage.pages.run_report
    import storage.products.cog
    import storage.products.polygons
    import storage.products.stac  # noqa: F401


class PairProducts:
    """Makes the products of one pair unless they stand already, and verifies every block on the way."""

    def __init__(
        self,
        products: ProductLedger[Any],
        reader: SeriesReader,
        verifier: BlockVerifier,
        *,
        threshold: float,
        min_area_m2: float,
        stored: Callable[[], Iterable[StoredImage]],
        ingested: Callable[[], Ledger],
    ) -> None:
        """`stored`: the imagery that a picture is made of; `ingested`: its ledger."""
        self._products, self._reader, self._verifier = products, reader, verifier
        self._threshold, self._min_area_m2 = threshold, min_area_m2
        self._stored, self._ingested = stored, ingested

    def make_probability(self, parameters: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The COG; returns its facts, with a ``histogram`` of the 256 stored values; `tags`: what the file says."""

        def make(path: Location) -> dict[str, Any]:
            from storage.products.cog import write_cog

            result = write_cog(self._reader, path, check=self._verifier, conclude=self._verifier.conclude, tags=tags)
            return {**asdict(result), "valid_pixels": result.valid_pixels}

        return self._products.make("probability", make, parameters=dict(parameters))

    def make_changes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The polygons; returns ``count`` and ``area_m2``."""

        def make(path: Location) -> dict[str, Any]:
            from storage.products.polygons import write_changes

            return asdict(
                self._verified(
                    lambda: write_changes(self._reader, path, threshold=self._threshold, min_area_m2=self._min_area_m2)
                )
            )

        return self._products.make("changes", make, parameters=dict(parameters))

    def make_quicklook(self, parameters: Mapping[str, Any], *, captions: tuple[str, str, str]) -> None:
        """Both dates and the probability in one picture."""

        def make(path: Location) -> None:
            from storage.pages.quicklook import write_quicklook

            write_quicklook(path, self.looks, captions=captions)

        self._products.make("quicklook", make, parameters=dict(parameters))

    @cached_property
    def looks(self) -> Quicklooks:
        """Both dates and the probability, small."""
        from storage.pages.quicklook import make_quicklooks

        with looking_at(self._stored(), ingested=self._ingested):
            return self._verified(lambda: make_quicklooks(self._reader, threshold=self._threshold))

    def make_item(self, parameters: Mapping[str, Any], **facts: Any) -> None:
        """The STAC item; `facts` as in :func:`storage.products.stac.write_item`."""
        digests = {name: self._products.digest(name) for name in _KINDS if self._products.has(name)}

        def make(path: Location) -> None:
            from storage.products.stac import ItemAsset, write_item

            assets = [
                ItemAsset(
                    key=name,
                    path=self._products.path(name),
                    sha256=digests[name],
                    media_type=media_type,
                    title=title,
                    roles=[role],
                )
                for name, (media_type, title, role) in _KINDS.items()
                if name in digests
            ]
            write_item(path, assets=assets, software=versions(), **facts)

        self._products.make("item", make, parameters={**parameters, "assets": digests})

    def _verified(self, read: Callable[[], T]) -> T:
        """Read the pair; where that fails, set back the blocks that storage has lost; the error names them."""
        try:
            return read()
        except IntegrityError:
            self._verifier.look(self._reader)
            self._verifier.conclude()
            raise
