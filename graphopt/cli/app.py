"""The program `graphopt`: its commands, and what every one of them does with errors and signals."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from graphopt import __version__
from graphopt.cli.bench import bench
from graphopt.cli.demo import demo
from graphopt.cli.explain import explain
from graphopt.cli.fuse import fuse
from graphopt.cli.inspect import inspect
from graphopt.cli.quantize import quantize
from graphopt.cli.rules import rules
from graphopt.cli.usage import usage_error
from graphopt.cli.verify import verify
from graphopt.errors import GraphoptError

_HERE = str(Path(__file__).parents[1])
_INTERRUPTED = 130
_TERMINATED = 143
_NOBODY_READS = 141
_EXIT_CODES = (
    "Exit codes: 0 done and equal, 1 not equal, 2 usage, 3 bad model or data, 4 not decided, "
    "5 onnxruntime crashed or timed out, 6 done without a rule that failed, 70 a bug in graphopt."
)


class _Terminated(BaseException):
    """Somebody asked the program to end. Unlike SystemExit, no rule that runs just then can be taken for its cause."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, prog_name="graphopt")
def graphopt() -> None:
    """A compiler for ONNX graphs: recover, fuse, lower, and prove that nothing changed but speed."""


for _command in (fuse, quantize, verify, explain, inspect, rules, bench, demo):
    graphopt.add_command(_command)


def main() -> None:
    """The program."""
    signal.signal(signal.SIGTERM, _terminate)
    # A name that the terminal cannot show is no reason to fail.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code. Errors are printed on stderr."""
    try:
        return int(graphopt.main(list(arguments), prog_name="graphopt", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return 2
    except click.UsageError as error:
        return _fail(usage_error(error), arguments)
    except GraphoptError as error:
        return _fail(error, arguments)
    except click.Abort:
        return _INTERRUPTED
    except _Terminated:
        return _TERMINATED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except Exception as error:
        return _fail(_bug(error), arguments)


def _fail(error: GraphoptError, arguments: Sequence[str]) -> int:
    if "--traceback" in arguments:
        traceback.print_exc()
    click.echo(str(error), err=True)
    return error.exit_code


def _bug(error: Exception) -> GraphoptError:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_HERE)]
    return GraphoptError(
        "GO070",
        f"a bug in graphopt: {type(error).__name__}: {error}",
        f"{ours[-1].filename}:{ours[-1].lineno}",
        "please report it, with the output of the same command with --traceback",
    )


def _terminate(number: int, frame: FrameType | None) -> None:
    # An exception, so that everything that was begun is ended and removed on the way out.
    raise _Terminated
