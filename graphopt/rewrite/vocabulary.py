"""Whether the operators and attributes that a rule names are there: a misspelled one would silently never match."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources

from graphopt.errors import close_names, near
from graphopt.ir.node import qualified
from graphopt.ir.schema import MICROSOFT, history, operators, signature
from graphopt.rewrite.blame import Mistake

_ANY_NUMBER = 1 << 30


def check_operation(domain: str, op: str, operands: int, attrs: Iterable[str]) -> None:
    """Raises Mistake for an operator, or an attribute of it, that no version of the domain has.

    What an operator has as an input may stand as an attribute too. Of `com.microsoft` only the operators of one release
    are known, so there a name is refused where one is near it; other domains without schemas cannot be checked.
    """
    known = _operators(domain)
    if not known:
        return
    shown = qualified(domain, op)
    if op not in known:
        if domain != MICROSOFT or close_names(op, known):
            raise Mistake(f"no operator is called '{shown}'", near(op, known))
        return
    names, most = _parts(domain, op)
    for name in attrs:
        if name not in names and (domain != MICROSOFT or close_names(name, names)):
            raise Mistake(f"{shown} has no attribute or input '{name}'", near(name, names))
    if operands > most:
        raise Mistake(f"{operands} operands for {shown}, which takes {most} at most", "leave out what is too many")


@cache
def _operators(domain: str) -> frozenset[str]:
    """The operators that are known of a domain."""
    contrib = (name.rpartition(".") for name in _contrib())
    return frozenset([*operators(domain), *(op for where, _, op in contrib if where == domain)])


@cache
def _parts(domain: str, op: str) -> tuple[frozenset[str], int]:
    """Names of the attributes and inputs that an operator has in any version, and how many inputs at most."""
    contrib = _contrib().get(qualified(domain, op))
    if contrib is not None:
        return frozenset(contrib), _ANY_NUMBER
    schemas = history(domain, op)
    if not schemas:
        known = signature(domain, op, 1)
        return frozenset([*known.attributes, *known.inputs]) if known else frozenset(), _ANY_NUMBER
    names = {name for schema in schemas for name in (*schema.attributes, *(part.name for part in schema.inputs))}
    return frozenset(names), max(schema.max_input for schema in schemas)


@cache
def _contrib() -> dict[str, Collection[str]]:
    """Operators that onnxruntime 1.31 has and onnx has not, with the names of their attributes and inputs."""
    text = resources.files("graphopt.rewrite").joinpath("contrib.json").read_text()
    found: dict[str, Collection[str]] = json.loads(text)
    return found
