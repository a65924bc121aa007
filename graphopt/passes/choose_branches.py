"""Branches that are known: an If whose condition is a constant is the branch that it takes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from graphopt.ir.model import Model
from graphopt.ir.node import Node
from graphopt.ir.operands import known_content
from graphopt.passes.expand import Body, expand
from graphopt.rewrite import Trace
from graphopt.rewrite.engine import SiteKey

_NAME: Final = "choose_branches"


def choose_branches(model: Model, trace: Trace, exclude: Collection[SiteKey] = frozenset()) -> int:
    """Puts the branch that is taken in place of an If whose condition is known; returns how many went.

        y = If(true,                              y = Squeeze(x, [1])
          then_branch=() { Squeeze(x, [1]) },  →
          else_branch=() { Identity(x) })

    Conditions are known by their numbers, or by what inference says of their contents; those that a branch captures
    count. `trace` is told of the sites, `exclude` names some that stay.
    """

    chosen = 0
    for graph in model.scopes():
        if any(_branch(node) is not None for node in graph.ops()):
            chosen += expand(graph, _NAME, _branch, trace, exclude)
    return chosen


def _branch(node: Node) -> Body | None:
    """The branch that an If takes; None where that is not known, or `node` is no If."""
    condition = node.input(0) if node.graphs and node.is_op("If") else None
    content = known_content(condition.resolved) if condition is not None else None
    taken = (node.graphs or {}).get("then_branch" if content and content[0] else "else_branch", [])
    if content is None or len(content) != 1 or len(taken) != 1 or not node.outputs:
        return None
    (graph,) = taken
    captured = {capture.output: node.inputs[slot] for slot, capture in graph.captures.items()}
    return Body(graph, captured, once=True)
