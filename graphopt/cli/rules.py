"""`graphopt rules`: the rules, and one rule's page."""

from __future__ import annotations

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen


@click.command(short_help="List the rules, or print one rule's page.")
@click.argument("name", required=False)
@click.option("--rules", "sources", metavar="FILE|MODULE", multiple=True, help="Add rules; repeatable.")
@screen
def rules(screen: Screen, name: str | None, sources: tuple[str, ...]) -> int:
    """The rules by stage; with NAME one rule's page: what it does, why, before and after, and why it is safe."""
    from graphopt.pipeline import find_rules
    from graphopt.report import schema, terminal

    found = find_rules(sources)
    if name is None:
        screen.show(schema.rules(found), lambda: terminal.rules(found.rules))
    else:
        found = found.select(only=[name])
        screen.show(schema.rules(found), lambda: terminal.pages(found.rules))
    return screen.fail(*(failure.error for failure in found.failures))
