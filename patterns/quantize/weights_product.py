from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.products import as_floats, finished, in_columns, linear, planned, recipe_of, smoothed
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, like

Floats = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype="float32")]


class WeightsProduct(Rule):
    """A product of an activation with constant weights, of which only the weights are integers.

    Why: weights of a quarter or an eighth of the size, and activations as exact as they were.
    Before: x·W, or Gemm(x, W, c)
    After: x·DequantizeLinear(W', S), and + c, with W' = round(W / S), S a number for each column, or for each block of
    a column
    Safety: the plan says so.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, w: Matrix, turned: Attr, c: Value | None = None) -> Expr:
        return linear(op, x, w, c, turned)

    def where(self, ctx: Context, root: Value) -> Reason:
        return planned(ctx, root, "weights")

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, turned: int | None, c: Value | None) -> Value:
        recipe = recipe_of(ctx, root)
        weights = as_floats(op, in_columns(recipe.weights, turned))
        return finished(op, op.MatMul(smoothed(op, x, recipe), weights), recipe, c)
