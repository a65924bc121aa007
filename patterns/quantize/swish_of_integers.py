from graphopt.ir import Value
from graphopt.patterns.quantize.integers import (
    Integers,
    Scale,
    Zero,
    grid_between,
    grid_of,
    hard_gate,
    image_of,
    kept,
    on_grids,
    result,
)
from graphopt.patterns.quantize.products import on_grid
from graphopt.rewrite import Builder, Context, Expr, Ops, Reason, Rule, all_of


class SwishOfIntegers(Rule):
    """SiLU or its hard form of an image on a grid, as the product of the image and a gate, both on grids.

    Why: the sigmoid is a table of 256 entries, sum and product are of bytes; as one function it is computed as floats.
    Before: Swish(dq(x)), or HardSwish(dq(x))
    After: dq(q(dq(x) · g)), g = dq(q(Sigmoid(dq(x)))) on the grid from 0 to 1, or g = (dq(x) + 3)/6: the sum on the
    grid from 0 to 6, which cuts it, whose integers are then read as from 0 to 1
    Safety: the plan says so. The gate is right to 1/510.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        return op.Swish(y) | op.HardSwish(y)

    def where(self, ctx: Context, root: Value) -> Reason:
        return all_of(kept(ctx, root), on_grids(image_of(root)))

    def rewrite(self, op: Builder, ctx: Context, root: Value) -> Value | None:
        x = image_of(root)
        grid = grid_of(x)
        if grid is None:
            return None
        gate = (
            on_grid(op, op.Sigmoid(x), grid_between(0.0, 1.0, grid))
            if root.node.op == "Swish"
            else hard_gate(op, x, 1 / 6, 0.5)
        )
        return result(op, ctx, root, op.Mul(x, gate))
