"""Options that several commands share. CLI.md's meaning of a flag stands here once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from graphopt.cli.screen import Screen
from graphopt.cli.types import BINDING, SIZE

Command = Callable[..., Any]


def screen(command: Command) -> Command:
    """`--json`, `--quiet`, `--verbose`, `--no-color` and `--traceback`; the command gets a Screen as first argument."""

    @click.option("--json", metavar="PATH|-", help="Write a machine-readable report to a file or to stdout.")
    @click.option("--quiet", is_flag=True, help="Print errors only.")
    @click.option("--verbose", is_flag=True, help="Print more.")
    @click.option("--no-color", is_flag=True, help="Print without colors (also the environment variable NO_COLOR).")
    @click.option("--traceback", is_flag=True, help="Print the traceback of an error.")
    @wraps(command)
    def with_screen(
        *args: Any, json: str | None, quiet: bool, verbose: bool, no_color: bool, traceback: bool, **options: Any
    ) -> Any:
        return command(Screen(json, quiet, verbose, not no_color), *args, **options)

    return with_screen


def checking(command: Command) -> Command:
    """How models are run to be checked: inputs, sizes, providers, limits."""
    for option in reversed(
        (
            click.option("--dim", "dims", type=BINDING, multiple=True, help="Bind a symbolic dimension; repeatable."),
            click.option("--inputs", metavar="FILE.npz", help="Real inputs: arrays named after the graph inputs."),
            click.option(
                "--provider",
                "providers",
                metavar="cpu|cuda",
                multiple=True,
                default=("cpu",),
                show_default=True,
                help="Where to run; repeatable.",
            ),
            *_LIMITS,
        )
    ):
        command = option(command)
    return command


_LIMITS = (
    click.option(
        "--timeout",
        metavar="S",
        type=click.FloatRange(min=0, min_open=True),
        default=300.0,
        show_default=True,
        help="Seconds for each request to the process that runs models.",
    ),
    click.option("--memory", type=SIZE, help="Memory of the process that runs models."),
)
