"""The options of a command: the fields of its request, with their names, defaults and descriptions.

A value is handed to the request as it was typed, and only if it was: the request says what it means and what is wrong
with it, whether it comes from here or from Prefect's form.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel

from flows.cli.commands import Command, imported
from flows.run.fields import Cli, assigned, option_name

FLAGS = {
    "dry_run": "Print what would be done and what it would take, and stop.",
    "ui": "Show the run in Prefect's UI while it lasts, where no API is configured and no `dasnet server` runs.",
}
"""What a command takes beside its request."""

_COLUMN = 28
"""Widest name that has its description beside it."""

_FIRST, _LAST = "Options", "This command"
_CHOICE = "NAME"
_METAVARS = {int: "N", float: "NUMBER", Path: "PATH", date: "YYYY-MM-DD", datetime: "DATE"}


@dataclass(frozen=True, kw_only=True)
class RequestField:
    """A field of a request, or of a model in it, that the command line gives as one value.

    Attributes:
        path: names of the fields that lead to it, as ``("cluster", "kind")``.
        kind: type of its value, without None; of settings the model that they belong to.
        default: None = none, or none that can be typed.
        limits: what its value must keep to, as pydantic has it.
    """

    path: tuple[str, ...]
    kind: Any
    default: Any
    is_required: bool
    description: str
    limits: tuple[Any, ...]
    cli: Cli

    @property
    def name(self) -> str:
        """The option's name."""
        return f"--{self.cli.name}" if self.cli.name else option_name(self.path[-1])

    @property
    def choices(self) -> tuple[str, ...]:
        """All values there are, if they can be counted."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def metavar(self) -> str:
        """What stands for a value: its choices, if they are few."""
        if not self.choices:
            return self.cli.metavar or _METAVARS.get(self.kind, "TEXT")
        choices = "|".join(self.choices)
        return choices if len(f"{self.name} {choices}") <= _COLUMN else _CHOICE

    @property
    def explanation(self) -> str:
        """Its description, with its choices."""
        return f"{self.description} One of {', '.join(self.choices)}." if self.choices else self.description

    @property
    def are_settings(self) -> bool:
        """Whether it is no field itself, but gives those of a model by name."""
        return _is_model(self.kind) and not self.cli.is_repeatable


class RequestOption(click.Option):
    """An option that gives a field of a request."""

    def __init__(self, field: RequestField) -> None:
        self.field, self.section = field, field.cli.section or _FIRST
        is_flag, many = field.kind is bool, field.cli.is_repeatable or field.are_settings
        names = f"{field.name}/--no-{field.name[2:]}" if is_flag and field.default else field.name
        default = field.default if is_flag else None if many or field.cli.is_file else typed(field.default)
        # for click an option with a default is never missing, even if that is None
        with_default: dict[str, Any] = {} if default is None else {"default": default}
        super().__init__(
            [names, "__".join((*field.path, *(["settings"] if field.are_settings else [])))],
            is_flag=is_flag or None,
            multiple=many,
            required=field.is_required,
            metavar=None if is_flag else field.metavar,
            envvar=field.cli.envvar,
            help=field.explanation if field.metavar == _CHOICE else field.description,
            show_default=True,
            show_envvar=True,
            **with_default,
        )


class RequestArgument(click.Argument):
    """A field of a request that is given by its place."""

    section = "Arguments"

    def __init__(self, field: RequestField) -> None:
        self.field = field
        metavar = field.path[-1].upper() + "…" * field.cli.is_repeatable
        super().__init__(
            ["__".join(field.path)],
            nargs=-1 if field.cli.is_repeatable else 1,
            required=field.is_required,
            metavar=metavar if field.is_required else f"[{metavar}]",
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """What help says of it."""
        return self.make_metavar(ctx), self.field.description


class RequestCommand(click.Command):
    """A command whose help lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all sections, the descriptions of all in one column."""
        sections = {
            section: [record for each in parameters if (record := each.get_help_record(ctx))]
            for section, parameters in by_section(self.get_params(ctx)).items()
        }
        for name, settings in settings_of(self).items():
            sections[f"Settings for {name}"] = [(".".join(each.path), each.explanation) for each in settings]
        column = min(_COLUMN, max(len(name) for records in sections.values() for name, _ in records))
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl([(f"{name:<{column}}", text) for name, text in records], col_max=_COLUMN)


def by_section(parameters: list[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Parameters under the headings of the help, as the request has them; in each what must be given comes first."""
    sections: dict[str, list[click.Parameter]] = {"Arguments": [], _FIRST: []}
    for parameter in sorted(parameters, key=lambda parameter: not parameter.required):
        sections.setdefault(getattr(parameter, "section", _LAST), []).append(parameter)
    ends = sections.pop(_LAST, [])
    return {section: listed for section, listed in {**sections, _LAST: ends}.items() if listed}


