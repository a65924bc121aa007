"""`graphopt bench`: what models cost, side by side in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import click

from graphopt.cli.options import screen, timing
from graphopt.cli.screen import Screen
from graphopt.cli.types import NAMED_SHAPE

T = TypeVar("T")


@click.command(short_help="Time models side by side; memory, size, providers.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--shape",
    "shapes",
    type=NAMED_SHAPE,
    multiple=True,
    help="The shape of an input, such as ids=1,128; repeatable. One input again, or one --dim again: one more set of "
    "shapes to time.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads inside one op; default: one for each core.")
@click.option("--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Runs of each model.")
@click.option(
    "--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="Runs before those, not counted."
)
@click.option("--profile", is_flag=True, help="Show what each kind of op costs.")
@click.option("--plot", metavar="FILE.png|.svg", help="Draw a picture; needs matplotlib.")
@timing
@screen
def bench(
    screen: Screen,
    models: tuple[str, ...],
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    dims: tuple[tuple[str, int], ...],
    inputs: str | None,
    plot: str | None,
    **options: Any,
) -> int:
    """Time each MODEL in onnxruntime's default session, in turn in one process and on the same inputs. The first is
    what the others are compared with. Each then runs alone, for its memory and for where its nodes run."""
    from graphopt import pipeline
    from graphopt.report import picture, timing, timing_schema

    drawn = Path(plot) if plot is not None else None
    if drawn is not None:
        picture.check_picture(drawn)
        screen.refuse_report_at(drawn, "the picture")
    with screen.progress() as progress:
        found = pipeline.bench(
            models, dims=_by_name(dims), shapes=_by_name(shapes), inputs=inputs, progress=progress, **options
        )
    if drawn is not None:
        picture.draw(found, drawn)
    screen.show(timing_schema.bench(found), lambda: timing.bench(found, verbose=screen.verbose))
    return 0


def _by_name(given: tuple[tuple[str, T], ...]) -> dict[str, list[T]]:
    """All values of each name, in their order."""
    found: dict[str, list[T]] = {}
    for name, value in given:
        found.setdefault(name, []).append(value)
    return found
