"""A project's settings as defaults of the command line: a key is the long name of a flag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from graphopt.errors import UsageError, near
from graphopt.settings import Settings, find_settings

_THIS_RUN = frozenset({"help", "version", "no-config", "output", "in-place", "dry-run", "only", "json", "traceback"})
"""Flags that are about one run, never about a project."""
_PATH = "graphopt.settings"


def no_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--no-config`; without it the project's settings are defaults of the other options."""
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
        "--no-config",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Do not read graphopt.toml or pyproject.toml.",
    )
    return decorate(command)


def config_path(context: click.Context) -> Path | None:
    """The file with settings that was read."""
    path: Path | None = context.meta.get(_PATH)
    return path


def _read(context: click.Context, parameter: click.Parameter, ignored: bool) -> None:
    if context.resilient_parsing or ignored:
        return
    settings = _found()
    context.meta[_PATH] = settings.path
    context.default_map = _defaults(context, settings)


def _found() -> Settings:
    """The settings of the current folder; none where that was removed."""
    try:
        return find_settings(Path.cwd())
    except FileNotFoundError:
        return Settings()


def _defaults(context: click.Context, settings: Settings) -> dict[str, Any]:
    """Defaults of a command's parameters. Raises: UsageError GO027 for a key or a value that cannot be."""
    group = context.find_root().command
    commands = group.commands if isinstance(group, click.Group) else {}
    flags = {name: _flags(command) for name, command in commands.items()}
    anywhere = {name: option for options in flags.values() for name, option in options.items()}
    mine = _flags(context.command)
    own: dict[str, Any] = {}
    for key, value in settings.table.items():
        if isinstance(value, dict):
            known = _known(settings, key, flags, "a command")
            for inner, setting in value.items():
                parameter = _known(settings, inner, known, f"a flag of {key}")
                if key == context.command.name:
                    own[inner] = _converted(settings, context, inner, parameter, setting)
        else:
            _known(settings, key, anywhere, "a flag")
            if key in mine:
                own.setdefault(key, _converted(settings, context, key, mine[key], value))
    return {str(mine[key].name): value for key, value in own.items()}


def _flags(command: click.Command) -> dict[str, click.Option]:
    """The flags of a command that a project may set, by long name."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    names = {name[2:]: option for option in options for name in option.opts if name.startswith("--")}
    return {name: option for name, option in names.items() if name not in _THIS_RUN}


def _known(settings: Settings, key: str, known: dict[str, Any], what: str) -> Any:
    if key not in known:
        raise UsageError("GO027", f"'{key}' is not {what} that can be set", str(settings.path), near(key, known))
    return known[key]


def _converted(settings: Settings, context: click.Context, key: str, option: click.Option, value: Any) -> Any:
    """What an option makes of a value, in the type that the flag has."""
    if option.is_flag != isinstance(value, bool) or option.multiple != isinstance(value, list):
        kind = "true or false" if option.is_flag else "a list" if option.multiple else "a single value"
        raise UsageError("GO027", f"'{key}' is {value!r}, not {kind}", str(settings.path))
    try:
        return option.type_cast_value(context, value)
    except (click.BadParameter, TypeError) as error:
        reason = error.message if isinstance(error, click.BadParameter) else error
        raise UsageError("GO027", f"'{key}' cannot be {value!r}: {reason}", str(settings.path)) from error
