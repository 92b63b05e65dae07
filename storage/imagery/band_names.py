"""What a raster calls its bands, and what they see: descriptions, wavelengths, colours, names of satellites' bands.

A description that somebody wrote is worth more than a colour, which GDAL gives to any three bytes by default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from storage.imagery.description import Band, NamedBy

_RANGES: Mapping[str, tuple[float, float]] = {
    "coastal": (0.40, 0.455),
    "blue": (0.455, 0.525),
    "green": (0.525, 0.60),
    "yellow": (0.60, 0.625),
    "red": (0.625, 0.69),
    "rededge": (0.69, 0.79),
    "nir": (0.79, 0.90),
    "nir09": (0.93, 0.96),
    "cirrus": (1.36, 1.39),
    "swir16": (1.55, 1.75),
    "swir22": (2.05, 2.35),
    "lwir": (8.0, 14.0),
}
"""Micrometres between which the middle of a band lies that has this common name (STAC's eo extension, no overlap)."""

COMMON_NAMES = frozenset(_RANGES) | {"nir08", "pan", "lwir11", "lwir12", "rededge071", "rededge075", "rededge078"}

_PHRASES: tuple[tuple[str, str], ...] = (
    # longer phrases first: a red edge is no red
    (r"red\s*edge(?:\s*\d+)?", "rededge"),
    (r"near\s*infra\s*red(?:\s*\d+)?|nir\s*1?|infrared|pir", "nir"),
    (r"(?:narrow|nir)\s*(?:nir|8a|08)|nir\s*narrow", "nir08"),
    (r"nir09|water\s*vapou?r", "nir09"),
    (r"swir\s*1?6|swir\s*1|short\s*wave\s*infra\s*red\s*1", "swir16"),
    (r"swir\s*2?2|swir\s*2|short\s*wave\s*infra\s*red\s*2", "swir22"),
    (r"coastal(?:\s*(?:aerosol|blue))?", "coastal"),
    (r"panchromatic|pan", "pan"),
    (r"thermal(?:\s*infra\s*red)?(?:\s*\d+)?|lwir\d*|tirs?\d*", "lwir"),
    (r"cirrus", "cirrus"),
    (r"yellow", "yellow"),
    (r"blue|bleue?|blau|azul|blu", "blue"),
    (r"green|verte?|gruen|grün|verde", "green"),
    (r"red|rouge|rot|rojo|rosso|vermelho", "red"),
)

_SENTINEL_2 = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge",
    "6": "rededge",
    "7": "rededge",
    "8": "nir",
    "8a": "nir08",
    "9": "nir09",
    "10": "cirrus",
    "11": "swir16",
    "12": "swir22",
}
_OLI = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "nir08",
    "6": "swir16",
    "7": "swir22",
    "8": "pan",
    "9": "cirrus",
    "10": "lwir",
    "11": "lwir",
}
_HLS_LANDSAT = {**_OLI, "8": "", "9": "cirrus"}
_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir08", "5": "swir16", "6": "lwir", "7": "swir22", "8": "pan"}

_SENSORS: tuple[tuple[str, Mapping[str, str]], ...] = (
    (
        r"HLS[._]?S30|S2[ABC](?![a-z0-9])|S2[ABC]?[_-]|sentinel[-_ ]?2|MSIL[12]|(?<![A-Z0-9])T\d\d[A-Z]{3}_\d{8}",
        _SENTINEL_2,
    ),
    (r"HLS[._]?L30", _HLS_LANDSAT),
    (r"L[COT]0[89]|landsat[-_ ]?[89]|(?<![a-z])OLI(?![a-z])", _OLI),
    (r"L[TEM]0[4-7]|L[TEM][4-7]\d{6}|landsat[-_ ]?[4-7]|(?<![a-z])E?TM\+?(?![a-z])", _TM),
)

_CODE = re.compile(r"(?<![a-z0-9])b(and)?[ -]?(8a|0?[1-9]|1[0-2])(?![a-z0-9])", re.IGNORECASE)
_GENERIC = re.compile(r"(?:band|layer|channel|gray|grey|undefined)?[ _-]*\d*", re.IGNORECASE)
_MASK = re.compile(r"alpha(?: band| channel| mask)?|opacity|data ?mask|valid(?:ity)?(?: ?mask)?")
_LETTERS = {"r": "red", "g": "green", "b": "blue", "n": "nir"}


