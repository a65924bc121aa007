"""The program `graphopt`: its commands, and what every one of them does with errors."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from graphopt import __version__
from graphopt.cli.bench import bench
from graphopt.cli.demo import demo
from graphopt.cli.explain import explain
from graphopt.cli.fuse import fuse
from graphopt.cli.inspect import inspect
from graphopt.cli.quantize import quantize
from graphopt.cli.rules import rules
from graphopt.cli.signals import stop_behind
from graphopt.cli.usage import usage_error
from graphopt.cli.verify import verify
from graphopt.errors import GraphoptError, ModelError, printable

_HERE = str(Path(__file__).parents[1])
_INTERRUPTED = 130
_REFUSED = {
    *("EACCES", "EDQUOT", "EFBIG", "EIO", "ELOOP", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENOMEM", "ENOSPC", "EPERM"),
    *("EROFS", "ESTALE"),
}
"""What the system says of files that no program can help."""
_NOBODY_READS = 141
_EXIT_CODES = (
    "Exit codes: 0 done and equal, 1 not equal, 2 usage, 3 bad model or data, 4 not decided, "
    "5 onnxruntime crashed or timed out, 6 done without a rule that failed, 70 a bug in graphopt."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, prog_name="graphopt")
def graphopt() -> None:
    """A compiler for ONNX graphs: recover, fuse, lower, and prove that nothing changed but speed."""


for _command in (fuse, quantize, verify, explain, inspect, rules, bench, demo):
    graphopt.add_command(_command)


class _Shown(logging.Formatter):
    """Warnings as a terminal may show them: they name parts of models, whose names may hold escape sequences."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code. Errors are printed on stderr. Raises: Stopped."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Shown())
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except Exception as error:
        stop = stop_behind(error)
        if stop is not None:
            raise stop from None
        return _ended(error, arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        return int(graphopt.main(list(arguments), prog_name="graphopt", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return 2


def _ended(error: Exception, arguments: Sequence[str]) -> int:
    """Says what went wrong; returns the exit code."""
    match error:
        case click.UsageError():
            return _fail(usage_error(error), arguments)
        case GraphoptError():
            return _fail(error, arguments)
        case click.Abort():
            return _INTERRUPTED
        case BrokenPipeError():
            return _NOBODY_READS
        case _:
            return _fail(_refusal(error) or _bug(error), arguments)


def _fail(error: GraphoptError, arguments: Sequence[str]) -> int:
    if "--traceback" in arguments:
        traceback.print_exc()
    with suppress(OSError):
        click.echo(str(error), err=True)
    return error.exit_code


def _refusal(error: Exception) -> GraphoptError | None:
    """What is said where the system is in the way of reading or writing files, and no bug."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return ModelError("GO077", "the current folder, where a path begins, was removed", "", "cd to another folder")
    if not isinstance(error, OSError) or errno.errorcode.get(error.errno or 0) not in _REFUSED:
        return None
    return ModelError("GO077", f"a file cannot be used: {error.strerror}", str(error.filename or ""))


def _bug(error: Exception) -> GraphoptError:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_HERE)]
    return GraphoptError(
        "GO070",
        f"a bug in graphopt: {type(error).__name__}: {error}",
        f"{ours[-1].filename}:{ours[-1].lineno}",
        "please report it, with the output of the same command with --traceback",
    )
