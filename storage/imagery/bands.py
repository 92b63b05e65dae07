"""Which bands of an image are meant: by number, name, what they see, or position where nothing speaks against it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from storage.errors import InputError
from storage.imagery.band_names import COMMON_NAMES, common_name_in
from storage.imagery.description import Band, band_words
from storage.imagery.mosaics import Mosaic

Numbers = tuple[int, ...]
"""Numbers of bands, from 1, without alpha."""


def select_bands(
    mosaic: Mosaic, targets: Sequence[str], explicit: Sequence[int] | None, *, option: str = "--bands"
) -> Numbers:
    """Numbers of the bands of `mosaic` that are the `targets`, in that order.

    By the user's numbers; else as :func:`matching_bands` finds them.

    Args:
        option: by which a user gives numbers, for messages.

    Raises:
        InputError: saying what both sides have.
    """
    if explicit is None:
        return matching_bands(
            mosaic.bands,
            targets,
            has=mosaic.label,
            needs="the bundle",
            otherwise=f"say with {option} which ones they are, in this order",
        )
    if len(explicit) != len(targets):
        raise InputError(
            f"{option} names {len(explicit)} bands, but the bundle needs {len(targets)} ({', '.join(targets)})"
        )
    return numbered_bands(mosaic, explicit, option)


def matching_bands(bands: Sequence[Band], targets: Sequence[str], *, has: str, needs: str, otherwise: str) -> Numbers:
    """Numbers of the `bands` that are the `targets`, in that order.

    By name, where each target is exactly one name, or a word of exactly one; else by what they see, as wavelengths,
    names of satellites' bands and colours tell it. Else by position, where the counts are equal and nothing speaks
    against it: (nir, red, green) is not (red, green, blue), bands without names may be.

    Args:
        has, needs: for messages, whose `bands` and `targets` are; `otherwise`: what a user can do.

    Raises:
        InputError: saying what both sides have.
    """
    own, sought = [band.name.lower() for band in bands], [name.lower() for name in targets]
    seen = [band.common_name for band in bands]
    wanted = [common_name_in(name) for name in targets]
    by_name = [_numbers_of(name, own) for name in sought]
    by_sight = [_numbers_seeing(name, seen) for name in wanted]
    for found in (by_name, by_sight, [one or other for one, other in zip(by_name, by_sight, strict=True)]):
        numbers = _one_each(found)
        if numbers is not None and not _contradicted(bands, wanted, numbers):
            return numbers
    in_order = tuple(range(1, len(targets) + 1))
    elsewhere = any(numbers and position not in numbers for position, numbers in zip(in_order, by_name, strict=True))
    if len(bands) == len(targets) and not elsewhere and not _contradicted(bands, wanted, in_order):
        return in_order
    raise InputError(
        f"{has} has {len(bands)} bands ({band_words(tuple(bands))}), {needs} needs {len(targets)} "
        f"({', '.join(targets)}): {otherwise}"
    )


def taken_by_position(mosaic: Mosaic, targets: Sequence[str], numbers: Numbers, *, option: str = "--bands") -> str:
    """A word where bands were matched by nothing but their place: their names do not say what they see."""
    unknown = [
        (target, band.name)
        for target, number in zip(targets, numbers, strict=True)
        for band in [mosaic.bands[number - 1]]
        if band.common_name is None and target.lower() not in _words(band.name.lower()) and common_name_in(target)
    ]
    if not unknown:
        return ""
    pairs = ", ".join(f"{name} as {target}" for target, name in unknown)
    return (
        f"{mosaic.label}: nothing says what its bands are, they are taken by their order: {pairs}; {option} settles it"
    )


def named_bands(names: Sequence[str]) -> tuple[Band, ...]:
    """Bands of which nothing but the names is known."""
    return tuple(
        Band(name=name)
        if re.fullmatch(r"band\d+", name)
        else Band(name=name, named_by="description", common_name=common_name_in(name))
        for name in names
    )


def common_bands(
    first: Mosaic, second: Mosaic, explicit: tuple[Sequence[int] | None, Sequence[int] | None]
) -> tuple[Numbers, Numbers]:
    """Numbers of the bands that both mosaics have, in the first one's order.

    By the user's numbers; else those whose names both have; else what they see; else by position, where the counts are
    equal and nothing speaks against it.

    Args:
        explicit: the user's numbers for each of the two.

    Raises:
        InputError: saying what both sides have.
    """
    for numbers in explicit:
        if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
            raise InputError(f"--bands {','.join(map(str, numbers))} must name bands, each of them once")
    if (explicit[0] is None) != (explicit[1] is None):
        said, missing = ("--before-bands", "--after-bands")[:: 1 if explicit[1] is None else -1]
        raise InputError(f"{said} says which bands of one date to compare: say with {missing} with which of the other")
    if None not in explicit:
        one, other = (list(numbers or ()) for numbers in explicit)
        if len(one) != len(other):
            raise InputError(
                f"{len(one)} bands of {first.label} cannot be compared with {len(other)} of {second.label}"
            )
        return numbered_bands(first, one, "--bands"), numbered_bands(second, other, "--bands")
    for key in ("name", "common_name"):
        mine, theirs = ([getattr(band, key) for band in mosaic.bands if band.is_named] for mosaic in (first, second))
        shared = [name for name in mine if name is not None and mine.count(name) == 1 and theirs.count(name) == 1]
        if shared and (key == "name" or len(shared) == len(first.bands)):
            places_first, places_second = (
                [getattr(band, key) if band.is_named else None for band in mosaic.bands] for mosaic in (first, second)
            )
            return (
                tuple(places_first.index(name) + 1 for name in shared),
                tuple(places_second.index(name) + 1 for name in shared),
            )
    numbers = tuple(range(1, len(first.bands) + 1))
    if len(first.bands) != len(second.bands) or _differ(first, second, numbers):
        raise InputError(_of_others(first, second))
    return numbers, numbers


def same_bands(first: Mosaic, second: Mosaic, numbers: Sequence[int]) -> Numbers:
    """Numbers of the bands of `second` that are those of `first` with these numbers.

    By name, where all have one; else by what they see; else by position where nothing speaks against it: free names
    that carry a file's own id or date are no contradiction.

    Raises:
        InputError: bands that see other things, saying what both have.
    """
    for key in ("name", "common_name"):
        mine = [getattr(first.bands[number - 1], key) for number in numbers]
        theirs = [getattr(band, key) for band in second.bands]
        all_named = None not in mine and all(band.is_named for band in (*first.bands, *second.bands))
        if all_named and all(theirs.count(name) == 1 for name in mine):
            return tuple(theirs.index(name) + 1 for name in mine)
    if len(first.bands) == len(second.bands) and not _differ(first, second, numbers):
        return tuple(numbers)
    raise InputError(_of_others(first, second))


def require_one_meaning(mosaics: Sequence[Mosaic], numbers: Sequence[Numbers], *, option: str, instead: str) -> None:
    """Refuse numbers typed once for several dates whose bands with these numbers see other things; raises InputError.

    Args:
        instead: what a user can do.
    """
    first = tuple(mosaics[0].bands[number - 1] for number in numbers[0])
    for mosaic, own in zip(mosaics[1:], numbers[1:], strict=True):
        theirs = tuple(mosaic.bands[number - 1] for number in own)
        if any(_are_others(one, other, mosaic) for one, other in zip(first, theirs, strict=True)):
            raise InputError(
                f"{option} {','.join(map(str, numbers[0]))} are {band_words(first)} of {mosaics[0].label}, but "
                f"{band_words(theirs)} of {mosaic.label}: {instead}"
            )


def _are_others(one: Band, other: Band, mosaic: Mosaic) -> bool:
    """Whether two bands see other things, or `mosaic` has one of the first's name in another place."""
    if one.common_name and other.common_name:
        return one.common_name != other.common_name
    return one.is_named and one.name != other.name and one.name in mosaic.band_names


