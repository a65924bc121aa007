"""What the training of a model names: its weights are no constants, its values no inner ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx

from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN


@contextmanager
def hold_trained(model: Model) -> Iterator[None]:
    """Keeps what `training_info` names while a model is rewritten.

    An initializer that is updated, or read, by training is an input with a default meanwhile: what is computed from it
    is not constant. Other values that are read are outputs meanwhile. New values get none of the names.
    """
    graph = model.graph
    named = _named(model.proto)
    model.ledger.names |= named
    held = [graph.names[name] for name in sorted(named & graph.names.keys())]
    weights = [value.node for value in held if value.node.is_op("Constant", IR_DOMAIN) and value.node.data is not None]
    unlisted = [node for node in weights if node not in graph.inputs]
    for node in weights:
        graph.set_op(node, "Input", IR_DOMAIN, 0)
    graph.inputs.extend(unlisted)
    slots = [graph.add_slot(graph.output, value) for value in held if not value.node.is_op("Input", IR_DOMAIN)]
    yield
    for slot in reversed(slots):
        graph.set_input(graph.output, slot, None)
        graph.output.inputs.pop()
        graph.output.arity -= 1
    for node in unlisted:
        graph.inputs.remove(node)
    for node in weights:
        graph.set_op(node, "Constant", IR_DOMAIN, 0)


def _named(model: onnx.ModelProto) -> set[str]:
    """Names of values, those of the training algorithm's own included."""
    names: set[str] = set()
    graphs = []
    for training in model.training_info:
        names.update(entry.key for entry in (*training.initialization_binding, *training.update_binding))
        graphs += [training.initialization, training.algorithm]
    while graphs:
        graph = graphs.pop()
        names.update(entry.name for entry in (*graph.output, *graph.initializer))
        for node in graph.node:
            names.update(node.input, node.output)
            for attribute in node.attribute:
                graphs += [attribute.g, *attribute.graphs]
    return names - {""}
