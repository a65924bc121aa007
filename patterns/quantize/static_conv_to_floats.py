from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.products import as_floats, on_grid, planned, recipe_of
from graphopt.rewrite import Attrs, Builder, Context, Expr, Ops, Reason, Rule, all_of, const, like

Floats = Annotated[Value, like(dtype="float32")]
Kernel = Annotated[Value, const(rank=(3, 4, 5), dtype="float32")]
Vector = Annotated[Value, const(rank=1, dtype="float32")]


class StaticConvToFloats(Rule):
    """A convolution with constant weights of which only the image and the weights are integers.

    Why: TensorRT takes the QuantizeLinear that the next convolution reads through into the kernel by itself, and adds a
    bias of floats.
    Before: Conv(x, W, b)
    After: Conv(dq(q(x)), dq(W'), b), W' = round(W / S), on the grid of x that is the plan's
    Safety: the plan says so.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, w: Kernel, others: Attrs, b: Vector | None = None) -> Expr:
        return op.Conv(x, w, b, others=others)

    def where(self, ctx: Context, root: Value) -> Reason:
        recipe = ctx.recipe(root)
        return all_of(
            planned(ctx, root, "static"), (recipe is not None and recipe.open) or "the plan has it write integers"
        )

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, b: Value | None, others: Attrs) -> Value:
        recipe = recipe_of(ctx, root)
        assert recipe.input is not None
        return op.Conv(on_grid(op, x, recipe.input), as_floats(op, recipe.weights), b, **others)
