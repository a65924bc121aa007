"""What the rules about convolutions share: what they ask of a plan, and biases of 32 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.ir.tensor import Array
from graphopt.patterns.quantize.integers import alone, computed, grid_of
from graphopt.patterns.quantize.products import on_grid
from graphopt.rewrite import Builder, Context, Grid, Integers, Reason, Recipe, numbers_of
from graphopt.rewrite.grids import along

_LARGEST_BIAS = 2**30
"""Half of what 32 bits hold: the products are added to it."""


def wanted(ctx: Context, root: Value) -> Reason:
    """Whether the plan computes the convolution in `root`, with the Relu or Clip after it, on grids."""
    recipe = ctx.recipe(computed(root))
    if recipe is None:
        return "the plan leaves it as it is"
    if recipe.scheme != "static" or recipe.weights.block or recipe.weights.zero_point is not None:
        return "a convolution has an integer kernel for static grids and symmetric weights only"
    if recipe.open:
        return "the plan has it write floats"
    if recipe.smooth is not None:
        return "the channels of an image are scaled by what is before it"
    if output_grid(ctx, root, recipe) is None:
        return "the plan does not keep the result on a grid"
    return alone(ctx, root)


def output_grid(ctx: Context, root: Value, recipe: Recipe) -> Grid | None:
    """The grid of the result, with the Relu or Clip after it."""
    return ctx.grid(root) or (recipe.output if root is computed(root) else None)


def on_input_grid(op: Builder, x: Value, recipe: Recipe) -> tuple[Value, Grid]:
    """The image that a convolution reads, on a grid: the one that it lies on already, else that of the recipe."""
    known = grid_of(x)
    if known is not None:
        return x, known
    assert recipe.input is not None
    return on_grid(op, x, recipe.input), recipe.input


def biased(op: Builder, b: Value | None, recipe: Recipe, grid: Grid) -> tuple[Integers, Value | None]:
    """The weights, and the bias in steps of scale · `grid.scale` as int32, with what rounding the weights took away.

    A channel whose bias does not fit gets a larger scale.
    """
    parts = [] if b is None else [numbers_of(b).astype(np.float64)]
    parts += [] if recipe.bias is None else [recipe.bias.astype(np.float64)]
    if not parts:
        return recipe.weights, None
    bias = np.asarray(sum(parts))
    weights = _with_room(recipe.weights, bias, grid)
    scale = np.maximum(weights.scale.numpy() * grid.scale, np.finfo(np.float32).tiny).astype(np.float32)
    integers = np.rint(bias / scale.astype(np.float64)).astype(np.int32)
    since, axis = (op, None) if weights.axis is None else (op.since(13), 0)
    return weights, since.DequantizeLinear(
        op.const(integers, name="bias"), op.const(scale, name="bias_scale"), axis=axis
    )


def _with_room(weights: Integers, bias: Array, grid: Grid) -> Integers:
    scale = np.broadcast_to(weights.scale.numpy().astype(np.float64).reshape(-1), bias.shape)
    least = np.abs(bias) / (_LARGEST_BIAS * float(grid.scale))
    if (scale >= least).all():
        return weights
    wider = np.maximum(scale, least).astype(np.float32)
    values, axis = weights.values.numpy(), weights.axis or 0
    ratio = along(scale / wider, values.ndim, axis)
    return replace(
        weights, values=Tensor.of(np.rint(values * ratio), weights.values.dtype), scale=Tensor.of(wider), axis=axis
    )
