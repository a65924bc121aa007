"""click's usage errors in the form of ours."""

from __future__ import annotations

import click

from graphopt.errors import UsageError, near


def usage_error(error: click.UsageError) -> UsageError:
    """The same error with a code, the command it is about, and near names or where to read on."""
    context = error.ctx
    command = context.command_path if context is not None else "graphopt"
    hint = f"{command} --help lists what there is"
    match error:
        case click.exceptions.NoSuchCommand():
            return UsageError("GO001", f"no command is called '{error.command_name}'", command, _near(error) or hint)
        case click.NoSuchOption():
            return UsageError("GO001", f"no option is called '{error.option_name}'", command, _near(error) or hint)
    message = error.format_message().rstrip(".")
    return UsageError("GO001", message[:1].lower() + message[1:], command, hint)


def _near(error: click.exceptions.NoSuchCommand | click.NoSuchOption) -> str:
    if error.ctx is None:
        return ""
    command = error.ctx.command
    if isinstance(command, click.Group):
        known = command.list_commands(error.ctx)
    else:
        known = [name for parameter in command.params for name in parameter.opts]
    name = error.command_name if isinstance(error, click.exceptions.NoSuchCommand) else error.option_name
    return near(name, known)
