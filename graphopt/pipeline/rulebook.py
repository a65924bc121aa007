"""The page of a rule."""

from __future__ import annotations

from inspect import cleandoc

from graphopt.rewrite import CompiledRule


def page(rule: CompiledRule) -> str:
    """What the rule's author says of it: what, why, before, after, safety."""
    return cleandoc(type(rule.rule).__doc__ or "")
