"""A VRT of simple sources as the list of its files; whatever else a VRT may say is refused by name.

A VRT may name any file of a machine or of the net, and may compute whatever it likes. So it is never opened by GDAL:
its XML is read, and what it says of its files is compared with what they say of themselves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from affine import Affine
from odc.geo.crs import CRS
from rasterio.enums import ColorInterp

from storage.errors import InputError
from storage.imagery.names.shown import shown
from storage.imagery.sources import is_remote, open_with_allowed_driver
from storage.places.gdal import gdal_settings
from storage.reference_systems import crs_words, horizontal_crs, is_same_crs
from storage.text import decoded

_LARGEST_BYTES = 64 * 2**20
_PIXEL = 1e-3
"""Pixels by which a file may lie beside where the VRT places it."""

_OF_DATASET = {
    "SRS",
    "GeoTransform",
    "Metadata",
    "VRTRasterBand",
    "OverviewList",
    "MaskBand",
    "BlockXSize",
    "BlockYSize",
}
_OF_BAND = {
    "NoDataValue",
    "HideNoDataValue",
    "ColorInterp",
    "Description",
    "Metadata",
    "Scale",
    "Offset",
    "UnitType",
    "SimpleSource",
    "ComplexSource",
    "Histograms",
    "Overview",
}
_OF_SOURCE = {"SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect"}
_OF_COMPLEX_SOURCE = _OF_SOURCE | {"NODATA", "UseMaskBand"}

Rect = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class VrtFiles:
    """What a VRT lists.

    Attributes:
        stacks: (name, file) of the bands of each place, what lies on top first. The name is '' where the VRT
            has none, and for a file that has all bands.
        bands: names that the VRT gives its bands where its files have none; empty otherwise.
    """

    stacks: tuple[tuple[tuple[str, str], ...], ...]
    bands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """One source of one band.

    Attributes:
        file: absolute; band: its number in that file, from 1.
        source, target: x, y, width and height in pixels of the file and of the VRT; None = all of it.
        nodata: of the source, as text.
    """

    file: str
    band: int
    source: Rect | None
    target: Rect | None
    nodata: str | None


@dataclass(frozen=True, kw_only=True)
class _Band:
    """What the VRT says of one band: its sources, and the texts of its own elements."""

    pieces: tuple[_Piece, ...]
    said: dict[str, str]


def files_of_vrt(path: str) -> VrtFiles:
    """The files of a local VRT.

    Raises:
        InputError: naming the VRT and the element that no list of files can say.
    """
    root = _parsed(path)
    transform, crs = _georeferencing(root, path)
    size = (_size(root, "rasterXSize", path), _size(root, "rasterYSize", path))
    bands = [_band(element, path) for element in root.findall("VRTRasterBand")]
    if not bands:
        raise _refusal(path, "VRTRasterBand", "there is none")
    _require_own_masks(root, bands, path)
    names = tuple(band.said.get("Description", "") for band in bands)
    is_separate = (
        len(bands) > 1
        and all(len(band.pieces) == 1 for band in bands)
        and len({band.pieces[0].file for band in bands}) > 1
    )
    if not is_separate:
        _require_equal_bands(bands, path)
    files = list(dict.fromkeys(piece.file for band in bands for piece in band.pieces))
    with ThreadPoolExecutor() as pool:
        facts = dict(zip(files, pool.map(_facts, files), strict=True))
    for number, band in enumerate(bands, start=1):
        for piece in band.pieces:
            mine = facts[piece.file]
            if mine.count != (1 if is_separate else len(bands)):
                raise _refusal(path, "VRTRasterBand", f"there are {len(bands)}, {shown(piece.file)} has {mine.count}")
            _require_own_values(path, band, piece, mine)
            if number == 1 or is_separate:
                _require_own_place(path, piece, mine, transform, crs, size)
    if is_separate:
        return VrtFiles(stacks=(tuple((name, band.pieces[0].file) for name, band in zip(names, bands, strict=True)),))
    # GDAL draws the last source over the others; of a list the first file wins
    stacks = tuple((("", piece.file),) for piece in reversed(bands[0].pieces))
    have_own = any(name for mine in facts.values() for name in mine.descriptions)
    return VrtFiles(stacks=stacks, bands=names if all(names) and not have_own else ())


def _size(root: ElementTree.Element, key: str, path: str) -> float:
    try:
        return float(root.get(key, ""))
    except ValueError as error:
        raise _refusal(path, key, f"{root.get(key)!r} is no number") from error


def _require_equal_bands(bands: Sequence[_Band], path: str) -> None:
    for number, band in enumerate(bands, start=1):
        mine = [(piece.file, piece.source, piece.target) for piece in bands[0].pieces]
        if mine != [(piece.file, piece.source, piece.target) for piece in band.pieces]:
            raise _refusal(path, f"VRTRasterBand {number}", "the sources are not those of the first band")
        for piece in band.pieces:
            if piece.band != number:
                raise _refusal(path, f"SourceBand {piece.band}", f"band {number} is another one in {shown(piece.file)}")


def _require_own_masks(root: ElementTree.Element, bands: Sequence[_Band], path: str) -> None:
    files = {piece.file for band in bands for piece in band.pieces}
    for source in root.iterfind("MaskBand/VRTRasterBand/*"):
        if source.tag not in ("SimpleSource", "ComplexSource"):
            raise _refusal(path, f"MaskBand {source.tag}", "no file knows")
        name = source.find("SourceFilename")
        file = (
            _file((name.text or "").strip(), path, is_relative=name.get("relativeToVRT") == "1")
            if name is not None
            else ""
        )
        if file not in files or not (source.findtext("SourceBand") or "").startswith("mask"):
            raise _refusal(path, "MaskBand", "the mask is not that of its files")


def _refusal(path: str, element: str, why: str) -> InputError:
    return InputError(
        f"{shown(path)} is a VRT that says more than a list of whole files: {element}: {why}; give the list of its "
        "files instead, or make it a file (gdal_translate)"
    )


def _parsed(path: str) -> ElementTree.Element:
    if (size := Path(path).stat().st_size) > _LARGEST_BYTES:
        raise InputError(
            f"{shown(path)}: a VRT of {size:,} bytes is too long to be read: give the list of its files instead"
        )
    text = decoded(Path(path).read_bytes(), path=shown(path))
    if "<!" in text.replace("<!--", ""):  # entities can grow without end, or name files
        raise _refusal(path, "<!DOCTYPE", "nothing is read")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{shown(path)} cannot be read as a VRT: {error}") from error
    if root.tag != "VRTDataset":
        raise InputError(f"{shown(path)} cannot be read as a VRT: its root is {root.tag}, not VRTDataset")
    if "subClass" in root.attrib:
        raise _refusal(path, f"subClass {root.get('subClass')}", "pixels are computed")
    _require_known(root, _OF_DATASET, path)
    return root


def _require_known(element: ElementTree.Element, known: set[str], path: str) -> None:
    for child in element:
        if child.tag not in known:
            raise _refusal(path, str(child.tag), "no file knows")


def _georeferencing(root: ElementTree.Element, path: str) -> tuple[Affine, CRS]:
    numbers, srs = (root.findtext("GeoTransform") or "").split(","), (root.findtext("SRS") or "").strip()
    try:
        transform = Affine.from_gdal(*map(float, numbers))
    except (ValueError, TypeError) as error:
        raise _refusal(path, "GeoTransform", f"there are no six numbers: {','.join(numbers)[:80]!r}") from error
    if not srs:
        raise _refusal(path, "SRS", "there is nothing")
    return transform, horizontal_crs(srs)


def _band(element: ElementTree.Element, path: str) -> _Band:
    if "subClass" in element.attrib:
        raise _refusal(path, f"subClass {element.get('subClass')}", "pixels are computed")
    _require_known(element, _OF_BAND, path)
    pieces = tuple(_piece(child, path) for child in element if child.tag in ("SimpleSource", "ComplexSource"))
    if not pieces:
        raise _refusal(path, "VRTRasterBand", "there is no source")
    said = {str(child.tag): child.text.strip() for child in element if child.text and child.text.strip()}
    return _Band(pieces=pieces, said=said)


def _piece(element: ElementTree.Element, path: str) -> _Piece:
    _require_known(element, _OF_SOURCE if element.tag == "SimpleSource" else _OF_COMPLEX_SOURCE, path)
    name = element.find("SourceFilename")
    if name is None or not (name.text or "").strip():
        raise _refusal(path, "SourceFilename", "there is nothing")
    band = (element.findtext("SourceBand") or "1").strip()
    if not band.isdecimal():
        raise _refusal(path, f"SourceBand {shown(band)[:20]}", "only whole bands are read")
    return _Piece(
        file=_file(str(name.text).strip(), path, is_relative=name.get("relativeToVRT") == "1"),
        band=int(band),
        source=_rect(element.find("SrcRect"), path),
        target=_rect(element.find("DstRect"), path),
        nodata=element.findtext("NODATA"),
    )


def _file(name: str, path: str, *, is_relative: bool) -> str:
    if is_remote(name) or ":" in name.partition("/")[0] or name.startswith("<"):
        raise _refusal(path, f"SourceFilename {shown(name)[:80]}", "the file is no local one")
    folder = Path(path).absolute().parent
    file = Path(os.path.normpath(folder / name if is_relative else Path(name).absolute()))
    if not file.resolve().is_relative_to(folder.resolve()):
        raise _refusal(path, f"SourceFilename {shown(name)[:80]}", "the file lies outside of the VRT's folder")
    if file.suffix.lower() == ".vrt":
        raise _refusal(path, f"SourceFilename {shown(name)[:80]}", "the file is a VRT itself")
    if not file.is_file():
        raise InputError(f"{shown(path)} names {shown(str(file))}, which does not exist")
    return str(file)


def _rect(element: ElementTree.Element | None, path: str) -> Rect | None:
    if element is None:
        return None
    try:
        x, y, width, height = (float(element.get(key, "")) for key in ("xOff", "yOff", "xSize", "ySize"))
    except ValueError as error:
        raise _refusal(path, element.tag, f"there are no four numbers: {dict(element.attrib)}") from error
    return x, y, width, height


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return "nan" if value != value else value


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a file says of itself: `size` is (width, height); the tuples have one value a band."""

    crs: CRS | None
    transform: Affine
    size: tuple[float, float]
    nodata: tuple[float | str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str, ...]
    is_alpha: tuple[bool, ...]

    @property
    def count(self) -> int:
        return len(self.nodata)


