"""Dead code: operations, constants and captures that nobody reads."""

from __future__ import annotations

from graphopt.ir.graph import Graph
from graphopt.ir.model import Model


def remove_dead(model: Model) -> int:
    """Removes what no graph output depends on; returns the number of nodes, sources included, that went.

        h = Relu(x)                               y = Neg(x)
        s = Shape(h)                       →
        y = Neg(x)

    ONNX operators have no effects, so an operation none of whose outputs is read goes, whatever its domain. Graph
    inputs, overridable initializers and functions stay: they are the model's interface. So does everything in a model
    without outputs: onnxruntime loads it, but not an empty graph.
    """
    removed = 0
    if not model.graph.outputs:
        return removed
    # A capture that goes frees what it captured, so inner scopes come first.
    for graph in reversed(list(model.scopes())):
        removed += _remove_operations(graph)
        removed += _remove_captures(graph)
        removed += _remove_constants(graph)
    return removed


def _remove_operations(graph: Graph) -> int:
    removed = 0
    node = graph.output.previous
    while node is not None:
        previous = node.previous
        if all(value.uses == 0 for value in node.outputs):
            graph.remove(node)
            removed += 1
        node = previous
    return removed


def _remove_captures(graph: Graph) -> int:
    unused = [node for node in graph.captures.values() if node.output.uses == 0]
    for node in unused:
        graph.remove(node)
    return len(unused)


def _remove_constants(graph: Graph) -> int:
    kept = set(graph.inputs)
    named = _named_by_annotations(graph)
    unused = [
        node
        for node in graph.sources("Constant")
        if node.output.uses == 0 and node not in kept and node.output.name not in named
    ]
    for node in unused:
        graph.remove(node)
    return len(unused)


def _named_by_annotations(graph: Graph) -> set[str]:
    """Scales and zero points that quantization annotations refer to by name only."""
    annotations = getattr(graph.proto, "quantization_annotation", ())
    return {entry.value for annotation in annotations for entry in annotation.quant_parameter_tensor_names}
