from typing import Annotated

from graphopt.ir import Tensor, Value, dtypes
from graphopt.patterns.quantize.products import planned, recipe_of
from graphopt.rewrite import Builder, Context, Expr, Ops, Reason, Rule, const

Matrix = Annotated[Value, const(rank=2, dtype="float32")]


class EmbeddingTable(Rule):
    """A table of rows, as integers with a scale for each row.

    Why: the table is most of a small model, and only a few of its rows are read.
    Before: Gather(W, i)
    After: float(Gather(W', i)) · Gather(S, i), with W' = round(W / S), S one number for each row, or for
    all
    Safety: the plan says so.
    """

    stage = "quantize"
    once = True

    def pattern(self, op: Ops, w: Matrix, i: Value) -> Expr:
        return op.Gather(w, i, axis=0)

    def where(self, ctx: Context, root: Value) -> Reason:
        recipe = ctx.recipe(root)
        if recipe is not None and (recipe.weights.axis == 1 or recipe.weights.block or recipe.weights.zero_point):
            return "the scales are not one for each row, or zero is moved"
        return planned(ctx, root, "weights")

    def rewrite(self, op: Builder, ctx: Context, root: Value, i: Value) -> Value:
        weights = recipe_of(ctx, root).weights
        rows = op.Cast(op.Gather(op.const(weights.values, name="table"), i), to=dtypes.FLOAT)
        if weights.axis is None:
            return op.Mul(rows, op.const(weights.scale, name="table_scale"))
        return op.Mul(rows, op.Gather(op.const(_column(weights.scale), name="table_scale"), i))


def _column(scale: Tensor) -> Tensor:
    return Tensor.deferred(scale.dtype, (*scale.shape, 1), lambda: scale.numpy().reshape(-1, 1))
