"""`graphopt bench`: paired latency of models in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphopt.cli.options import screen, timing
from graphopt.cli.screen import Screen
from graphopt.cli.types import NAMED_SHAPE


@click.command(short_help="Time models side by side.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--shape", "shapes", type=NAMED_SHAPE, multiple=True, help="The shape of an input; repeatable.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads inside one op; default: one for each core.")
@click.option("--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Runs of each model.")
@timing
@screen
def bench(
    screen: Screen,
    models: tuple[str, ...],
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    dims: tuple[tuple[str, int], ...],
    inputs: str | None,
    **options: Any,
) -> int:
    """Time each MODEL in onnxruntime's default session, in turn in one process and on the same inputs. The first is
    what the others are compared with."""
    from graphopt.bench import feeds_for, time_models
    from graphopt.pipeline import load
    from graphopt.report import schema, terminal

    first = load(models[0])
    feeds = feeds_for(first, dims=dict(dims), shapes=dict(shapes), inputs=Path(inputs) if inputs else None)
    timed = time_models([Path(model) for model in models], feeds, **options)
    screen.show(schema.timing(timed), lambda: terminal.timing(timed))
    return 0
