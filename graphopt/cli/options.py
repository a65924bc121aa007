"""Options that several commands share. What a flag means stands here once."""

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
    @click.option("--no-color", is_flag=True, help="Print without colors (also: environment variable NO_COLOR).")
    @click.option("--traceback", is_flag=True, help="Print the traceback of an error.")
    @wraps(command)
    def with_screen(
        *args: Any, json: str | None, quiet: bool, verbose: bool, no_color: bool, traceback: bool, **options: Any
    ) -> Any:
        return command(Screen(json, quiet, verbose, not no_color), *args, **options)

    return with_screen


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """The options as one decorator, in the order in which help lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_dims = click.option("--dim", "dims", type=BINDING, multiple=True, help="Bind a symbolic dimension; repeatable.")
_inputs = click.option("--inputs", metavar="FILE.npz", help="Real inputs: arrays named after the graph's inputs.")
_timeout = click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, max=1e6, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds for each request to the process that runs models.",
)
_memory = click.option("--memory", type=SIZE, help="Memory that the process that runs models may take.")
_providers = click.option(
    "--provider",
    "providers",
    metavar="cpu|cuda",
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Where verification runs; repeatable.",
)
_provider = click.option(
    "--provider", metavar="cpu|cuda", default="cpu", show_default=True, help="Where the models run."
)

checking = all_of(_dims, _inputs, _providers, _timeout, _memory)
"""How models are run to be checked."""

timing = all_of(_dims, _inputs, _provider, _timeout, _memory)
"""How models are run to be timed."""
