"""`graphopt explain`: why a rule did or did not fire, node by node."""

from __future__ import annotations

from typing import Any

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen
from graphopt.cli.types import BINDING, SIZE


@click.command(short_help="Say why a rule did or did not fire, node by node.")
@click.argument("model")
@click.option("--rule", metavar="RULE", multiple=True, help="Say all there is on this rule; repeatable.")
@click.option("--node", metavar="NODE|VALUE", multiple=True, help="Say what became of a node; repeatable.")
@click.option(
    "--require",
    metavar="MEANING=COUNT",
    type=BINDING,
    multiple=True,
    help="Exit 1 if fewer of these, Attention=12, are in the result; repeatable.",
)
@click.option(
    "--target",
    default="ort-cpu",
    show_default=True,
    metavar="NAME",
    help="ort-cpu, ort-cuda, onnx, auto (by installed providers), or a table FILE.json.",
)
@click.option("--disable", metavar="RULE", multiple=True, help="Leave a rule out; repeatable.")
@click.option("--rules", metavar="FILE|MODULE", multiple=True, help="Add rules; repeatable.")
@click.option("--keep-opset", is_flag=True, help="Do not raise the opset, even where that lets a fused op be written.")
@click.option("--assume", metavar="FACT", multiple=True, help="Promise of the inputs: no-empty-rows. Repeatable.")
@click.option(
    "--max-new-weights",
    type=SIZE,
    default="512MiB",
    show_default=True,
    metavar="SIZE",
    help="Leave out a rule whose rewrites would together add more than this.",
)
@screen
def explain(screen: Screen, model: str, require: tuple[tuple[str, int], ...], **options: Any) -> int:
    """Rewrite MODEL as fuse does, write nothing, and say why each rule did not fire where it did not.

    Without --rule and --node: what came nearest to one more fusion.
    """
    from graphopt import pipeline
    from graphopt.report import schema
    from graphopt.report.explanation import explanation

    with screen.progress() as progress:
        found = pipeline.explain(model, require=dict(require), progress=progress, **options)
    screen.show(schema.explanation(found), lambda: explanation(found, verbose=screen.verbose))
    return screen.fail(*found.errors)
