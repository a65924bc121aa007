"""`graphopt bench`: paired latency of models in one run."""

from __future__ import annotations

from typing import Any

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen


@click.command(short_help="Time models side by side.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@screen
def bench(screen: Screen, models: tuple[str, ...], **options: Any) -> int:
    """Time each MODEL in onnxruntime's default session, in turn in one process; the first is what the others are
    compared with."""
    return 0
