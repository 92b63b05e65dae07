"""`dasnet info`: what rasters, folders, lists, Zarr groups and archives are, as every command reads them."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

from pydantic import BeforeValidator, Field, model_validator

from flows.cli.terminal import EXIT_REFUSED, print_pairs, print_warning, stderr
from flows.inference.request import DatePatternText
from flows.run.errors import REFUSALS, PlanningError
from flows.run.fields import Cli, Frozen, MosaicSpec, PixelValues
from flows.run.planning import planning, wants_traceback
from storage.datasets.label_options import LabelOptions
from storage.errors import InputError
from storage.imagery.description import Overrides
from storage.imagery.names.indexes import PARQUET_SUFFIXES, holds_items
from storage.imagery.names.text_lists import table_rows
from storage.text import decoded

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


class InfoRequest(Frozen):
    """What to describe."""

    paths: Annotated[
        list[MosaicSpec],
        BeforeValidator(lambda paths: [paths] if isinstance(paths, str) else paths),
        Cli(is_positional=True, is_repeatable=True, metavar="PATH"),
        Field(
            description="Raster, folder, list, pattern, zip, VRT, Zarr group, or archive: STAC (.json), table (.csv).",
            min_length=1,
        ),
    ]
    as_json: Annotated[
        bool, Cli(name="json"), Field(description="One JSON array instead of lines: an object for each path.")
    ] = False
    asset: Annotated[
        str | None, Field(description="Of STAC items: the asset that holds the imagery, or the assets of its bands.")
    ] = None
    nodata: Annotated[float | None, Field(description="Stored value that is no data, as of `detect`.")] = None
    alpha: Annotated[int | None, Field(ge=0, description="Band that is a mask, as of `detect`; 0: none is.")] = None
    date_pattern: DatePatternText = None
    label: Annotated[
        bool, Field(description="The paths are label rasters: which values they have, and how `prepare` reads them.")
    ] = False
    changed: Annotated[PixelValues, Field(description="Of labels: values that mean changed, as of `prepare`.")] = None
    unchanged: Annotated[PixelValues, Field(description="Of labels: values that mean unchanged.")] = None
    ignored: Annotated[PixelValues, Field(description="Of labels: values that mean: not known.")] = None

    @model_validator(mode="after")
    def _of_labels(self) -> InfoRequest:
        if not self.label and (self.changed or self.unchanged or self.ignored):
            raise ValueError("--changed, --unchanged and --ignored are of label rasters: say --label too")
        self.label_options  # noqa: B018  values that two options name are refused
        return self

    @property
    def label_options(self) -> LabelOptions:
        """What the user says about the values of labels."""
        return LabelOptions.of(changed=self.changed, unchanged=self.unchanged, ignored=self.ignored)


def info(request: InfoRequest) -> None:
    """Describe each path; exit code 2 if any cannot be read."""
    found: list[dict[str, Any]] = []
    refused = False
    for path in request.paths:
        try:
            with planning(request.model_copy(update={"paths": [path]})):
                found += _described(path, request)
                refused |= any("error" in date for date in found[-1].get("dates", ()))
        except REFUSALS as error:
            refused = True
            found.append({"label": str(path), "error": str(error)})
            if isinstance(error, PlanningError) and wants_traceback():
                traceback.print_exception(error.__cause__ or error)
            if not request.as_json:
                stderr.print("[red]refused[/red]: ", end="")
                stderr.print(str(error), markup=False, soft_wrap=True)
    if request.as_json:
        # names in other encodings stand in it escaped
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
    if refused:
        sys.exit(EXIT_REFUSED)


def _described(spec: str | list[str], request: InfoRequest) -> list[dict[str, Any]]:
    if request.label:
        return _label(spec, request)
    said = Overrides(nodata=request.nodata, alpha=request.alpha, date_pattern=request.date_pattern)
    if isinstance(spec, str) and _is_archive(spec, request):
        return _archive(spec, said, request)
    from storage.imagery.mosaics import open_mosaic
    from storage.imagery.summary import imagery_of

    if isinstance(spec, str) and spec.lower().endswith(_PICTURES):
        from storage.datasets.scenes import open_image

        imagery = imagery_of(open_image(spec))
    else:
        imagery = imagery_of(open_mosaic(spec, said))
    if not request.as_json:
        print_pairs(imagery.lines())
        for doubt in imagery.doubts:
            print_warning(doubt)
    return [imagery.to_dict()]


def _label(spec: str | list[str], request: InfoRequest) -> list[dict[str, Any]]:
    """A label raster; one that `prepare` would refuse is described all the same, with the reason."""
    from storage.datasets.label_descriptions import describe_label

    if not isinstance(spec, str):
        raise InputError("a label raster is named by one path")
    described = describe_label(spec, request.label_options)
    if not request.as_json:
        print_pairs(described.lines())
        for note in described.notes:
            print_warning(note)
    return [described.to_dict()]


def _is_archive(spec: str, request: InfoRequest) -> bool:
    """Whether a path is a table with dates or STAC items, and not a list or tile index that makes one mosaic."""
    name = urlparse(spec).path.lower()
    if not Path(spec).is_file():
        return name.endswith((".json", ".csv")) and "://" in spec
    if name.endswith(".json"):
        return True
    if name.endswith(".csv"):
        rows = table_rows(Path(spec).read_bytes(), path=spec)
        return not rows or "date" in map(str.lower, rows[0][1])
    if name.endswith(PARQUET_SUFFIXES):
        return request.asset is not None and holds_items(spec)
    if name.endswith(".geojson"):
        try:
            features = json.loads(decoded(Path(spec).read_bytes(), path=spec)).get("features", [])
            return bool(features) and "assets" in features[0]
        except (ValueError, AttributeError, TypeError, IndexError, KeyError, RecursionError):
            return False
    return False


def _archive(spec: str, said: Overrides, request: InfoRequest) -> list[dict[str, Any]]:
    """Every date of an archive; one that cannot be opened is described by what is wrong with it."""
    from storage.archives.listing import read_archive
    from storage.imagery.summary import imagery_of

    dates = read_archive(spec, asset=request.asset, date_pattern=request.date_pattern)
    described: list[dict[str, Any]] = []
    for files in dates:
        try:
            described.append({**imagery_of(files.open(said)).to_dict(), "day": files.day.isoformat()})
        except InputError as error:
            described.append({"day": files.day.isoformat(), "error": str(error)})
    if not request.as_json:
        print_pairs([("archive", spec), ("dates", f"{len(dates)}, {dates[0].day} to {dates[-1].day}")])
        print_pairs([(date["day"], date.get("error") or _in_one_line(date)) for date in described])
        for doubt in dict.fromkeys(doubt for date in described for doubt in date.get("doubts", ())):
            print_warning(doubt)
    return [{"kind": "archive", "label": spec, "dates": described}]


def _in_one_line(date: dict[str, Any]) -> str:
    height, width = date["grid"]["shape"]
    files = f"{date['files']:,} file{'s' * (date['files'] != 1)}"
    names = ", ".join(band["name"] for band in date["bands"])
    return f"{files}, {width:,} × {height:,} px in {date['grid']['crs']}, {date['dtype']}, {names}"
