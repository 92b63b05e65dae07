"""The STAC item of a run: where, when, what, from what, and the checksum of each product."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pystac
from odc.geo.geobox import GeoBox

from storage.longitudes import footprint_of
from storage.places.bucket import Location
from storage.places.publish import publish
from tiling.conventions import NODATA, PROBABILITY_SCALE

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)

_SHA256_MULTIHASH = "1220"
"""The file extension wants multihashes: the code of SHA-256, and its length of 32 bytes."""


@dataclass(frozen=True, kw_only=True)
class ItemAsset:
    """One product: `path` next to the item, its SHA-256 as hex, media type, title and STAC roles."""

    key: str
    path: Location
    sha256: str
    media_type: str
    title: str
    roles: Sequence[str]


def write_item(
    path: Location,
    *,
    item_id: str,
    grid: GeoBox,
    start: datetime,
    end: datetime,
    assets: Sequence[ItemAsset],
    provenance: Mapping[str, Any],
    software: Mapping[str, str],
    made_by: str,
    collection: tuple[str, str] | None = None,
    derived_from: Sequence[str] = (),
) -> None:
    """Write a STAC item beside its assets.

    Args:
        start, end: naive UTC datetimes of the two dates.
        provenance: goes into the properties under ``dasnet:…``: inputs with digests, bundle, parameters, run key.
        software: names and versions (processing extension).
        made_by: what the probability comes from, as the item's lineage says it.
        collection: id of the collection it belongs to, and that one's address relative to the item.
        derived_from: addresses of the items that the imagery came from.
    """
    geometry, bounds = footprint_of(grid)
    item = pystac.Item(
        id=item_id,
        geometry=json.loads(json.dumps(geometry)),
        bbox=bounds,
        datetime=None,
        start_datetime=start.replace(tzinfo=UTC),
        end_datetime=end.replace(tzinfo=UTC),
        properties={
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "title": "Change probability between two dates",
            "processing:software": dict(software),
            "processing:lineage": f"Change probability by {made_by}",
            **{f"dasnet:{name}": value for name, value in provenance.items()},
            **_projection(grid),
        },
        stac_extensions=list(_EXTENSIONS),
    )
    for asset in assets:
        described = _asset(asset, relative_to=path.parent)
        if "data" in asset.roles and asset.media_type == pystac.MediaType.COG:
            described.extra_fields["raster:bands"] = [
                {
                    "name": "change_probability",
                    "data_type": "uint8",
                    "nodata": NODATA,
                    "scale": PROBABILITY_SCALE,
                    "offset": 0.0,
                    "spatial_resolution": abs(float(grid.resolution.x)),
                }
            ]
        item.add_asset(asset.key, described)
    if collection is not None:
        name, address = collection
        item.collection_id = name
        item.add_link(pystac.Link(pystac.RelType.COLLECTION, address, media_type=pystac.MediaType.JSON))
    for address in derived_from:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, address, media_type=pystac.MediaType.GEOJSON))
    content = item.to_dict(include_self_link=False, transform_hrefs=False)
    with publish(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n")


def write_collection(
    path: Location,
    *,
    collection_id: str,
    title: str,
    description: str,
    grid: GeoBox,
    span: tuple[datetime, datetime],
    items: Sequence[str],
    assets: Sequence[ItemAsset],
    summaries: Mapping[str, Any],
) -> None:
    """Write a STAC collection above its items.

    Args:
        grid: the grid of the whole region.
        span: naive UTC datetimes of the first and the last date.
        items: addresses relative to the collection.
        assets: products of the whole region, beside the collection or below it.
        summaries: values of properties over all items.
    """
    _, bounds = footprint_of(grid)
    start, end = (time.replace(tzinfo=UTC) for time in span)
    collection = pystac.Collection(
        id=collection_id,
        title=title,
        description=description,
        license="other",
        extent=pystac.Extent(pystac.SpatialExtent([bounds]), pystac.TemporalExtent([[start, end]])),
        summaries=pystac.Summaries(dict(summaries)),
        stac_extensions=[extension for extension in _EXTENSIONS if "/file/" in extension],
    )
    for asset in assets:
        collection.add_asset(asset.key, _asset(asset, relative_to=path.parent))
    for address in items:
        collection.add_link(pystac.Link(pystac.RelType.ITEM, address, media_type=pystac.MediaType.GEOJSON))
    content = collection.to_dict(include_self_link=False, transform_hrefs=False)
    with publish(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n")


def _asset(asset: ItemAsset, *, relative_to: Location) -> pystac.Asset:
    # a folder (Zarr) has no digest of its own
    extra: dict[str, Any] = {}
    if asset.sha256:
        extra = {"file:checksum": _SHA256_MULTIHASH + asset.sha256, "file:size": asset.path.stat().st_size}
    return pystac.Asset(
        href="./" + str(asset.path).removeprefix(f"{relative_to}/"),
        title=asset.title,
        media_type=asset.media_type,
        roles=list(asset.roles),
        extra_fields=extra,
    )


def _projection(grid: GeoBox) -> dict[str, Any]:
    assert grid.crs is not None
    code = grid.crs.to_epsg()
    system = {"proj:code": f"EPSG:{code}"} if code else {"proj:code": None, "proj:wkt2": grid.crs.to_wkt()}
    return {
        **system,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.affine)[:6],
        "proj:bbox": list(grid.extent.boundingbox),
    }
