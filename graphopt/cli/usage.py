"""click's usage errors in the form of ours."""

from __future__ import annotations

import click

from graphopt.errors import UsageError, near


def usage_error(error: click.UsageError) -> UsageError:
    """The same error with a code, the command it is about, and near names or where to read on."""
    context = error.ctx or click.Context(click.Command("graphopt"))
    place = context.command_path
    match error:
        case click.exceptions.NoSuchCommand(command_name=name):
            known = context.command.list_commands(context) if isinstance(context.command, click.Group) else []
            return UsageError("GO001", f"no command is called '{name}'", place, near(name, known))
        case click.NoSuchOption(option_name=name):
            known = [flag for option in context.command.get_params(context) for flag in option.opts if flag[0] == "-"]
            return UsageError("GO001", f"no option is called '{name}'", place, near(name, known))
    message = error.format_message().rstrip(".")
    return UsageError("GO001", message[:1].lower() + message[1:], place, f"{place} --help lists what there is")
