"""Activations that are integers already, and what an operator between them needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.patterns.quantize.products import on_grid
from graphopt.rewrite import Builder, Context, Grid, Reason, constant_of
from graphopt.rewrite.facts import attribute

_BYTES = ("uint8", "int8")


def grid_of(x: Value) -> Grid | None:
    """The grid of an activation that is dequantized from bytes, one for the whole tensor; None where it is none."""
    node = x.node
    if not node.is_op("DequantizeLinear") or node.arity != 3 or constant_of(integers_of(x)) is not None:
        return None
    scale, zero = (constant_of(value) if value is not None else None for value in node.inputs[1:3])
    if scale is None or zero is None or scale.size != 1 or str(zero.numpy().dtype) not in _BYTES:
        return None
    return Grid(scale.numpy().reshape(()), zero.numpy().reshape(()))


def integers_of(x: Value) -> Value:
    """What a DequantizeLinear reads."""
    integers = x.node.inputs[0]
    assert integers is not None
    return integers


def back(op: Builder, q: Value, x: Value) -> Value:
    """The numbers of integers on the grid of `x`."""
    return op.DequantizeLinear(q, *x.node.inputs[1:3])


def on_grids(*operands: Value) -> Reason:
    """Whether operands are integers already."""
    apart = next((x for x in operands if grid_of(x) is None), None)
    return apart is None or f"{apart.name} is not on a grid of bytes"


def kept(ctx: Context, root: Value) -> Reason:
    """Whether a value stays integer, and is not rounded yet."""
    readers = root.node.graph.consumers(root)
    if readers and all(reader.is_op("QuantizeLinear") for reader, _ in readers):
        return "the result is rounded already"
    grid = ctx.grid(root)
    if grid is None:
        return "the plan does not keep the result on a grid"
    return grid.axis is None or "the grid of an activation is one for all channels"


def result(op: Builder, ctx: Context, root: Value, y: Value) -> Value:
    """`y` rounded to the grid of the value that it replaces."""
    grid = ctx.grid(root)
    assert grid is not None
    return on_grid(op, y, grid)


def ends(grid: Grid) -> tuple[float, float]:
    """The least and the greatest number of a grid."""
    limits = np.iinfo(grid.zero_point.dtype)
    zero, scale = int(grid.zero_point), float(grid.scale)
    return (limits.min - zero) * scale, (limits.max - zero) * scale


def bounds(root: Value) -> tuple[float, float] | None:
    """What a Relu or a Clip cuts at; without bounds for any other operator, None for bounds that are not known."""
    node = root.node
    if node.is_op("Relu"):
        return 0.0, np.inf
    if not node.is_op("Clip"):
        return -np.inf, np.inf
    low, high = attribute(node, "min"), attribute(node, "max")
    if not all(bound is None or isinstance(bound, float) for bound in (low, high)):
        return None
    return -np.inf if low is None else low, np.inf if high is None else high


def absorbs(grid: Grid, root: Value) -> Reason:
    """Whether rounding to `grid` cuts where the Relu or Clip `root` does, so that it need not: to half a step."""
    cut = bounds(root)
    if cut is None:
        return "the bounds are not constants"
    low, high = ends(grid)
    half = float(grid.scale) / 2
    within = cut[0] - half <= low and high <= cut[1] + half
    return within or f"the grid from {low:g} to {high:g} is wider than {root.node.op}"


def nearest(number: float, grid: Grid) -> Any:
    """The integer of `grid` that is nearest to `number`, of its type."""
    limits = np.iinfo(grid.zero_point.dtype)
    steps = np.rint(number / float(grid.scale)) + int(grid.zero_point)
    return np.clip(steps, limits.min, limits.max).astype(grid.zero_point.dtype)


def rounded_constant(op: Builder, c: Value, like: Grid) -> Value:
    """A constant on a grid of its own, from its least to its greatest number, with integers of the type of `like`."""
    tensor = constant_of(c)
    assert isinstance(tensor, Tensor)
    numbers, kind = tensor.numpy().astype(np.float64), like.zero_point.dtype
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    scale = np.float32((high - low) / 255 or 1.0)
    limits = np.iinfo(kind)
    zero = np.clip(np.rint(limits.min - low / float(scale)), limits.min, limits.max)
    q = np.clip(np.rint(numbers / float(scale)) + zero, limits.min, limits.max).astype(kind)
    return op.DequantizeLinear(op.const(q), op.const(scale, name="scale"), op.const(kind.type(zero), name="zero_point"))
