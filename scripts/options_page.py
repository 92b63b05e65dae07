"""The page of all options, made of what the commands themselves are made of.

python -m scripts.options_page          # writes docs/options.md
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from flows.cli.commands import SECTIONS, Command
from flows.cli.options import RequestArgument, RequestField, RequestOption, by_section, request_command, settings_of
from flows.cli.options import typed as as_typed

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"

_START = """# Options

What every command takes. `dasnet COMMAND --help` shows the same; a flow's form in the Prefect UI has the same fields,
the same defaults and the same checks.

- A list is typed with commas: `--bands 4,1,2`. An option that takes `NAME=VALUE` may be repeated; a dot in the name
  goes deeper: `--set augmentation.haze=0.4`.
- A number below zero needs no quotes: `--bbox -10,40,5,50`.
- What is wrong is refused with exit code 2, before anything starts. 1 means not finished, 130 stopped, 0 done.
"""

_KINDS = {bool: "flag", int: "whole number", float: "number", Path: "path", str: "text"}
_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "multiple of {}"}


def options_page() -> str:
    """The page as Markdown: a chapter a command, a table for each group of its options."""
    lines, tables = [_START], dict[str, str]()
    for section, commands in SECTIONS.items():
        lines.append(f"## {section}\n")
        for name, command in commands.items():
            lines += _chapter(name, command, tables)
    return "\n".join(lines).rstrip() + "\n"


def _chapter(name: str, command: Command, tables: dict[str, str]) -> list[str]:
    """The lines of one command; a table that an earlier one has is not repeated.

    Args:
        tables: the command that has each of the tables so far; this one's are added.
    """
    made = request_command(name, command)
    usage = " ".join(["dasnet", name, *made.collect_usage_pieces(click.Context(made))])
    lines = [f"### {name}\n", f"{command.help}\n", f"```\n{usage}\n```\n"]
    for section, parameters in by_section(made.params).items():
        table = _table(_option(each) for each in parameters)
        first = tables.setdefault(table, name)
        lines += [f"**{section}**" + (f": as for [{first}](#{first})\n" if first != name else f"\n\n{table}\n")]
    for option, settings in settings_of(made).items():
        rows = ((".".join(each.path), _values(each), "the recipe's", each.description) for each in settings)
        lines += [f"**Settings for `{option}`**\n\n{_table(rows)}\n"]
    return lines


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    cells = ([f"`{name}`", values, default, text] for name, values, default, text in rows)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells]
    return "\n".join(
        ["| option | value | default | what it is |", "| --- | --- | --- | --- |", *(f"| {x} |" for x in lines)]
    )


def _option(parameter: click.Parameter) -> tuple[str, str, str, str]:
    name = " / ".join([*parameter.opts, *parameter.secondary_opts])
    if not isinstance(parameter, RequestArgument | RequestOption):
        return name, "flag", "", str(getattr(parameter, "help", ""))
    field = parameter.field
    if isinstance(parameter, RequestArgument):
        name = field.path[-1].upper()
    default = _code(as_typed(field.default))
    if field.is_required:
        default = "**required**"
    elif field.kind is bool:
        default = _code(field.name if field.default else None)
    elif field.cli.envvar:
        default = f"environment variable `{field.cli.envvar}`"
    return name, _values(field), default, field.description


def _values(field: RequestField) -> str:
    if field.choices:
        return ", ".join(map(_code, field.choices))
    limits = [
        text.format(f"{value:g}")
        for limit in field.limits
        for name, text in _LIMITS.items()
        if isinstance(value := getattr(limit, name, None), int | float)
    ]
    kind = field.cli.metavar and f"`{field.cli.metavar}`"
    return ", ".join([kind or _KINDS.get(field.kind, f"`{field.metavar}`"), *limits])


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(options_page())
