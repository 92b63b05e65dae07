"""What a user asks for: pydantic models, so that the command line and the Prefect form check the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    WithJsonSchema,
)

from storage.places.bucket import ObjectPath
from storage.places.credentials import refuse_credentials


@dataclass(frozen=True, kw_only=True)
class Cli:
    """How a field is given on the command line; the rest is the field's own name, default and description.

    Attributes:
        name: name of the option, without dashes; None = the field's.
        section: heading in the help, for a nested model that of its fields.
        metavar: what stands for the value in the help; None = the field's type.
        is_positional: whether its place gives it, not a name.
        is_repeatable: whether it may be given several times, each time with one text of a list.
        is_file: whether the value is the name of a text file that holds it.
        envvar: environment variable that gives it where the command does not.
        help: description in the place of the field's; None = the field's.
        fields: for a nested model, what is different for some of its fields.
        settings: for a nested model, the name of a repeatable option ``name=value`` that reaches all of its fields.
    """

    name: str | None = None
    section: str | None = None
    metavar: str | None = None
    is_positional: bool = False
    is_repeatable: bool = False
    is_file: bool = False
    envvar: str | None = None
    help: str | None = None
    fields: Mapping[str, Cli] = field(default_factory=dict, hash=False)
    settings: str | None = None


POSITIONAL = Cli(is_positional=True)
DIRECTORY = Cli(metavar="DIR")


Address = Annotated[str, AfterValidator(refuse_credentials), Cli(metavar="MOSAIC")]
"""Address of a mosaic, without a password or a signature in it."""

MosaicSpec = Address | list[Address]
"""A raster file or URL, a folder of rasters, a glob, a ``.txt`` list of files, a Zarr group, or a list of files."""

Output = Annotated[
    ObjectPath | Path,
    Field(union_mode="left_to_right"),
    BeforeValidator(lambda value: refuse_credentials(value) if isinstance(value, str) else value),
    WithJsonSchema({"type": "string", "format": "path"}),
    DIRECTORY,
]
"""A local directory, or ``s3://bucket/prefix``."""


def _local(path: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise ValueError(f"{path} is an address; a local directory is wanted (only `dasnet detect` writes to a bucket)")
    return path


LocalDirectory = Annotated[Path, AfterValidator(_local), DIRECTORY]
"""A directory on this machine, or on a disk that all workers share."""


def option_name(field_name: str) -> str:
    """``--before-date`` for the field ``before_date``."""
    return f"--{field_name.replace('_', '-')}"


def at_commas(kind: Callable[[str], Any] = str, *, count: int | None = None) -> BeforeValidator:
    """Lets a list also be one text with commas between its values, as on the command line.

    Args:
        kind: makes a value of its text.
        count: of values that there must be; None = any.
    """

    def split(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        name, many = option_name(info.field_name or ""), "" if count is None else f"{count} "
        try:
            values = [kind(part) for part in value.split(",")]
        except ValueError:
            raise ValueError(f"{name} takes {many}numbers with commas between them, not {value!r}") from None
        if count is not None and len(values) != count:
            raise ValueError(f"{name} takes {many}values with commas between them, not {value!r}")
        return values

    return BeforeValidator(split)


PixelValues = Annotated[list[FiniteFloat] | None, Cli(metavar="V,V,…"), at_commas(float)]
"""Values of pixels."""


def by_name(
    option: str, form: str = "name=value", *, parse: Callable[[str], Any] = str, is_deep: bool = True
) -> BeforeValidator:
    """Lets a mapping also be a list of texts ``name=value``, as on the command line; a dot in a name goes deeper.

    Args:
        option: name of the option that takes them.
        form: what each text looks like, for the message where one does not.
        parse: makes a value of its text.
        is_deep: whether it does; else a dot is a letter like others.
    """

    def assign(value: Any) -> Any:
        return assigned(value, option, form, parse=parse, is_deep=is_deep) if isinstance(value, list | tuple) else value

    return BeforeValidator(assign)


def assigned(
    texts: Sequence[str],
    option: str,
    form: str = "name=value",
    *,
    parse: Callable[[str], Any] = str,
    is_deep: bool = True,
) -> dict[str, Any]:
    """``["epochs=5", "augmentation.haze=0.4"]`` as nested values.

    Raises:
        ValueError: one of them is not of the `form`.
    """
    result: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise ValueError(f"{option} takes {form}, not {text!r}")
        *path, last = name.strip().split(".") if is_deep else [name.strip()]
        place = result
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ValueError(f"{option} gives {part} a value of its own and one below it")
        place[last] = parse(value.strip())
    return result


def json_or_text(text: str) -> Any:
    """The value of a text that is JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _required_first(schema: dict[str, Any]) -> None:
    """Put required fields first: Prefect's form shows fields in the order of the schema."""
    properties = schema.get("properties", {})
    order = sorted(properties, key=lambda name: name not in schema.get("required", []))
    schema["properties"] = {name: properties[name] for name in order}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_required_first)
