"""The page of a rule."""

from __future__ import annotations

import re
from inspect import cleandoc

from graphopt.rewrite import CompiledRule


def page(rule: CompiledRule) -> str:
    """What the rule's author says of it: what, why, before, after, safety."""
    return cleandoc(type(rule.rule).__doc__ or "")


def parts(rule: CompiledRule) -> dict[str, str]:
    """The parts of a page by name (`Why`, `Before`, ...), without line breaks; the first is `What`."""
    what, *rest = re.split(r"\n([A-Z]\w*): ", page(rule))
    named = {"What": what, **dict(zip(rest[::2], rest[1::2], strict=True))}
    return {name: re.sub(r"(?<=\S)\n(?=\S)", " ", text.strip()) for name, text in named.items()}
