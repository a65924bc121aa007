"""Excerpts: a few nodes of a graph as a model of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from graphopt.ir import IR_DOMAIN, Model, Node, Shape, Tensor, Value
from graphopt.ir.attributes import Reference

Shapes = Callable[[Shape], Shape]
Tensors = Callable[[Tensor], Tensor]


def excerpt(
    roots: Sequence[Value],
    inputs: Collection[str],
    *,
    shapes: Shapes = lambda shape: shape,
    tensors: Tensors = lambda tensor: tensor,
) -> Model:
    """A model that computes `roots` of one scope as that scope does, from the values called `inputs` and constants.

    Where the scope itself begins, and where a node has subgraphs, there is an input as well. Names stay, but those of
    nodes; constants are those of the scope. `shapes` and `tensors` may change what inputs and constants are.
    """
    scope = roots[0].node.graph
    model = Model.empty(scope.opsets.get("", 1))
    model.opsets.update(scope.opsets)
    model.ledger.base = scope.ledger.base
    new: dict[Value, Value] = {}
    nodes, sources = _cone(roots, set(inputs) - {root.name for root in roots})
    for value in sources:
        tensor = value.resolved.tensor
        if tensor is not None:
            new[value] = model.graph.add_constant(tensors(tensor), value.name)
        else:
            shape = shapes(value.shape) if value.shape is not None else None
            new[value] = model.graph.add_input(value.name, value.dtype, shape)
    for node in nodes:
        _copy(node, model, new)
    for root in roots:
        model.graph.add_slot(model.graph.output, new[root])
    return model


def inner_names(model: Model) -> list[str]:
    """The names of what the nodes of an excerpt compute, first to last."""
    return [value.name for node in model.graph.ops() for value in node.outputs if value.name]


def _cone(roots: Sequence[Value], inputs: Collection[str]) -> tuple[list[Node], list[Value]]:
    """The nodes that compute `roots`, in order, and the values they start from, in the order in which they are read."""
    nodes: set[Node] = set()
    stack = [root.node for root in roots]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack += [v.node for v in node.inputs if v is not None and not _is_source(v, inputs)]
    ordered = sorted(nodes, key=lambda node: node.rank)
    read = (value for node in ordered for value in node.inputs[: node.arity] if value is not None)
    return ordered, list(dict.fromkeys(value for value in read if _is_source(value, inputs)))


def _is_source(value: Value, inputs: Collection[str]) -> bool:
    node = value.node
    whole = node.is_source or node.graphs is not None or value.resolved.tensor is not None
    return whole or value.name in inputs or any(isinstance(one, Reference) for one in node.attrs.values())


def _copy(node: Node, model: Model, new: dict[Value, Value]) -> None:
    operands = [new[value] if value is not None else None for value in node.inputs[: node.arity]]
    names = [value.name for value in node.outputs]
    copy = model.graph.add_op(
        node.op, operands, _attributes(node), domain=node.domain, version=node.version, outputs=names
    )
    copy.overload = node.overload
    if node.domain != IR_DOMAIN:
        model.graph.import_domain(node.domain, node.version)
    for value, old in zip(copy.outputs, node.outputs, strict=True):
        value.dtype = old.dtype
        new[old] = value


def _attributes(node: Node) -> Mapping[str, object]:
    return {name: value for name, value in node.attrs.items() if value is not None}
