"""What the parts of a quantized product look like: activations and weights on grids, what is divided and added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.rewrite import Builder, Context, Expr, Grid, Integers, Ops, Reason, Recipe, constant_of
from graphopt.rewrite.plan import Scheme

_PER_AXIS = 13
"""The opset from which on QuantizeLinear and DequantizeLinear have an axis."""
_BLOCKED = 21
"""The opset from which on DequantizeLinear has blocks, and 4 bits."""


def linear(op: Ops, x: Any, w: Any, c: Any, turned: Any) -> Expr:
    """A product with a matrix, and what Gemm adds to it."""
    return op.MatMul(x, w) | op.Gemm(x, w, c, transB=turned)


def planned(ctx: Context, root: Value, scheme: Scheme) -> Reason:
    """Whether the product that ends in `root` is computed by `scheme`."""
    recipe = ctx.recipe(root)
    if recipe is None:
        return "the plan leaves it as it is"
    return recipe.scheme == scheme or f"the plan says {recipe.scheme}"


def recipe_of(ctx: Context, root: Value) -> Recipe:
    """How the product that ends in `root` is computed, where `planned` said so."""
    recipe = ctx.recipe(root)
    assert recipe is not None
    return recipe


def on_grid(op: Builder, x: Value, grid: Grid) -> Value:
    """`x` rounded to a grid, through integers: DequantizeLinear(QuantizeLinear(x))."""
    axis = grid.axis
    since = op.since(_PER_AXIS) if axis is not None else op
    scale, zero = op.const(grid.scale, name="scale"), op.const(grid.zero_point, name="zero_point")
    q = since.QuantizeLinear(x, scale, zero, axis=axis)
    return since.DequantizeLinear(q, scale, zero, axis=axis)


def as_floats(op: Builder, weights: Integers) -> Value:
    """The floats that integer weights stand for: DequantizeLinear."""
    narrow = weights.block or weights.values.nbytes < weights.values.size
    since = op.since(_BLOCKED) if narrow else op.since(_PER_AXIS) if weights.axis is not None else op
    return since.DequantizeLinear(*constants(op, weights), axis=weights.axis, block_size=weights.block or None)


def constants(op: Builder, weights: Integers) -> tuple[Value, Value, Value | None]:
    """Integers, scale and zero point of weights."""
    zero = None if weights.zero_point is None else op.const(weights.zero_point, name="weights_zero_point")
    return op.const(weights.values, name=weights.name), op.const(weights.scale, name="weights_scale"), zero


def smoothed(op: Builder, x: Value, recipe: Recipe) -> Value:
    """`x` divided by what the weights are multiplied by: x·diag(1/s)."""
    if recipe.smooth is None:
        return x
    return op.Mul(x, op.const(1.0 / recipe.smooth.astype(np.float64), like=x, name="smooth"))


def in_columns(weights: Integers, turned: int | None) -> Integers:
    """The weights of a Gemm, which may be transposed, as MatMul reads them."""
    if not turned:
        return weights
    axis = None if weights.axis is None else 1 - weights.axis
    blocks = (_transposed(weights.scale), weights.zero_point and _transposed(weights.zero_point))
    scale, zero = blocks if weights.block else (weights.scale, weights.zero_point)
    return replace(weights, values=_transposed(weights.values), scale=scale, zero_point=zero, axis=axis)


def _transposed(tensor: Tensor) -> Tensor:
    return Tensor.deferred(tensor.dtype, tensor.shape[::-1], lambda: tensor.numpy().T)


def finished(op: Builder, y: Value, recipe: Recipe, c: Value | None) -> Value:
    """A product with what Gemm adds, and what rounding the weights took away; on a grid where it is to stay integer."""
    if c is not None:
        y = op.Add(y, c)
    if recipe.bias is not None:
        y = op.Add(y, op.const(recipe.bias, like=y, name="correction"))
    return y if recipe.output is None else on_grid(op, y, recipe.output)


def is_integer_product(y: Value) -> Reason:
    """Whether `y` is a product with integer weights, whose scales may take over a factor for each column."""
    node = y.node
    weights = node.input(1)
    match node.op:
        case "MatMul" if weights is not None and weights.node.is_op("DequantizeLinear"):
            integers = weights.node.input(0)
            known = integers is not None and constant_of(integers) is not None
            return known or "both of its operands are activations"
        case "Mul" if any(_sums_integers(value) for value in node.inputs):
            return True
        case "MatMulNBits":
            return True
    return f"{node.label} is no product with integer weights"


def is_linear(y: Value) -> Reason:
    """Whether `y` is a product with integer weights, or that and a constant bias."""
    summands = [x for x in y.node.inputs if x is not None and constant_of(x) is None] if y.node.is_op("Add") else []
    return is_integer_product(summands[0] if len(summands) == 1 else y)


def _sums_integers(value: Value | None) -> bool:
    cast = value.node if value is not None else None
    source = cast.input(0) if cast is not None and cast.is_op("Cast") else None
    return source is not None and source.node.is_op("MatMulInteger")