def settings_of(command: click.Command) -> dict[str, list[RequestField]]:
    """The fields that can be named in ``NAME=VALUE``, by the option that takes them."""
    options = [each.field for each in command.params if isinstance(each, RequestOption)]
    return {
        field.name: list(fields_of(field.kind))
        for field in options
        if field.cli.is_repeatable and _is_model(field.kind)
    }


def request_command(name: str, command: Command) -> click.Command:
    """A command as click takes it: it makes the request of what is typed, and does what is to be done with it."""
    model = imported(command.request)

    def run(**values: Any) -> None:
        request = model.model_validate(typed_values(click.get_current_context()))
        function = imported(command.run) if isinstance(command.run, str) else command.run
        function(request, **{flag: values[flag] for flag in command.flags})

    parameters = [(RequestArgument if f.cli.is_positional else RequestOption)(f) for f in fields_of(model)]
    flags = [click.Option([option_name(flag)], is_flag=True, help=FLAGS[flag]) for flag in command.flags]
    return RequestCommand(name, callback=run, params=[*parameters, *flags], help=command.help)


def fields_of(
    model: type[BaseModel], path: tuple[str, ...] = (), default: Any = None, nested: Cli | None = None
) -> Iterator[RequestField]:
    """All fields of a request that are given as one value each: a model in it is given field by field."""
    for name, field in model.model_fields.items():
        kind, inner_metadata = _kind(field.annotation)
        metadata = (*inner_metadata, *field.metadata)
        cli = _together(metadata)
        value = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        if nested is not None:
            cli = _together([Cli(section=nested.section), cli, nested.fields.get(name, Cli())])
        entry = RequestField(
            path=(*path, name),
            kind=kind,
            default=None if field.is_required() or cli.is_repeatable or _is_model(kind) else value,
            is_required=field.is_required() and not path,
            description=cli.help or field.description or "",
            limits=metadata,
            cli=cli if not path else replace(cli, is_positional=False),
        )
        if not entry.are_settings:
            yield entry
            continue
        yield from fields_of(kind, entry.path, value, cli)
        if cli.settings:
            example = f"{next(reversed(kind.model_fields))}=…"
            description = f"Any of these by the name of its field, for example {example}; may be repeated."
            yield replace(
                entry, default=None, description=description, cli=replace(cli, name=cli.settings, metavar="NAME=VALUE")
            )


def typed_values(ctx: click.Context) -> dict[str, Any]:
    """What was typed, or is in the environment, as the request takes it.

    Raises:
        click.BadParameter: a file that cannot be read, or a setting that is none.
    """
    values: dict[str, Any] = {}
    for parameter in ctx.command.params:
        if not isinstance(parameter, RequestArgument | RequestOption) or parameter.name is None:
            continue
        field, value, source = parameter.field, ctx.params[parameter.name], ctx.get_parameter_source(parameter.name)
        if source in (None, ParameterSource.DEFAULT) or value == ():
            continue
        place = values
        for name in field.path[:-1]:
            place = place.setdefault(name, {})
        last = field.path[-1]
        try:
            if field.are_settings:
                place[last] = assigned(value, field.name) | place.get(last, {})
            elif field.cli.is_file:
                place[last] = Path(value).read_text().strip()
            elif isinstance(value, tuple):
                place[last] = value[0] if field.cli.is_positional and len(value) == 1 else list(value)
            else:
                place[last] = value
        except (OSError, ValueError) as error:
            raise click.BadParameter(str(error), ctx, parameter) from error
    # the certificates of the environment are there for all commands, also where workers are on this machine
    cluster = values.get("cluster", {})
    if cluster.get("kind", "local") in ("local", "cuda"):
        cluster.pop("certificates", None)
    return values


def _together(metadata: Iterable[Any]) -> Cli:
    """All settings of one field in one; of several for the same the last one counts."""
    settings = [each for each in metadata if isinstance(each, Cli)]
    return Cli(**{f.name: value for cli in settings for f in fields(cli) if (value := getattr(cli, f.name))})


def _kind(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type of a value, without None, and the metadata in it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(each for each in get_args(annotation) if each is not type(None)))
    if get_origin(annotation) is Annotated:
        kind, metadata = _kind(annotation.__origin__)
        return kind, (*metadata, *annotation.__metadata__)
    return annotation, ()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def typed(default: Any) -> str | None:
    """A default as it would be typed."""
    if isinstance(default, list | tuple):
        return ",".join(str(typed(each)) for each in default)
    if isinstance(default, float):
        return f"{default:g}"
    return None if default is None or default == "" else str(default)
