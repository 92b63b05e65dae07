"""Tables that name rasters: GDAL's tile indexes, and items of STAC in a GeoParquet file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from storage.errors import InputError
from storage.imagery.names.local import name_beside
from storage.imagery.names.shown import shown
from storage.imagery.sources import RASTER_SUFFIXES, is_remote
from storage.text import decoded

PARQUET_SUFFIXES = (".parquet", ".geoparquet")
INDEX_SUFFIXES = (".gpkg", ".shp", ".geojson", ".fgb", ".gti", *PARQUET_SUFFIXES)

_LOCATION = "location"
_NO_IMAGERY = {"thumbnail", "overview", "metadata"}


def is_index(path: str) -> bool:
    """Whether a name is that of a table of rasters."""
    return path.lower().endswith(INDEX_SUFFIXES)


def indexed_names(path: str) -> list[str]:
    """Names of the rasters that a local table has, in its order, relative ones by its folder.

    Raises:
        InputError: naming the table: it cannot be read, or says of a row not which one raster it stands for.
    """
    if path.lower().endswith(PARQUET_SUFFIXES):
        names = list(_names_in_parquet(path))
    elif path.lower().endswith(".gti"):
        names = _names_in_gti(path)
    else:
        names = _names_in_layer(path, layer=None, field=_LOCATION)
    if not names:
        raise InputError(f"{shown(path)} lists no file")
    return [name_beside(Path(path).parent, name) for name in names]


def _names_in_layer(path: str, *, layer: str | None, field: str) -> list[str]:
    import pyogrio  # a plan without a table need not wait for it
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        layer = layer or _layer_with(path, field)
        fields = {str(name).lower(): str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]}
        if field.lower() not in fields:
            raise InputError(
                f"{shown(path)} is no tile index: it has no field {field!r}, but {', '.join(fields.values()) or 'none'}"
            )
        column = fields[field.lower()]
        _, table = pyogrio.read_arrow(path, layer=layer, columns=[column], read_geometry=False)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown(path)} cannot be read as a tile index: {error}") from error
    return _texts(table.column(column).to_pylist(), path, field)


def _layer_with(path: str, field: str) -> str | None:
    """The one layer of several that has the field; None where there is one layer, or none of them has it."""
    import pyogrio

    layers = [str(name) for name, _ in pyogrio.list_layers(path)]
    found = [
        name
        for name in (layers if len(layers) > 1 else ())
        if field.lower() in {str(own).lower() for own in pyogrio.read_info(path, layer=name)["fields"]}
    ]
    if len(found) > 1:
        raise InputError(f"{shown(path)} holds {len(found)} tile indexes ({', '.join(found)}): give each its own file")
    return found[0] if found else None


def _texts(values: list[Any], path: str, field: str) -> list[str]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{shown(path)}: {field} of row {number} is {value!r}, not the name of a raster")
    return [value.strip() for value in values]


def _names_in_gti(path: str) -> list[str]:
    """GDAL's own description of an index: where the table is, and which field."""
    text = decoded(Path(path).read_bytes(), path=shown(path))
    try:
        if "<!" in text.replace("<!--", ""):
            raise ValueError("it declares a document type or entities")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{shown(path)} cannot be read as a tile index: {error}") from error
    said = {str(child.tag): (child.text or "").strip() for child in root}
    unknown = sorted(said.keys() - {"IndexDataset", "IndexLayer", "LocationField"})
    if unknown or not said.get("IndexDataset") or is_remote(said["IndexDataset"]):
        raise InputError(
            f"{shown(path)}: a tile index is read where it is no more than a list of files; "
            + (f"its {unknown[0]} is not understood" if unknown else "its IndexDataset is no local table")
            + ": give the list of its files instead"
        )
    table = Path(path).parent / said["IndexDataset"]
    names = _names_in_layer(
        str(table), layer=said.get("IndexLayer") or None, field=said.get("LocationField") or _LOCATION
    )
    return [name if is_remote(name) else str((table.parent / name).absolute()) for name in names]


def _names_in_parquet(path: str) -> Iterator[str]:
    for item in rows_of_parquet(path):
        if isinstance(location := item.get(_LOCATION), str):
            yield location
            continue
        assets = item.get("assets")
        rasters = {
            name: str(asset["href"])
            for name, asset in (assets.items() if isinstance(assets, Mapping) else ())
            if isinstance(asset, Mapping) and asset.get("href") and is_raster_asset(asset)
        }
        data = {
            name: href
            for name, href in rasters.items()
            if "data" in (assets[name].get("roles") or ())  # type: ignore[index]
        } or rasters
        if len(data) != 1:
            raise InputError(
                f"{shown(path)}: item {item.get('id')} has {len(data)} raster assets "
                f"({', '.join(sorted(data)) or 'none'}): as an archive, --asset says which one is meant"
            )
        yield next(iter(data.values()))


def is_raster_asset(asset: Mapping[str, Any]) -> bool:
    """Whether a STAC asset is imagery by its roles, its media type and its name."""
    roles = asset.get("roles")
    if _NO_IMAGERY & {role for role in ([roles] if isinstance(roles, str) else roles or ()) if isinstance(role, str)}:
        return False
    kind = str(asset.get("type") or "").lower()
    if kind:
        return kind.startswith(("image/tiff", "image/jp2", "application/x-geotiff", "image/vnd.stac.geotiff"))
    return str(asset.get("href")).lower().endswith(RASTER_SUFFIXES)


def holds_items(path: str) -> bool:
    """Whether a local Parquet file has the assets of STAC items."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return "assets" in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False


def rows_of_parquet(path: str) -> Iterator[dict[str, Any]]:
    """Rows of a local GeoParquet file as they lie in it, values that are null left out.

    Raises:
        InputError: naming the file: it is no Parquet, or has neither assets nor location.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = set(file.schema_arrow.names)
            if not columns & {"assets", _LOCATION}:
                raise InputError(
                    f"{shown(path)} is no list of rasters: it has neither assets (stac-geoparquet) nor location, but "
                    f"{', '.join(sorted(columns)) or 'nothing'}"
                )
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield {name: value for name, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{shown(path)} cannot be read as Parquet: {error}") from error