def _facts(path: str) -> _Facts:
    with rasterio.Env(**gdal_settings(is_planning=True)), open_with_allowed_driver(path) as dataset:
        return _Facts(
            crs=horizontal_crs(dataset.crs.to_wkt()) if dataset.crs is not None else None,
            transform=dataset.transform,
            size=(float(dataset.width), float(dataset.height)),
            nodata=tuple(_number(str(value)) for value in dataset.nodatavals),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            descriptions=tuple((text or "").strip() for text in dataset.descriptions),
            is_alpha=tuple(meaning == ColorInterp.alpha for meaning in dataset.colorinterp),
        )


def _require_own_place(
    path: str, piece: _Piece, mine: _Facts, transform: Affine, crs: CRS, size: tuple[float, float]
) -> None:
    """Refuse a VRT that cuts or scales a file, or places it elsewhere than it lies by itself."""
    whole, name = (0.0, 0.0, *mine.size), shown(piece.file)
    if mine.crs is None or not is_same_crs(mine.crs, crs):
        raise _refusal(path, "SRS", f"{crs_words(crs)} is not that of {name}, {crs_words(mine.crs)}")
    if piece.source not in (None, whole):
        raise _refusal(path, "SrcRect", f"{piece.source} is a part of {name}, {whole}")
    target = piece.target or (0.0, 0.0, *size)
    if target[2:] != whole[2:]:
        raise _refusal(path, "DstRect", f"{target} has another size than {name}, {whole}")
    shift = ~transform * mine.transform
    scale = max(abs(shift.a - 1), abs(shift.e - 1), abs(shift.b), abs(shift.d)) * max(mine.size)
    if max(abs(shift.c - target[0]), abs(shift.f - target[1]), scale) > _PIXEL:
        raise _refusal(
            path,
            "DstRect",
            f"({target[0]:g}, {target[1]:g}) is not where {name} lies by itself, ({shift.c:.6g}, {shift.f:.6g})",
        )


def _require_own_values(path: str, band: _Band, piece: _Piece, mine: _Facts) -> None:
    """Refuse a VRT that takes a file's values otherwise than the file itself says."""
    number, name = piece.band - 1, shown(piece.file)
    if not 0 <= number < mine.count:
        raise _refusal(path, f"SourceBand {piece.band}", f"{name} has none, but {mine.count} bands")
    for element, text, value in (
        ("NoDataValue", band.said.get("NoDataValue"), mine.nodata[number]),
        ("NODATA", piece.nodata, mine.nodata[number]),
        ("Scale", band.said.get("Scale"), mine.scales[number]),
        ("Offset", band.said.get("Offset"), mine.offsets[number]),
    ):
        if text is not None and _number(text) != value:
            raise _refusal(path, f"{element} {text}", f"{name} says {value}")
    colour = band.said.get("ColorInterp")
    if colour is not None and (colour == "Alpha") != mine.is_alpha[number]:
        raise _refusal(path, f"ColorInterp {colour}", f"{name} says otherwise of its alpha band")
    description = band.said.get("Description")
    if description and mine.descriptions[number] not in ("", description):
        raise _refusal(path, f"Description {shown(description)[:40]}", f"{name} says {mine.descriptions[number]}")