def describe_bands(
    *,
    descriptions: Sequence[str | None],
    colours: Sequence[str | None],
    wavelengths: Sequence[float | None],
    numbers: Sequence[int] = (),
    context: str = "",
    named_by: NamedBy = "description",
) -> tuple[tuple[Band, ...], tuple[str, ...]]:
    """Bands by what a header says of each, in their order; and what was guessed, in words.

    Args:
        descriptions: names written into the file.
        colours: GDAL's colour interpretations.
        wavelengths: micrometres.
        numbers: of the bands in their file, after which those without a name are called; default: from 1.
        context: file name and metadata that may tell the satellite.
        named_by: where the descriptions come from.
    """
    texts = [text.strip() if text else "" for text in descriptions]
    named = [bool(text) and not _is_generic(text) for text in texts]
    letters = _of_letters(texts)
    bands, guessed, coloured = [], [], []
    for place, (text, is_named, colour, wavelength) in enumerate(zip(texts, named, colours, wavelengths, strict=True)):
        common = (letters[place] if letters else None) or _common_in_words(text)
        wavelength = wavelength or _written_wavelength(text)
        if common is None and is_named:
            common, guess = _of_a_satellite(text, context)
            if guess and (measured := common_name_of(wavelength)):
                common = measured
            elif guess:
                guessed.append(f"{text} as {common}")
        common = common or common_name_of(wavelength)
        if is_named:
            # GDAL gives colours to any three bytes: they say something only where no description does
            is_colour = common is None and colour in COMMON_NAMES and not any(map(_speaks, texts))
            if is_colour and text.lower() != colour:
                coloured.append(f"{text} as {colour}")
            bands.append(
                Band(
                    name=text,
                    named_by=named_by,
                    common_name=colour if is_colour else common,
                    wavelength=wavelength,
                )
            )
        elif common is not None:
            by: NamedBy = "wavelength" if wavelength is not None else named_by
            bands.append(Band(name=text or common, named_by=by, common_name=common, wavelength=wavelength))
        elif colour in COMMON_NAMES and not any(named) and not any(wavelengths):
            bands.append(Band(name=str(colour), named_by="colour", common_name=colour))
        else:
            bands.append(Band(name=f"band{numbers[place] if numbers else place + 1}", wavelength=wavelength))
    doubts: tuple[str, ...] = (
        (f"bands are taken for those of Sentinel-2 or Landsat 8/9: {', '.join(guessed)}; --bands settles it",)
        if guessed
        else ()
    )
    if coloured:
        doubts += (f"names of bands do not say what they are, colours do: {', '.join(coloured)}; --bands settles it",)
    return tuple(bands), doubts


def common_name_of(wavelength: float | None) -> str | None:
    """The common name of a band by its middle, micrometres."""
    if wavelength is None:
        return None
    return next((name for name, (low, high) in _RANGES.items() if low <= wavelength < high), None)


def micrometres(value: str | float | None, unit: str = "") -> float | None:
    """A wavelength in micrometres, whatever it was written in; by its size where no unit is known."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if not number > 0:
        return None
    word = unit.lower()
    if word.startswith(("nano", "nm")) or (not word and number > 100):
        return number / 1000
    return number if number < 100 else None


def is_mask_name(text: str) -> bool:
    """Whether a band is called what only a mask of validity is: 0 where nothing is valid."""
    return _MASK.fullmatch(re.sub(r"[^a-z]+", " ", text.lower()).strip()) is not None


def band_in_file_name(name: str) -> str | None:
    """The band that a file of one band is named after (``B02``, ``nir``, ``band_4``); None = none."""
    codes = list(dict.fromkeys(match.group(0) for match in _CODE.finditer(_spaced(name))))
    if len(codes) == 1:
        return codes[0].strip()
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word.lower() in COMMON_NAMES | {"swir1", "swir2"}]
    return words[0] if len(set(words)) == 1 else None


def _written_wavelength(text: str) -> float | None:
    """Micrometres where a name has one wavelength in it (``665 nm``, ``0.49 um``)."""
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(nm|nanomet\w*|[uµμ]m|micromet\w*)\b", text, re.IGNORECASE)
    return micrometres(found[0][0], found[0][1]) if len(found) == 1 else None


def common_name_in(text: str, context: str = "") -> str | None:
    """What a band called so sees; None = its name does not say."""
    return _common_in_words(text) or _of_a_satellite(text, context)[0] or common_name_of(_written_wavelength(text))


def _spaced(text: str) -> str:
    return re.sub(r"_", " ", text)


def _is_generic(text: str) -> bool:
    return _GENERIC.fullmatch(text) is not None


def _speaks(text: str) -> bool:
    return _common_in_words(text) is not None


def _common_in_words(text: str) -> str | None:
    """The one common name whose phrase stands in a text; two of them, as in "red minus nir", say nothing."""
    # CamelCase is words
    lower = re.sub(r"[^a-zü0-9]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text).lower()).strip()
    if lower.replace(" ", "") in COMMON_NAMES:
        return lower.replace(" ", "")
    found = []
    for pattern, common in _PHRASES:
        lower, count = re.subn(rf"\b(?:{pattern})\b", " ", lower)
        if count:
            found.append(common)
    return found[0] if len(found) == 1 else None


def _of_letters(texts: Sequence[str]) -> list[str] | None:
    """Names where bands are called by letters R, G, B, N, also as ``BAND_R``, or beside them by words as NIR."""
    letters = [re.sub(r"^band|[^a-z]+", "", text.lower()) for text in texts]
    names = [_LETTERS.get(letter) or _common_in_words(letter) for letter in letters]
    if sum(letter in _LETTERS for letter in letters) > 1 and None not in names and len(set(names)) == len(names):
        return [name for name in names if name]
    return None


def _of_a_satellite(text: str, context: str) -> tuple[str | None, bool]:
    """What a satellite's band of that number sees, and whether the satellite is a guess."""
    codes = {(match.group(2).lower(), match.group(1)) for match in _CODE.finditer(_spaced(text))}
    if len(codes) != 1:
        return None, False
    code, word = codes.pop()
    table = next((table for pattern, table in _SENSORS if re.search(pattern, f"{text} {context}", re.IGNORECASE)), None)
    number = code.lstrip("0")
    if table is not None:
        return table.get(number) or None, False
    if word:  # "band 4" is the fourth of any file
        return None, False
    is_certain = (code.startswith("0") and number in ("2", "3", "4")) or number == "8a"
    if is_certain or code in ("08", "12", "01"):
        return _SENTINEL_2[number], not is_certain
    # the three that Sentinel-2 and Landsat 8/9 share; other numbers are other bands there
    return (_SENTINEL_2[number], True) if number in ("2", "3", "4") else (None, False)
