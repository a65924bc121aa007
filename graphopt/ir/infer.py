"""Element types, symbolic shapes and small integer contents of all values, from the graph's inputs and constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import cast

from graphopt.ir.attributes import Reference
from graphopt.ir.dims import Dim, Shape, Unknowns
from graphopt.ir.graph import Graph
from graphopt.ir.inference import (
    attention,
    control,
    creation,
    elementwise,
    fallback,
    indexing,
    products,
    reduction,
    shaping,
)
from graphopt.ir.inference.contents import within
from graphopt.ir.inference.outs import Out, Table
from graphopt.ir.inference.sizes import MOST_AXES, Partial, is_plain
from graphopt.ir.model import Model
from graphopt.ir.node import Node

_TABLE: Table = {
    **attention.TABLE,
    **control.TABLE,
    **creation.TABLE,
    **elementwise.TABLE,
    **indexing.TABLE,
    **products.TABLE,
    **reduction.TABLE,
    **shaping.TABLE,
}
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
"""What comes of a node that lacks operands, or whose attributes are of another type or out of range."""


def infer(model: Model) -> None:
    """Infers every value of every scope; a subgraph before the outputs of the node that holds it.

    What the file declares stands only where inference knows nothing. What was inferred before, and did not change
    since, is not looked at again.
    """
    ledger = model.ledger
    if ledger.inferred != ledger.mark():
        for graph in [model.graph, *(function.graph for function in model.functions.values())]:
            for node in _order(graph) if ledger.inferred < 0 else _stale(graph, ledger.inferred):
                infer_node(node)
        ledger.inferred = ledger.mark()


def infer_node(node: Node) -> None:
    """Sets dtype, shape and content of the outputs of `node` from its inputs.

    An output keeps the dimensions it had where nothing is known of them now, so that their names stay; a dimension
    that nobody knows gets a name of its own. A malformed node tells nothing.
    """
    unknowns = node.graph.ledger.unknowns
    for value, (dtype, shape, content) in zip(node.outputs, outputs_of(node), strict=False):
        node.graph.set_type(value, dtype or value.dtype, _completed(shape, value.shape, unknowns))
        node.graph.set_content(value, within(content, value.dtype))


def outputs_of(node: Node) -> Sequence[Out]:
    """What follows for the outputs of `node` from its inputs; nothing is changed."""
    for attribute in node.attrs.values():
        if isinstance(attribute, Reference):
            return []
    function = _TABLE.get((node.domain, node.op))
    try:
        outs = function(node) if function is not None else None
        outs = fallback.infer(node) if outs is None else outs
        return outs if all(map(_is_sound, outs)) else []
    except MALFORMED:
        return []


def _is_sound(out: Out) -> bool:
    """Whether types and sizes are such: attributes may be of any kind in a malformed node."""
    sizes = (*(out.shape or ()), *(out.content or ()))
    return isinstance(out.dtype, int) and all(size is None or isinstance(size, (int, Dim)) for size in sizes)


def _completed(shape: Partial | None, old: Shape | None, unknowns: Unknowns) -> Shape | None:
    """`shape`, with what it lacks taken from `old` or made up."""
    if shape is None or shape == old or len(shape) > MOST_AXES:
        return old
    if all(map(is_plain, shape)):
        return cast(Shape, shape)
    known: Partial = old if old is not None and len(old) == len(shape) else (None,) * len(shape)
    merged = [a if is_plain(a) else b for a, b in zip(shape, known, strict=True)]
    return tuple(size if size is not None else unknowns.fresh() for size in merged)


def _order(graph: Graph) -> Iterator[Node]:
    """The operations in order, those of its subgraphs before a node. Scopes are seeded as they are entered."""
    walks = [graph.ops()]
    holders: list[Node] = []
    while walks:
        node = next(walks[-1], None)
        if node is None:
            walks.pop()
            if holders:
                yield holders.pop()
        elif node.graphs:
            holders.append(node)
            walks.append(_enter(node))
        else:
            yield node


def _stale(graph: Graph, mark: int) -> Iterator[Node]:
    """Of the same order, what changed after `mark`, what reads what did, and what holds subgraphs."""
    changes, news = graph.ledger.changes, set[Node]()
    for node in _order(graph):
        # Grows with what is inferred meanwhile.
        if mark < len(changes):
            news.update(changes[mark:])
            mark = len(changes)
        if node.graphs or node in news or not news.isdisjoint(node.producers()):
            yield node


def _enter(holder: Node) -> Iterator[Node]:
    for graph in holder.subgraphs:
        with suppress(*MALFORMED):
            control.seed(graph)
        yield from graph.ops()
