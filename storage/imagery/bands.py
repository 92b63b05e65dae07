"""Which bands of an image are meant: by number, by name, or by position where names say nothing against it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from storage.errors import InputError
from storage.imagery.mosaics import Mosaic

_COLOURS = {
    "coastal",
    "blue",
    "green",
    "yellow",
    "red",
    "rededge",
    "nir",
    "nir08",
    "nir09",
    "swir16",
    "swir22",
    "pan",
    "cirrus",
    "lwir",
}
"""Names that say what a band is: STAC's common names (eo extension)."""


def select_bands(mosaic: Mosaic, targets: Sequence[str], explicit: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers (from 1, without alpha) of the bands of `mosaic` that are the `targets`, in that order.

    By the user's numbers; else as :func:`matching_bands` finds them.

    Raises:
        InputError: saying what both sides have.
    """
    if explicit is None:
        return matching_bands(
            mosaic.bands,
            targets,
            has=mosaic.label,
            needs="the bundle",
            otherwise="say with --bands which ones they are, in this order",
        )
    if len(explicit) != len(targets):
        raise InputError(
            f"--bands names {len(explicit)} bands, but the bundle needs {len(targets)} ({', '.join(targets)})"
        )
    if beyond := [number for number in explicit if not 1 <= number <= len(mosaic.bands)]:
        raise InputError(
            f"--bands asks for {', '.join(map(str, beyond))}, but {mosaic.label} has {len(mosaic.bands)} bands "
            f"({', '.join(mosaic.bands)})"
        )
    return tuple(explicit)


def matching_bands(
    names: Sequence[str], targets: Sequence[str], *, has: str, needs: str, otherwise: str
) -> tuple[int, ...]:
    """Numbers (from 1) of the bands called `names` that are the `targets`, in that order.

    By name, where each target is exactly one name, or a word of exactly one. Else by position, where the counts are
    equal and the names do not speak against it: (nir, red, green) is not (red, green, blue), (B04, B03, B02) and bands
    without names may be.

    Args:
        has, needs: for messages, whose bands `names` and `targets` are; `otherwise`: what a user can do.

    Raises:
        InputError: saying what both sides have.
    """
    in_order = tuple(range(1, len(targets) + 1))
    own, sought = ([name.lower() for name in some] for some in (names, targets))
    if own == sought:
        return in_order
    by_name = [_numbers_of(name, own) for name in sought]
    if all(len(numbers) == 1 for numbers in by_name) and len({number for (number,) in by_name}) == len(sought):
        return tuple(number for (number,) in by_name)
    contradicted = any(
        position not in numbers and (numbers or (_COLOURS & {name} and _COLOURS & _words(own_name)))
        for position, (name, own_name, numbers) in enumerate(zip(sought, own, by_name, strict=False), start=1)
    )
    if len(names) == len(targets) and not contradicted:
        return in_order
    raise InputError(
        f"{has} has {len(names)} bands ({', '.join(names)}), {needs} needs {len(targets)} ({', '.join(targets)}): "
        f"{otherwise}"
    )


def common_bands(
    first: Mosaic, second: Mosaic, explicit: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers (from 1, without alpha) of the bands that both mosaics have, in the first one's order.

    By the user's numbers; else those whose names both have; else by position, where the counts are equal and one of
    the two at least has bands without a name.

    Raises:
        InputError: saying what both sides have.
    """
    if explicit is not None:
        twice = sorted({number for number in explicit if list(explicit).count(number) > 1})
        if twice or not explicit:
            raise InputError(f"--bands {','.join(map(str, explicit))} must name bands, each of them once")
        labels = [f"band {number}" for number in explicit]
        return select_bands(first, labels, explicit), select_bands(second, labels, explicit)
    if first.bands_are_named and second.bands_are_named:
        shared = [name for name in first.bands if first.bands.count(name) == 1 and second.bands.count(name) == 1]
        if shared:
            numbers_first, numbers_second = (
                tuple(mosaic.bands.index(name) + 1 for name in shared) for mosaic in (first, second)
            )
            return numbers_first, numbers_second
    if len(first.bands) != len(second.bands) or _names_differ(first, second):
        raise InputError(
            f"the two dates have different bands: {first.label} has {len(first.bands)} ({', '.join(first.bands)}), "
            f"{second.label} has {len(second.bands)} ({', '.join(second.bands)}); say with --bands which ones to use "
            "of both"
        )
    numbers = tuple(range(1, len(first.bands) + 1))
    return numbers, numbers


def same_bands(first: Mosaic, second: Mosaic, numbers: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the bands of `second` that are those of `first` with these numbers: by name where all have one.

    Raises:
        InputError: bands of two names, saying what both have.
    """
    names = [first.bands[number - 1] for number in numbers]
    if not _names_differ(first, second) or names == [second.bands[number - 1] for number in numbers]:
        return tuple(numbers)
    if all(second.bands.count(name) == 1 for name in names):
        return tuple(second.bands.index(name) + 1 for name in names)
    raise InputError(
        f"{first.label} has bands {', '.join(first.bands)}, {second.label} has {', '.join(second.bands)}: say with "
        "--bands which ones to use of both"
    )


def _names_differ(first: Mosaic, second: Mosaic) -> bool:
    """Whether all bands of both have names, and not the same in the same order."""
    return first.bands != second.bands and not any(_is_unnamed(name) for name in (*first.bands, *second.bands))


def _numbers_of(name: str, names: Sequence[str]) -> list[int]:
    """Which of `names` are this one; if none is, in which it is a word."""
    whole = [number for number, other in enumerate(names, start=1) if other == name]
    return whole or [number for number, other in enumerate(names, start=1) if name in _words(other)]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name))


def _is_unnamed(name: str) -> bool:
    return re.fullmatch(r"band\d+", name) is not None
