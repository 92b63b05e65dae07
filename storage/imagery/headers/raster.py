"""The header of a raster that GDAL reads: bands, values, validity, place; few small windows of it are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from storage.errors import EmptyRasterError, InputError
from storage.imagery.band_names import band_in_file_name, common_name_in, describe_bands, is_mask_name, micrometres
from storage.imagery.dates.acquisition import date_of
from storage.imagery.description import NOTHING_SAID, Band, Overrides
from storage.imagery.headers.checks import check_header, decoding_note
from storage.imagery.headers.look import edge_note, has_a_valid_pixel, has_mask, looks_like_a_mask
from storage.imagery.headers.placement import Placement, placement_of
from storage.imagery.sources import Header, Source, is_remote, open_with_allowed_driver
from storage.imagery.validity import nodata_rule
from storage.imagery.values import require_readable, require_scales
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.gdal import gdal_settings, plain_name

_PALETTE_NAMES = ("red", "green", "blue")
_FACTS = (
    "TIFFTAG_SOFTWARE",
    "PROCESSING_LEVEL",
    "PROCESSING_BASELINE",
    "SATELLITEID",
    "PRODUCT_TYPE",
    "DATATAKE_1_SPACECRAFT_NAME",
)


def open_raster(path: str, said: Overrides, *, look: bool) -> Header:
    """Open the header of a file or URL.

    Args:
        said: what the user says of it.
        look: look for a valid pixel and a black edge; not worth it for each of many tiles.

    Raises:
        InputError: naming the path and what is wrong with it.
    """
    _require_content(path)
    with rasterio.Env(**gdal_settings(is_planning=True)), open_with_allowed_driver(path) as dataset:
        absent = check_header(dataset, path)
        placement = placement_of(dataset, path)
        header = _described(dataset, path, said, placement, what="a mosaic")
        if absent and header.source.validity is not None and header.source.validity.says_nothing:
            word = (
                f"{absent:,} of its tiles are not in the file (it is sparse) and no nodata is declared: read as 0; "
                "--nodata 0 reads them as no data"
            )
            header = replace(header, doubts=(*header.doubts, word))
        tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
        header = replace(header, acquired=date_of(path, tags, said.date_pattern))
        # last, because GDAL's error from a pixel that cannot be read surfaces again in the next call on this dataset
        return _looked_at(dataset, header) if look else header


def open_picture(dataset: DatasetReader, path: str, said: Overrides = NOTHING_SAID) -> Header:
    """The header of a picture without georeferencing: its grid has no CRS, and pixels as coordinates."""
    check_header(dataset, path)
    grid = GeoBox(dataset.shape, Affine.identity(), None)
    return _described(dataset, path, said, Placement(grid=grid), what="an image")


def _described(dataset: DatasetReader, path: str, said: Overrides, placement: Placement, *, what: str) -> Header:
    numbers, alpha, doubts = _image_bands(dataset, path, said)
    dtype = _common_type(dataset, numbers, path, what=what)
    bands, guesses = _bands(dataset, numbers, path, said)
    rule, odd = nodata_rule(dtype, [band.nodata for band in bands], alpha=alpha, mask=has_mask(dataset))
    palette = _palette(dataset, numbers, path)
    if palette:
        bands = tuple(Band(name=name, named_by="palette", common_name=name) for name in _PALETTE_NAMES)
        doubts += ("its values are numbers of a palette: read as the colours of that palette",)
    return Header(
        source=Source(
            path=path,
            grid=placement.grid,
            files=tuple(map(plain_name, dataset.files)) or (path,),
            driver=dataset.driver,
            image_bands=numbers,
            bands=bands,
            validity=rule,
            palette=palette,
            flip_y=placement.flip_y,
            flip_x=placement.flip_x,
        ),
        dtype=dtype,
        facts=_facts(dataset),
        doubts=doubts + guesses + odd + tuple(filter(None, [decoding_note(dataset, path)])),
    )


def _looked_at(dataset: DatasetReader, header: Header) -> Header:
    source = header.source
    assert source.validity is not None
    if not has_a_valid_pixel(dataset, source.validity, source.image_bands):
        raise EmptyRasterError(f"{source.path} has no valid pixel: all of it is nodata")
    edge = "" if source.palette else edge_note(dataset, source.validity, source.image_bands)
    return replace(header, doubts=(*header.doubts, edge)) if edge else header


def _image_bands(
    dataset: DatasetReader, path: str, said: Overrides
) -> tuple[tuple[int, ...], int | None, tuple[str, ...]]:
    """Rasterio's numbers (from 1) of the bands that are imagery, that of the one that is a mask, and doubts.

    Raises:
        InputError: the user names a band that the file does not have.
    """
    everything = tuple(range(1, dataset.count + 1))
    if said.alpha is not None:
        if said.alpha > dataset.count or (said.alpha and dataset.count == 1):
            raise InputError(f"--alpha {said.alpha}: {path} has {dataset.count} band{'s' * (dataset.count != 1)}")
        return tuple(n for n in everything if n != said.alpha), said.alpha or None, ()
    doubts: list[str] = []
    alpha = None
    for number in everything:
        described = dataset.descriptions[number - 1] or ""
        is_marked = dataset.colorinterp[number - 1] == ColorInterp.alpha
        if described and common_name_in(described, path):
            continue  # somebody wrote what it is
        if not (is_marked or is_mask_name(described)):
            if "mask" in described.lower() and dataset.count > 1:
                doubts.append(
                    f"band {number} is called {described}: read as a band; --alpha {number} leaves out the pixels "
                    "where it is 0"
                )
            continue
        if dataset.count == 1 or alpha is not None or not looks_like_a_mask(dataset, number):
            what = "marked as alpha" if is_marked else f"called {described}"
            default = " (GDAL marks the fourth of four bands so by default)" if is_marked and number == 4 else ""
            doubts.append(
                f"band {number} is {what}, but holds the values of an image{default}: read as a band; --alpha {number} "
                "reads it as a mask, --alpha 0 says it is none"
            )
            continue
        alpha = number
    return tuple(n for n in everything if n != alpha), alpha, tuple(doubts)


def _common_type(dataset: DatasetReader, numbers: tuple[int, ...], path: str, *, what: str) -> str:
    """The type of these bands (rasterio's numbers).

    Raises:
        InputError: there is none, their types differ, or it is not one that is read.
    """
    dtypes = {dataset.dtypes[number - 1] for number in numbers}
    if len(dtypes) != 1:
        raise InputError(f"{path} holds {', '.join(sorted(dtypes)) or 'nothing but a mask'}; {what} has one type")
    dtype = dtypes.pop()
    require_readable(dtype, path, what=what)
    return dtype


def _require_content(path: str) -> None:
    if path.startswith(SCHEME):
        facts = ObjectPath.parse(path).facts()
        if facts is None or not facts.size:
            raise InputError(f"{path} " + ("does not exist" if facts is None else "is empty (0 bytes)"))
    elif not is_remote(path):
        if not Path(path).exists():
            raise InputError(f"{path} does not exist")
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise InputError(f"{path} is empty (0 bytes)")
        if path.lower().endswith(".vrt"):
            raise InputError(f"{path} is a VRT, which may name any other file: give the list of its files instead")


def _bands(
    dataset: DatasetReader, numbers: tuple[int, ...], path: str, said: Overrides
) -> tuple[tuple[Band, ...], tuple[str, ...]]:
    tags = {number: {**dataset.tags(number), **dataset.tags(number, ns="IMAGERY")} for number in numbers}
    own = dataset.tags()
    descriptions = [dataset.descriptions[number - 1] or tags[number].get("DESCRIPTION") for number in numbers]
    file_name = Path(path).name
    context = " ".join([file_name, *(own[key] for key in ("SPACECRAFT_ID", "PLATFORM", "satellite") if key in own)])
    named_by_file = band_in_file_name(file_name) if len(numbers) == 1 and not any(descriptions) else None
    bands, doubts = describe_bands(
        descriptions=[named_by_file] if named_by_file else descriptions,
        colours=[dataset.colorinterp[number - 1].name for number in numbers],
        wavelengths=[_wavelength(tags[number]) for number in numbers],
        numbers=numbers,
        context=context,
        named_by="file" if named_by_file else "description",
    )
    described = tuple(
        replace(
            band,
            scale=dataset.scales[number - 1],
            offset=dataset.offsets[number - 1],
            nodata=dataset.nodatavals[number - 1] if said.nodata is None else said.nodata,
        )
        for band, number in zip(bands, numbers, strict=True)
    )
    require_scales(described, path)
    return described, doubts


def _wavelength(tags: Mapping[str, str]) -> float | None:
    """Micrometres, from what GDAL's drivers and ENVI headers say of a band."""
    if "CENTRAL_WAVELENGTH_UM" in tags:
        return micrometres(tags["CENTRAL_WAVELENGTH_UM"], "um")
    lower = {key.lower(): value for key, value in tags.items()}
    value = lower.get("wavelength") or lower.get("center_wavelength") or lower.get("central_wavelength")
    return micrometres(value, lower.get("wavelength_units", lower.get("wavelength_unit", "")))


def _palette(dataset: DatasetReader, numbers: tuple[int, ...], path: str) -> tuple[tuple[int, int, int, int], ...]:
    """Red, green, blue and opacity of every value of a raster of one band whose values are numbers of colours."""
    if len(numbers) != 1 or dataset.colorinterp[numbers[0] - 1] != ColorInterp.palette:
        return ()
    if dataset.dtypes[numbers[0] - 1] != "uint8":
        raise InputError(
            f"{path} has a palette of more than 256 colours: expand it to bands (gdal_translate -expand rgb)"
        )
    colours = dataset.colormap(numbers[0])
    # a value beyond the palette is no colour
    return tuple(tuple(colours.get(value, (0, 0, 0, 0))) for value in range(256))


def _facts(dataset: DatasetReader) -> Mapping[str, str]:
    """What a person wants to know of how a file is stored and was processed."""
    facts = {"format": dataset.driver}
    if dataset.compression is not None:
        facts["compression"] = dataset.compression.name
    rows, cols = dataset.block_shapes[0]
    facts["tiles"] = f"{cols} × {rows} px"
    if bits := dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"):
        facts["bits"] = bits
    try:
        if overviews := dataset.overviews(1):
            facts["overviews"] = ", ".join(map(str, overviews))
    except RasterioError:
        pass
    tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    return {**facts, **{key.lower(): tags[key] for key in _FACTS if tags.get(key)}}
