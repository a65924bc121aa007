from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.patterns.quantize.products import (
    constants,
    finished,
    in_columns,
    linear,
    planned,
    recipe_of,
    smoothed,
)
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, like

Floats = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype="float32")]


class DynamicProduct(Rule):
    """A product of an activation with constant weights, in integers, on a grid that is found at run time.

    Why: the kernel multiplies bytes, and no calibration is needed.
    Before: x·W, or Gemm(x, W, c)
    After: float(MatMulInteger(q, W', z)) · (s·S), and + c, with q, s, z = DynamicQuantizeLinear(x/t) and
    W' = round(diag(t)·W / S), S and t those of the plan
    Safety: the plan says so. Products of one x share its integers.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, w: Matrix, turned: Attr, c: Value | None = None) -> Expr:
        return linear(op, x, w, c, turned)

    def where(self, ctx: Context, root: Value) -> Reason:
        return planned(ctx, root, "dynamic")

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, turned: int | None, c: Value | None) -> Value:
        recipe = recipe_of(ctx, root)
        weights, weights_scale, weights_zero = constants(op, in_columns(recipe.weights, turned))
        q, scale, zero = op.DynamicQuantizeLinear(smoothed(op, x, recipe), outputs=3).node.outputs
        product = op.Cast(op.MatMulInteger(q, weights, zero, weights_zero), to=dtypes.FLOAT)
        return finished(op, op.Mul(product, op.Mul(scale, weights_scale)), recipe, c)
