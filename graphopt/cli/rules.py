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
    from graphopt.errors import UsageError, near
    from graphopt.pipeline import all_rules
    from graphopt.report import schema, terminal

    known = {rule.name: rule for rule in all_rules(sources)}
    if name is None:
        screen.show(schema.rules(known.values()), lambda: terminal.rules(known.values()))
        return 0
    if name not in known:
        raise UsageError("GO010", f"no rule is called '{name}'", "graphopt rules", near(name, known))
    screen.show(schema.rules([known[name]]), lambda: terminal.rule(known[name]))
    return 0
