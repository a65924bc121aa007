"""The command line: one file per command, each a thin shell over a function of `graphopt.pipeline` or `graphopt.bench`.

Modules here import click at their top and the rest inside the command, so that help and usage errors are immediate.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from graphopt.cli.signals import Stopped, ignore, listen
from graphopt.cli.streams import open_streams

__all__ = ["main"]


def main() -> None:
    """The program."""
    try:
        listen()
        open_streams()
        # Here, because an import takes long enough to be interrupted.
        from graphopt.cli.app import run

        code = run(sys.argv[1:])
    except Stopped as stop:
        _leave(stop)
    ignore()
    # What is left goes with the process: the collector need not walk it once more.
    gc.freeze()
    sys.exit(code)


def _leave(stop: Stopped) -> NoReturn:
    """Says what was written, and ends. Python would take every object apart first: seconds, where a model is large."""
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        print(stop, file=sys.stderr, flush=True)
    os._exit(stop.exit_code)
