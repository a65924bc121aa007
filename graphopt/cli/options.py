"""Options that several commands share. What a flag means stands here once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import click
from click.core import ParameterSource

from graphopt.cli.config import config_path, no_config
from graphopt.cli.screen import Screen
from graphopt.cli.signals import stoppable
from graphopt.cli.types import BINDING, SIZE, Number

Command = Callable[..., Any]


def screen(command: Command) -> Command:
    """What every command has: how it reports, whether a project's settings hold; its first argument is a Screen."""

    @click.option("--json", metavar="PATH|-", help="Write a machine-readable report to a file or to stdout.")
    @click.option("--quiet", is_flag=True, help="Print errors only.")
    @click.option("--verbose", is_flag=True, help="Print more.")
    @click.option("--no-color", is_flag=True, help="Print without colors (also: environment variable NO_COLOR).")
    @click.option("--traceback", is_flag=True, help="Print the traceback of an error.")
    @no_config
    @wraps(command)
    def with_screen(
        *args: Any, json: str | None, quiet: bool, verbose: bool, no_color: bool, traceback: bool, **options: Any
    ) -> Any:
        screen = Screen(json, quiet, verbose, not no_color, config_path(click.get_current_context()))
        import_module("graphopt.pipeline")  # what all commands are made of, which nobody can interrupt in order
        with stoppable(*screen.files):
            return command(screen, *args, **options)

    return with_screen


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """The options as one decorator, in the order in which help lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _disabled(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """What is disabled; a project's settings yield to `--only`."""
    typed = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    return names if typed else tuple(name for name in names if name not in context.params.get("only", ()))


_target = click.option(
    "--target",
    default="ort-cpu",
    show_default=True,
    metavar="NAME",
    help="ort-cpu, ort-cuda, tensorrt, onnx, auto (by installed providers), or a table FILE.json.",
)
only = click.option("--only", metavar="RULE", multiple=True, help="Apply this rule and no other; repeatable.")
_disable = click.option(
    "--disable", metavar="RULE", multiple=True, callback=_disabled, help="Leave a rule out; repeatable."
)
_rules = click.option("--rules", metavar="FILE|MODULE", multiple=True, help="Add rules, code that runs; repeatable.")
_keep_opset = click.option(
    "--keep-opset", is_flag=True, help="Do not raise the opset, even where that lets a fused op be written."
)
_keep_functions = click.option(
    "--keep-function",
    "keep_functions",
    metavar="DOMAIN[.OP]",
    multiple=True,
    help="Leave calls of these functions as they are: the runtime has a kernel of its own for them. Repeatable.",
)
_assume = click.option(
    "--assume", metavar="FACT", multiple=True, help="Promise of the inputs: no-empty-rows. Repeatable."
)
_emit_functions = click.option(
    "--emit-functions",
    is_flag=True,
    help="Write ai.graphopt ops (FusedMatMulAddGelu, FusedLayerNormMatMul) with their ONNX function bodies, which any "
    "runtime loads.",
)
_max_new_weights = click.option(
    "--max-new-weights",
    type=SIZE,
    default="512MiB",
    show_default=True,
    metavar="SIZE",
    help="Leave out a rule whose rewrites would together add more than this.",
)
_dims = click.option("--dim", "dims", type=BINDING, multiple=True, help="Bind a symbolic dimension; repeatable.")
_inputs = click.option("--inputs", metavar="FILE.npz", help="Real inputs: arrays named after the graph's inputs.")
_timeout = click.option(
    "--timeout",
    metavar="S",
    type=Number(min=0, max=1e6, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds for each request to the process that runs models.",
)
_memory = click.option(
    "--memory", type=SIZE, help="Memory that the process that runs models may take; default: all there is."
)
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

_custom_ops = click.option(
    "--custom-ops",
    metavar="LIB",
    multiple=True,
    help="A shared library with the kernels of custom ops; repeatable.",
)
_keep = click.option(
    "--keep-failed",
    "keep",
    metavar="DIR",
    help="Keep what failed in this folder: the inputs that show it; of a rule, the smallest model and a test as well.",
)

_verify = click.option(
    "--verify",
    type=click.Choice(["off", "sites", "full"]),
    default="sites",
    show_default=True,
    help="Check every region that a rewrite touched, whole runs as well, or nothing.",
)
_external = click.option(
    "--external-data",
    "external",
    type=click.Choice(["never", "auto", "always"]),
    default="auto",
    show_default=True,
    help="How weights are written; auto keeps the input's way. What lies in a file beside the output stays there, "
    "but for never.",
)
_in_place = click.option("--in-place", is_flag=True, help="Allow the output to be the input.")
_allow_unverified = click.option("--allow-unverified", is_flag=True, help="Write although the check could not decide.")
_dry_run = click.option("--dry-run", is_flag=True, help="Do everything but write.")

deciding = all_of(_disable, _rules, _target, _emit_functions, _keep_opset, _keep_functions, _assume, _max_new_weights)
"""What decides which rules fire."""

checking = all_of(_dims, _inputs, _providers, _timeout, _memory, _custom_ops, _keep)
"""How models are run to be checked."""

running = all_of(_dims, _timeout, _memory, _custom_ops)
"""How models are run where other flags say on what."""

writing = all_of(_verify, _external, _in_place, _allow_unverified, _dry_run)
"""What must hold for a rewritten model to be written, and how it is."""

timing = all_of(_dims, _inputs, _provider, _timeout, _memory)
"""How models are run to be timed."""
