"""Reductions and normalizations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from graphopt.ir import dtypes
from graphopt.ir.inference import contents, sizes
from graphopt.ir.inference.outs import Out, Outs, Table, operand, unknown
from graphopt.ir.inference.sizes import Part, Partial
from graphopt.ir.node import Node
from graphopt.ir.operands import axes, axis, known_content


def reduce(node: Node) -> Outs:
    value, gone = operand(node, 0), axes(node)
    keep = node.attr("keepdims", 1)
    if value.shape is None or gone is None:
        return [Out(value.dtype, unknown(value.rank if keep else None))]
    if keep:
        shape: Partial = tuple(1 if position in gone else size for position, size in enumerate(value.shape))
    else:
        shape = tuple(size for position, size in enumerate(value.shape) if position not in gone)
    content = known_content(value)
    fold = _FOLDS.get(node.op)
    followed = [fold(content)] if fold is not None and content is not None and gone == [0] else [None]
    return [Out(value.dtype, shape, contents.complete(followed))]


def layer_norm(node: Node, typed: int = 0) -> Outs:
    """LayerNormalization and RMSNormalization: y, of the type of input `typed`, and the statistics beside it."""
    value, first, dtype = operand(node, 0), axis(node, -1), operand(node, typed).dtype
    if value.shape is None or first is None:
        return [Out(dtype, value.shape)]
    statistics = value.shape[:first] + (1,) * (len(value.shape) - first)
    stash = node.attr("stash_type", dtypes.FLOAT)
    return [Out(dtype, value.shape), Out(stash, statistics), Out(stash, statistics)]


def batch_norm(node: Node) -> Outs:
    value = operand(node, 0)
    return [Out(value.dtype, value.shape)] if len(node.outputs) == 1 else None


def skip_layer_norm(node: Node) -> Outs:
    value = operand(node, 0)
    statistics = None if value.shape is None else (*value.shape[:-1], 1)
    like = Out(value.dtype, value.shape)
    return [like, Out(dtypes.FLOAT, statistics), Out(dtypes.FLOAT, statistics), like]


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)

_FOLDS: dict[str, Callable[[Iterable[Part]], Part]] = {"ReduceProd": sizes.product, "ReduceSum": sizes.total}

TABLE: Table = {
    **{("", op): reduce for op in _REDUCTIONS.split()},
    ("", "BatchNormalization"): batch_norm,
    ("", "LayerNormalization"): layer_norm,
    ("", "RMSNormalization"): partial(layer_norm, typed=1),
    ("", "SimplifiedLayerNormalization"): partial(layer_norm, typed=1),
    ("com.microsoft", "SkipLayerNormalization"): skip_layer_norm,
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): skip_layer_norm,
}
