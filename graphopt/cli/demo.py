"""`graphopt demo`: the whole of graphopt on a transformer that needs no download."""

from __future__ import annotations

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen


@click.command(short_help="Build a transformer, fuse it, verify it, show the gain.")
@click.option("--keep", metavar="DIR", help="Keep the two models in a folder.")
@screen
def demo(screen: Screen, keep: str | None) -> int:
    """Build a transformer the size of BERT-base as an exporter writes it, fuse it, verify it, and time both."""
    return 0
