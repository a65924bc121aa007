from dataclasses import replace
from typing import Annotated

import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.patterns.quantize.convolutions import biased, on_input_grid, output_grid, wanted
from graphopt.patterns.quantize.integers import computed, cut
from graphopt.patterns.quantize.products import as_floats
from graphopt.rewrite import (
    Attr,
    Attrs,
    Builder,
    Context,
    Expr,
    Ops,
    Reason,
    Recipe,
    Rule,
    all_of,
    const,
    like,
    numbers_of,
)

Floats = Annotated[Value, like(dtype="float32")]
Kernel = Annotated[Value, const(rank=4, dtype="float32")]
Vector = Annotated[Value, const(rank=1, dtype="float32")]


class StaticConvTranspose(Rule):
    """A transposed convolution whose windows lie side by side, in integers, with the Relu or Clip after it.

    Why: the runtime has no integer kernel for it. Where no two windows meet, it is a product at each place, of which it
    has one, and the rows of windows are put in order as bytes, channels last, as this kernel has them.
    Before: act(ConvTranspose(x, W, b)), with W (I, O, k, l) and steps of (k, l)
    After: q(Conv(dq(q(x)), dq(W'), dq(b'))) with W' (k·l·O, I, 1, 1), to (N, H, W, k, l·O), to (N, H, k, W, l·O), to
    (N, O, k·H, l·W), and dq
    Safety: the plan says so; no padding, dilation or groups; height and width are known. What holds for StaticConv.
    """

    stage = "quantize"

    def pattern(
        self, op: Ops, x: Floats, w: Kernel, low: Attr, high: Attr, others: Attrs, b: Vector | None = None
    ) -> Expr:
        y = op.ConvTranspose(x, w, b, others=others)
        return op.Relu(y) | op.Clip(y, min=low, max=high) | y

    def where(self, ctx: Context, root: Value, x: Value, w: Value, others: Attrs) -> Reason:
        known = x.shape is not None and all(isinstance(size, int) for size in x.shape[2:])
        return all_of(_side_by_side(w, others), known or "height and width are not known", wanted(ctx, root))

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, w: Value, b: Value | None) -> Value | None:
        recipe = ctx.recipe(computed(root))
        grid = output_grid(ctx, root, recipe) if recipe is not None else None
        if recipe is None or grid is None or x.shape is None or w.shape is None:
            return None
        image, input_grid = on_input_grid(op, x, recipe)
        _, channels, rows, columns = (int(str(size)) for size in w.shape)
        tiled = None if b is None else op.const(np.tile(numbers_of(b), rows * columns), like=b)
        weights, bias = biased(op, tiled, _at_places(recipe, rows * columns), input_grid)
        scale, zero = op.const(grid.scale, name="scale"), op.const(grid.zero_point, name="zero_point")
        q = op.QuantizeLinear(cut(op, op.Conv(image, as_floats(op, weights), bias), root, grid), scale, zero)
        height, width = (int(str(size)) for size in x.shape[2:])
        q = op.Reshape(op.Transpose(q, perm=[0, 2, 3, 1]), op.ints(0, height, width, rows, columns * channels))
        q = op.Reshape(op.Transpose(q, perm=[0, 1, 3, 2, 4]), op.ints(0, height * rows, width * columns, channels))
        return op.DequantizeLinear(op.Transpose(q, perm=[0, 3, 1, 2]), scale, zero)


def _at_places(recipe: Recipe, places: int) -> Recipe:
    """The recipe of the product at each place, of weights (places · O, I, 1, 1)."""
    weights = recipe.weights
    values = weights.values.numpy().transpose(2, 3, 1, 0)
    product = replace(
        weights,
        values=Tensor.of(values.reshape(-1, values.shape[-1], 1, 1)),
        scale=Tensor.of(np.tile(weights.scale.numpy(), places)) if weights.axis is not None else weights.scale,
        axis=None if weights.axis is None else 0,
    )
    return replace(recipe, weights=product, bias=None if recipe.bias is None else np.tile(recipe.bias, places))


def _side_by_side(w: Value, others: Attrs) -> Reason:
    """Whether no two windows meet."""
    assert w.shape is not None
    steps = others.get("strides", [1, 1])
    if list(w.shape[2:]) != list(steps):
        return f"windows of {w.shape[2:]} in steps of {steps} meet"
    zeros = not any(others.get("pads", ())) and not any(others.get("output_padding", ()))
    ones = others.get("group", 1) == 1 and all(step == 1 for step in others.get("dilations", ()))
    own = others.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and "output_shape" not in others
    return (zeros and ones and own) or "it is padded, dilated or in groups"
