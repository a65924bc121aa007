"""`graphopt inspect`: what is in a model."""

from __future__ import annotations

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen


@click.command(short_help="Print what is in a model: ops, fused ops, parameters, shapes, opsets.")
@click.argument("model")
@screen
def inspect(screen: Screen, model: str) -> int:
    """Print what is in MODEL: ops, fused ops, parameters, shapes, opsets. Weights in external files are not read."""
    from graphopt import pipeline
    from graphopt.report import schema, terminal

    inspection = pipeline.inspect(model)
    screen.show(schema.inspection(inspection), lambda: terminal.inspection(inspection))
    return 0
