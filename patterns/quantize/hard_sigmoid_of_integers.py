from graphopt.ir import Value
from graphopt.patterns.quantize.integers import Integers, Scale, Zero, hard_gate, image_of, kept, on_grids
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, all_of


class HardSigmoidOfIntegers(Rule):
    """A hard sigmoid of an image on a grid.

    Why: it is a sum that is cut, and a sum has an integer kernel.
    Before: HardSigmoid(dq(x), α, β)
    After: q(dq(x) + β/α) on the grid from 0 to 1/α, which cuts it, read as integers of the grid from 0 to 1
    Safety: the plan says so, α > 0. The result is right to 1/510, and what rounding β/α takes.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero, alpha: Attr, beta: Attr) -> Expr:
        return op.HardSigmoid(op.DequantizeLinear(x, s, z), alpha=alpha, beta=beta)

    def where(self, ctx: Context, root: Value, alpha: float) -> Reason:
        return all_of(kept(ctx, root), on_grids(image_of(root)), alpha > 0 or f"alpha is {alpha:g}")

    def rewrite(self, op: Builder, root: Value, alpha: float, beta: float) -> Value:
        return hard_gate(op, image_of(root), alpha, beta)
