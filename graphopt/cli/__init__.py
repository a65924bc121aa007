"""The command line: one file per command, each a thin shell over a function of `graphopt.pipeline` or `graphopt.bench`.

Modules here import click at their top and the rest inside the command, so that help and usage errors are immediate.
"""

from __future__ import annotations

import sys
from contextlib import suppress

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
        code = stop.exit_code
        with suppress(OSError):
            print(stop, file=sys.stderr)
    ignore()
    sys.exit(code)
