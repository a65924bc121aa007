"""Constants of models from before IR 4, which have no initializers but inputs."""

from __future__ import annotations

from graphopt.ir.graph import Graph
from graphopt.ir.model import Model
from graphopt.ir.node import Node

_FIRST_WITH_INITIALIZERS = 4


def spell_constants(model: Model) -> int:
    """Makes a `Constant` node of each new constant of a model of IR 3; returns how many.

    There every initializer has to be listed as an input, and a new one would change the model's interface.
    """
    if model.proto.ir_version >= _FIRST_WITH_INITIALIZERS:
        return 0
    return sum(_spell(graph, node) for graph in model.scopes() for node in _new(graph))


def _new(graph: Graph) -> list[Node]:
    known = {tensor.name for tensor in graph.proto.initializer} if graph.proto is not None else set()
    return [node for node in graph.sources("Constant") if node.data is not None and node.output.name not in known]


def _spell(graph: Graph, source: Node) -> int:
    old = source.output
    new = graph.add_op(
        "Constant", [], {"value": source.data}, outputs=[old.name], before=next(graph.ops(), None)
    ).output
    graph.set_type(new, old.dtype, old.shape)
    graph.replace(old, new)
    graph.remove(source)
    return 1
