from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import absorbs, grid_of, kept, on_grids, result, rounded_constant
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, all_of, constant_of, like

Floats = Annotated[Value, like(dtype="float32")]


class SumOfIntegers(Rule):
    """A sum or a product of two images on grids, or of one and a constant, with the Relu or Clip after it.

    Why: between a dequantization of its operands and a quantization of its result the runtime adds bytes; residuals,
    gates and excitations keep a network from going back to floats.
    Before: act(dq(a) + dq(b)); also Mul, and one operand that is constant
    After: dq(q(dq(a) + dq(b))), the grid of the result being the plan's; a constant has a grid of its own
    Safety: the plan says so, and both operands are on grids already. The grid of the result is not wider than act by
    more than half a step.
    """

    stage = "quantize"

    def pattern(self, op: Ops, a: Floats, b: Floats, low: Attr, high: Attr) -> Expr:
        y = op.Add(a, b) | op.Mul(a, b)
        return op.Relu(y) | op.Clip(y, min=low, max=high) | y

    def where(self, ctx: Context, root: Value, a: Value, b: Value) -> Reason:
        operands = [x for x in (a, b) if constant_of(x) is None]
        reason = all_of(kept(ctx, root), on_grids(*operands))
        grid = ctx.grid(root)
        return reason if grid is None or reason is not True else absorbs(grid, root)

    def rewrite(self, op: Builder, ctx: Context, root: Value, a: Value, b: Value) -> Value | None:
        grid = grid_of(a) or grid_of(b)
        if grid is None:
            return None
        first, second = (rounded_constant(op, x, grid) if constant_of(x) is not None else x for x in (a, b))
        inner = root.node.inputs[0] if root.node.op in ("Relu", "Clip") else root
        assert inner is not None
        y = op.Add(first, second) if inner.node.op == "Add" else op.Mul(first, second)
        return result(op, ctx, root, y)
