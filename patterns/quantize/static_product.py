from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.products import (
    as_floats,
    finished,
    in_columns,
    linear,
    on_grid,
    planned,
    recipe_of,
    smoothed,
)
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, like

Floats = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype="float32")]


class StaticProduct(Rule):
    """A product of an activation with constant weights, in integers, on grids that calibration found.

    Why: the kernel multiplies bytes. Only what is read is quantized: rounding the result as well costs accuracy, and
    time.
    Before: x·W, or Gemm(x, W, c)
    After: dq(q(x/t))·dq(W'), and + c; q and dq are QuantizeLinear and DequantizeLinear, W' = q(diag(t)·W), grids and t
    those of the plan
    Safety: the plan says so. Products of one x on one grid share its integers.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, w: Matrix, turned: Attr, c: Value | None = None) -> Expr:
        return linear(op, x, w, c, turned)

    def where(self, ctx: Context, root: Value) -> Reason:
        return planned(ctx, root, "static")

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, turned: int | None, c: Value | None) -> Value:
        recipe = recipe_of(ctx, root)
        assert recipe.input is not None
        activation = on_grid(op, smoothed(op, x, recipe), recipe.input)
        return finished(op, op.MatMul(activation, as_floats(op, in_columns(recipe.weights, turned))), recipe, c)
