"""`graphopt explain`: why a rule did or did not fire, node by node."""

from __future__ import annotations

from typing import Any

import click

from graphopt.cli.options import deciding, screen
from graphopt.cli.screen import Screen
from graphopt.cli.types import BINDING


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
@deciding
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