def numbered_bands(mosaic: Mosaic, explicit: Sequence[int], option: str) -> Numbers:
    """Numbers without alpha of bands that a user names by their numbers in the file, where an alpha band counts too.

    Raises:
        InputError: one that is not there, or the mask.
    """
    in_file = _numbers_in_file(mosaic)
    if beyond := [number for number in explicit if number not in in_file]:
        mask = mosaic.sources[0].validity and mosaic.sources[0].validity.alpha
        named = ", ".join(f"{number} {name}" for number, name in zip(in_file, mosaic.band_names, strict=True))
        raise InputError(
            f"{option} asks for {', '.join(map(str, beyond))}, but {mosaic.label} has {len(mosaic.bands)} bands "
            f"({named}{f'; {mask} is its mask' if mask else ''})"
        )
    return tuple(in_file.index(number) + 1 for number in explicit)


def _numbers_in_file(mosaic: Mosaic) -> tuple[int, ...]:
    """The number that each band has in its file; of a palette's colours, and of rasters of one band, their place."""
    numbers = mosaic.sources[0].image_bands
    return numbers if len(numbers) == len(mosaic.bands) else tuple(range(1, len(mosaic.bands) + 1))


def _of_others(first: Mosaic, second: Mosaic) -> str:
    return (
        f"the two dates have different bands: {first.label} has {len(first.bands)} ({band_words(first.bands)}), "
        f"{second.label} has {len(second.bands)} ({band_words(second.bands)}); say with --bands which ones to use of "
        "both, or with --before-bands and --after-bands of each"
    )


