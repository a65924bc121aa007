"""Operators that pick elements by index."""

from __future__ import annotations

from graphopt.ir import dtypes
from graphopt.ir.inference import contents
from graphopt.ir.inference.outs import Out, Outs, Table, operand, unknown
from graphopt.ir.inference.sizes import Part
from graphopt.ir.node import Node
from graphopt.ir.operands import axis, known_content, known_integers


def gather(node: Node) -> Outs:
    data, indices = operand(node, 0), operand(node, 1)
    along = axis(node)
    if data.shape is None or indices.shape is None or along is None:
        return [Out(data.dtype)]
    shape = data.shape[:along] + indices.shape + data.shape[along + 1 :]
    content = None
    if len(data.shape) == 1 and len(shape) <= 1:
        elements, picked = known_content(data), known_integers(indices)
        if elements is not None and picked is not None:
            content = contents.complete(elements[index] for index in picked)
    return [Out(data.dtype, shape, content)]


def gather_elements(node: Node) -> Outs:
    return [Out(operand(node, 0).dtype, operand(node, 1).shape)]


def gather_nd(node: Node) -> Outs:
    data, indices = operand(node, 0), operand(node, 1)
    if data.shape is None or not indices.shape or not isinstance(indices.shape[-1], int):
        return [Out(data.dtype)]
    left = node.attr("batch_dims", 0) + indices.shape[-1]
    return [Out(data.dtype, indices.shape[:-1] + data.shape[left:])]


def arg(node: Node) -> Outs:
    """ArgMax, ArgMin"""
    value, along = operand(node, 0), axis(node)
    if value.shape is None or along is None:
        return [Out(dtypes.INT64)]
    kept = (1,) if node.attr("keepdims", 1) else ()
    return [Out(dtypes.INT64, value.shape[:along] + kept + value.shape[along + 1 :])]


def top_k(node: Node) -> Outs:
    value, along = operand(node, 0), axis(node, -1)
    if value.shape is None or along is None:
        return [Out(value.dtype, unknown(value.rank)), Out(dtypes.INT64, unknown(value.rank))]
    written = node.attrs.get("k")
    content = (written,) if written is not None else known_content(node.input(1))
    count: Part = content[0] if content else None
    shape = (*value.shape[:along], count, *value.shape[along + 1 :])
    return [Out(value.dtype, shape), Out(dtypes.INT64, shape)]


def non_zero(node: Node) -> Outs:
    return [Out(dtypes.INT64, (operand(node, 0).rank, None))]


TABLE: Table = {
    ("", "ArgMax"): arg,
    ("", "ArgMin"): arg,
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "NonZero"): non_zero,
    ("", "TopK"): top_k,
}
