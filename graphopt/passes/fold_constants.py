"""Constant folding: what follows from constants alone is computed once, here."""

from __future__ import annotations

import math

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.graph import Graph
from graphopt.ir.infer import MALFORMED, outputs_of
from graphopt.ir.model import Model
from graphopt.ir.node import Node, Value
from graphopt.ir.tensor import Tensor
from graphopt.passes import evaluate
from graphopt.passes.fold_budget import SMALL, Budget, steps_of


def fold_constants(model: Model, budget: Budget | None = None) -> int:
    """Replaces operations on constants by their results; returns how many.

        t = Transpose(w, perm=[1, 0])             t = float32[64, 32] ...
        s = Sqrt(16.0)                     →      y = MatMul(Div(x, 4.0), t)
        y = MatMul(Div(x, s), t)

    A result keeps the name of what it replaces. It may take 64 KiB, or twice what its operands take; a larger one is
    made only from large constants that nothing else reads, so that no weight is written twice. Its size is known before
    it is computed, and all of them together stay within the `budget`. Overridable initializers are inputs, not
    constants. Constants that a scope captures count. Operators outside `evaluate.TABLE`, all random ones and loops
    among them, stay.
    """
    folded, budget = 0, budget or Budget()
    for graph in model.scopes():
        for node in graph.ops():
            constant = _forwarded(node)
            if constant is not None:
                graph.replace(node.output, constant)
            else:
                tensor = _computed(node, budget)
                if tensor is None:
                    continue
                _put(graph, node.output, tensor)
            graph.remove(node)
            folded += 1
    return folded


def _forwarded(node: Node) -> Value | None:
    """The constant that an Identity passes on, unless that gives a graph output its name."""
    value = node.input(0) if node.is_op("Identity") else None
    if value is None or value.resolved.tensor is None or node.graph.is_output(node.output):
        return None
    return value


def _computed(node: Node, budget: Budget) -> Tensor | None:
    """What `node` computes; None where that is not known, not certain, or too much."""
    evaluation = evaluate.TABLE.get(node.op)
    if evaluation is None or node.domain or len(node.outputs) != 1 or node.output.uses == 0:
        return None
    operands: list[Tensor | None] = []
    for value in node.inputs:
        tensor = value.resolved.tensor if value is not None else None
        if value is not None and (tensor is None or tensor.dtype not in evaluate.FOLDABLE):
            return None
        operands.append(tensor)
    made = _result(node)
    if made is None or not _may_take(node, operands, size := made[1]):
        return None
    if not budget.allows(node, steps_of(node, operands, made[0]), size):
        return None
    try:
        with np.errstate(all="ignore"):
            result = evaluation(node, [None if tensor is None else tensor.numpy() for tensor in operands])
    except MALFORMED:
        # Malformed: left for the runtime to reject.
        return None
    if result is None:
        return None
    budget.write(size)
    return Tensor.of(result)


def _may_take(node: Node, operands: list[Tensor | None], size: int) -> bool:
    """Whether a result may be as large as `size` bytes, whatever is left."""
    if size <= SMALL:
        return True
    if size > 2 * sum(tensor.nbytes for tensor in operands if tensor is not None):
        return False
    large = [
        value
        for value, tensor in zip(node.inputs, operands, strict=True)
        if value is not None and tensor is not None and tensor.nbytes > SMALL
    ]
    return all(value.uses == 1 and value.node.op == "Constant" for value in large)


def _result(node: Node) -> tuple[int, int] | None:
    """(elements, bytes) of the result, before it is made; None where inference does not know them.

    Of a node with attributes that a function's caller gives, inference knows nothing.
    """
    outs = outputs_of(node)
    if not outs or outs[0].shape is None or outs[0].dtype not in evaluate.FOLDABLE:
        return None
    sizes = [size for size in outs[0].shape if isinstance(size, int)]
    if len(sizes) < len(outs[0].shape):
        return None
    count = math.prod(sizes)
    return count, count * dtypes.to_numpy(outs[0].dtype).itemsize


def _put(graph: Graph, value: Value, tensor: Tensor) -> None:
    """Puts a constant in place of `value`; a graph output alone reads it through an Identity, which keeps its name."""
    constant = graph.add_constant(tensor, value.name)
    if graph.is_output(value):
        for reader, slot in graph.consumers(value):
            if reader is not graph.output:
                graph.set_input(reader, slot, constant)
    graph.replace(value, constant, take_name=True)