def _differ(first: Mosaic, second: Mosaic, numbers: Sequence[int]) -> bool:
    """Whether bands with these numbers are known to see other things, or have plain names that are not the same."""
    for number in numbers:
        one, other = first.bands[number - 1], second.bands[number - 1]
        if one.common_name and other.common_name:
            if one.common_name != other.common_name:
                return True
        elif one.is_named and other.is_named and one.name != other.name and not _shares_words(one.name, other.name):
            return True
    return False


def _shares_words(one: str, other: str) -> bool:
    """Whether two free names differ in nothing but digits: ids and dates of files."""
    return re.sub(r"[\d_.\- ]+", " ", one).strip().lower() == re.sub(r"[\d_.\- ]+", " ", other).strip().lower()


def _contradicted(bands: Sequence[Band], wanted: Sequence[str | None], numbers: Numbers) -> bool:
    """Whether a band with one of these numbers is known to see something else than what is wanted there."""
    return any(
        name is not None
        and (seen := bands[number - 1].common_name) is not None
        and seen != name
        and not _related(seen, name)
        for name, number in zip(wanted, numbers, strict=True)
    )


def _related(one: str, other: str) -> bool:
    """Whether two common names are those of bands that stand for each other: near infrared, broad and narrow."""
    return one in COMMON_NAMES and other in COMMON_NAMES and one[:3] == other[:3] == "nir"


def _numbers_seeing(name: str | None, seen: Sequence[str | None]) -> list[int]:
    if name is None:
        return []
    exact = [number for number, other in enumerate(seen, start=1) if other == name]
    return exact or [number for number, other in enumerate(seen, start=1) if other and _related(other, name)]


def _one_each(found: Sequence[Sequence[int]]) -> Numbers | None:
    numbers = tuple(places[0] for places in found if len(places) == 1)
    return numbers if len(numbers) == len(found) and len(set(numbers)) == len(numbers) else None


def _numbers_of(name: str, names: Sequence[str]) -> list[int]:
    """Which of `names` are this one; if none is, in which it is a word."""
    whole = [number for number, other in enumerate(names, start=1) if other == name]
    return whole or [number for number, other in enumerate(names, start=1) if name in _words(other)]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name))
