"""The command line: one file per command, each a thin shell over a function of `graphopt.pipeline` or `graphopt.bench`.

Modules here import click at their top and the rest inside the command, so that help and usage errors are immediate.
"""

from graphopt.cli.app import main

__all__ = ["main"]
