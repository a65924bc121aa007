"""The rules of one run: built in, installed, and the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import cleandoc

from graphopt.errors import UsageError
from graphopt.rewrite import CompiledRule, built_in_rules, rules_from


def all_rules(sources: Iterable[str] = ()) -> tuple[CompiledRule, ...]:
    """Every built-in and installed rule, and those in `sources` (Python files or modules).

    Raises: UsageError GO062 for a source that cannot be imported, GO063 for a rule whose name is taken.
    """
    rules = {rule.name: rule for rule in built_in_rules()}
    for source in sources:
        for rule in rules_from(source):
            other = rules.setdefault(rule.name, rule)
            if type(other.rule) is not type(rule.rule):
                raise UsageError(
                    "GO063", f"a rule called '{rule.name}' is there already", f"{rule.place}, {other.place}"
                )
    return tuple(rules.values())


def page(rule: CompiledRule) -> str:
    """What the rule's author says of it: what, why, before, after, safety."""
    return cleandoc(type(rule.rule).__doc__ or "")
