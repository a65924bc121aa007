"""What the training of a model names: its weights are no constants, its values no inner ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx

from graphopt.ir.graph import Graph
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
    _drop_outputs(graph, slots)
    for node in unlisted:
        graph.inputs.remove(node)
    for node in weights:
        graph.set_op(node, "Constant", IR_DOMAIN, 0)


def _drop_outputs(graph: Graph, slots: list[int]) -> None:
    """Takes outputs away; others that were added behind them meanwhile stay."""
    output = graph.output
    behind = [value for slot, value in enumerate(output.inputs) if slots and slot > slots[-1]]
    while slots and len(output.inputs) > slots[0]:
        graph.set_input(output, len(output.inputs) - 1, None)
        output.inputs.pop()
    output.arity = len(output.inputs)
    for value in behind:
        graph.add_slot(output, value)


def training_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of what initializes and what updates the weights, those of their subgraphs included."""
    waiting = [graph for training in model.training_info for graph in (training.initialization, training.algorithm)]
    while waiting:
        for node in waiting.pop().node:
            yield node
            waiting += [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]


def _named(model: onnx.ModelProto) -> set[str]:
    """Names of values, those of the training algorithm's own included."""
    names: set[str] = set()
    for training in model.training_info:
        names.update(entry.key for entry in (*training.initialization_binding, *training.update_binding))
        for graph in (training.initialization, training.algorithm):
            names.update(entry.name for entry in (*graph.output, *graph.initializer))
    for node in training_nodes(model):
        names.update(node.input, node.output)
    return names - {""}
