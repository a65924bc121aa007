"""Weights that a product reads transposed and others as they are: those of a table of embeddings, mostly."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from graphopt.ir import Model, Node, Tensor
from graphopt.quantize.sites import key
from graphopt.rewrite import constant_of


def untie(model: Model, names: Container[str] | None = None) -> None:
    """Gives products that read the transpose of a constant weights of their own; `names` are those of the values that
    they make, None stands for all.

    Folding leaves such a transpose, for it would write the weights twice. Integers are no copy of them.
    """
    for graph in model.scopes():
        for node in graph.ops():
            tensor = _transposed(node)
            if tensor is not None and (names is None or key(node.output) in names):
                stem = node.inputs[1].name if node.inputs[1] is not None else ""
                graph.set_input(node, 1, graph.add_constant(tensor, stem))


def _transposed(node: Node) -> Tensor | None:
    """The weights of a product that are the transpose of a constant; None for any other node."""
    weights = node.input(1)
    if weights is None or node.domain or node.op not in ("MatMul", "Gemm"):
        return None
    transpose = weights.node
    given = transpose.input(0)
    tied = constant_of(given) if given is not None and transpose.is_op("Transpose") else None
    if tied is None:
        return None
    order = tuple(transpose.attr("perm", range(len(tied.shape))[::-1]))
    shape = tuple(tied.shape[axis] for axis in order)
    return Tensor.deferred(tied.dtype, shape, lambda: np.ascontiguousarray(tied.numpy().transpose(order)))
