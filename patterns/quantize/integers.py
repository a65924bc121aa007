"""Activations that are integers already, and what an operator between them needs."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.products import on_grid
from graphopt.rewrite import Builder, Context, Grid, Reason, const, constant_of, like, numbers_of
from graphopt.rewrite.facts import attribute
from graphopt.rewrite.grids import activation_grid, quantized

_BYTES = ("uint8", "int8")

Integers = Annotated[Value, like(dtype=_BYTES)]
Scale = Annotated[Value, const(rank=0, dtype="float32")]
Zero = Annotated[Value, const(rank=0, dtype=_BYTES)]


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


def image_of(root: Value) -> Value:
    """What an operator reads, with the Relu or Clip after it left aside."""
    image = computed(root).node.inputs[0]
    assert image is not None
    return image


def back(op: Builder, q: Value, x: Value) -> Value:
    """The numbers of integers on the grid of `x`."""
    return op.DequantizeLinear(q, *x.node.inputs[1:3])


def on_grids(*operands: Value) -> Reason:
    """Whether operands are integers already."""
    apart = next((x for x in operands if grid_of(x) is None), None)
    return apart is None or f"{apart.name} is not on a grid of bytes"


FOR_BYTES = 13
"""The opset from which on operators that move numbers are for bytes as well."""


def computed(root: Value) -> Value:
    """What a Relu or a Clip cuts, else the value itself."""
    inner = root.node.inputs[0]
    return inner if root.node.op in ("Relu", "Clip") and inner is not None else root


def kept(ctx: Context, root: Value) -> Reason:
    """Whether a value stays integer, and is not rounded yet."""
    if computed(root) is not root and computed(root).uses > 1:
        return "what is cut is read elsewhere as well"
    readers = root.node.graph.consumers(root)
    if readers and all(reader.is_op("QuantizeLinear") for reader, _ in readers):
        return "the result is rounded already"
    grid = ctx.grid(root)
    if grid is None:
        return "the plan does not keep the result on a grid"
    return grid.axis is None or "the grid of an activation is one for all channels"


def alone(ctx: Context, root: Value) -> Reason:
    """Whether no Relu or Clip after a value, which gets the grid in its place, goes with it."""
    readers = root.node.graph.consumers(root)
    cuts = len(readers) == root.uses == 1 and readers[0][0].op in ("Relu", "Clip")
    taken = cuts and ctx.grid(readers[0][0].output) is not None
    return not taken or f"it goes with the {readers[0][0].op} after it"


def result(op: Builder, ctx: Context, root: Value, y: Value) -> Value:
    """`y`, cut as `root` is, rounded to the grid of the value that it replaces."""
    grid = ctx.grid(root)
    assert grid is not None
    return on_grid(op, cut(op, y, root, grid), grid)


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


def cut(op: Builder, y: Value, root: Value, grid: Grid) -> Value:
    """`y` with the Relu or Clip of `root`; itself where rounding to `grid` cuts there anyway, to half a step."""
    within = bounds(root)
    low, high = ends(grid)
    half = float(grid.scale) / 2
    if within is not None and within[0] - half <= low and high <= within[1] + half:
        return y
    node = root.node
    return op.Relu(y) if node.op == "Relu" else op.Clip(y, *node.inputs[1:], **node.attrs)


def rounded_constant(op: Builder, c: Value, like: Grid) -> Value:
    """A constant of finite numbers on a grid of its own, with integers of the type of `like`."""
    numbers = numbers_of(c)
    grid = grid_between(float(numbers.min()), float(numbers.max()), like)
    scale, zero = op.const(grid.scale, name="scale"), op.const(grid.zero_point, name="zero_point")
    return op.DequantizeLinear(op.const(quantized(numbers, grid)), scale, zero)


def grid_between(low: float, high: float, like: Grid) -> Grid:
    """The grid of numbers from `low` to `high`, with integers of the type of `like`."""
    return activation_grid(low, high, "int8" if like.zero_point.dtype == np.int8 else "uint8")


def hard_gate(op: Builder, x: Value, alpha: float, beta: float) -> Value:
    """min(max(α·x + β, 0), 1) of an image on a grid, on the grid from 0 to 1, for α > 0.

    The sum of x and β/α is rounded to the grid from 0 to 1/α, which cuts it, and its integers are read as from 0 to 1.
    """
    grid = grid_of(x)
    assert grid is not None
    summed, unit = (grid_between(0.0, high, grid) for high in (1 / alpha, 1.0))
    y = op.Add(x, rounded_constant(op, op.const(beta / alpha, like=x), grid))
    zero = op.const(unit.zero_point, name="zero_point")
    q = op.QuantizeLinear(y, op.const(summed.scale, name="scale"), zero)
    return op.DequantizeLinear(q, op.const(unit.scale, name="scale"), zero)
