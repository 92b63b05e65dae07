"""`dasnet …`: the flows as commands. Exit code 0 = done, 1 = not finished, 2 = refused, 130 = stopped."""

from __future__ import annotations

import atexit
import gc
import io
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from flows.cli.commands import COMMANDS, SECTIONS
from flows.run.homes import name_a_home
from flows.run.proxies import pass_by_proxies

if TYPE_CHECKING:
    from pydantic import ValidationError


class Commands(click.Group):
    """The commands by name; what one of them needs is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, as help lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, with the options of its request."""
        if cmd_name not in COMMANDS:
            return None
        from flows.cli.options import request_command

        return request_command(cmd_name, COMMANDS[cmd_name])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing any."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, command.help) for name, command in commands.items()], col_max=16)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one that is stopped ends as a shell expects."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)


dasnet = Commands(
    help="Change detection over region-wide mosaics: plan, run, resume and inspect.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Entry point: run a command, turn domain errors into one message and an exit code."""
    # all objects go with the process: without this the interpreter's last collection looks at each, for a second
    atexit.register(gc.freeze)
    # a name of a file may hold what no terminal shows; the plan is printed all the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    pass_by_proxies()
    name_a_home()
    try:
        dasnet.main(prog_name="dasnet")
    except Exception as error:
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    from pydantic import ValidationError

    from flows.cli.terminal import EXIT_REFUSED, EXIT_UNFINISHED, stderr
    from flows.run.errors import REFUSALS, STORAGE_GAVE_OUT, UNFINISHED, PlanningError
    from flows.run.planning import wants_traceback

    message = str(error)
    if isinstance(error, ValidationError):
        code, message = EXIT_REFUSED, "; ".join(_wrong_fields(error))
    elif isinstance(error, REFUSALS):
        code = EXIT_REFUSED
    elif isinstance(error, UNFINISHED):
        code = EXIT_UNFINISHED
    elif isinstance(error, OSError) and error.errno in STORAGE_GAVE_OUT:
        code, where = EXIT_UNFINISHED, f": {error.filename}" if error.filename else ""
        message = f"{error.strerror}{where}. What is finished is kept: mend it and run the same command again"
    else:
        raise error
    if isinstance(error, PlanningError) and wants_traceback():
        traceback.print_exception(error.__cause__ or error)
    stderr.print(f"[red]{'refused' if code == EXIT_REFUSED else 'not finished'}[/red]: ", end="")
    stderr.print(message, markup=False, soft_wrap=True)
    return code


def _wrong_fields(error: ValidationError) -> list[str]:
    """What is wrong with each field, in our own words where there are any: pydantic tries all its types."""
    reasons: dict[str, list[tuple[bool, str]]] = {}
    for wrong in error.errors():
        # parts of a name that are no field's say which type was tried
        parts = [str(part) for part in wrong["loc"] if not re.search(r"[^A-Za-z0-9_]", str(part))]
        is_ours, reason = wrong["type"] == "value_error", str(wrong["msg"]).removeprefix("Value error, ")
        value = wrong["input"]
        # an address may hold a secret
        if wrong["type"] not in ("value_error", "extra_forbidden") and isinstance(value, str) and "/" not in value:
            reason += f", not {value!r}"
        reasons.setdefault(".".join(parts) or "request", []).append((is_ours, reason))
    return [
        f"{field}: {text}"
        for field, texts in reasons.items()
        for is_ours, text in dict.fromkeys(texts)
        if is_ours or not any(other for other, _ in texts)
    ]
