from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.convolutions import biased, on_input_grid, output_grid, wanted
from graphopt.patterns.quantize.integers import computed, cut
from graphopt.patterns.quantize.products import as_floats, on_grid
from graphopt.rewrite import Attr, Attrs, Builder, Context, Expr, Ops, Reason, Rule, const, like

Floats = Annotated[Value, like(dtype="float32")]
Kernel = Annotated[Value, const(rank=(3, 4, 5), dtype="float32")]
Vector = Annotated[Value, const(rank=1, dtype="float32")]


class StaticConv(Rule):
    """A convolution with constant weights, in integers on grids that calibration found, with the Relu or Clip after it.

    Why: the kernel multiplies bytes and adds the bias in 32 bits. It exists only with a result of bytes, so what it
    writes is rounded as well; where this grid begins and ends where the Relu cuts, there is nothing left to cut.
    Before: act(Conv(x, W, b)), with grids (s, z) of x and (t, u) of the result, scales S of the channels of W
    After: dq(q(Conv(dq(q(x)), dq(W'), dq(b')))), W' = round(W / S), b' = round(b / (s·S)) as int32
    Safety: the plan says so. A channel whose bias does not fit into 31 bits, as one of which all weights are as good as
    zero, gets a larger S. An act that cuts more than half a step away from the ends of the grid stays.
    """

    stage = "quantize"

    def pattern(
        self, op: Ops, x: Floats, w: Kernel, low: Attr, high: Attr, others: Attrs, b: Vector | None = None
    ) -> Expr:
        y = op.Conv(x, w, b, others=others)
        return op.Relu(y) | op.Clip(y, min=low, max=high) | y

    def where(self, ctx: Context, root: Value) -> Reason:
        return wanted(ctx, root)

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, b: Value | None, others: Attrs) -> Value | None:
        recipe = ctx.recipe(computed(root))
        grid = output_grid(ctx, root, recipe) if recipe is not None else None
        if recipe is None or grid is None:
            return None
        image, input_grid = on_input_grid(op, x, recipe)
        weights, bias = biased(op, b, recipe, input_grid)
        return on_grid(op, cut(op, op.Conv(image, as_floats(op, weights), bias, **others), root, grid), grid)
