from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import grid_of, kept, on_grids, result, rounded_constant
from graphopt.patterns.quantize.products import on_grid
from graphopt.rewrite import Builder, Context, Expr, Grid, Ops, Reason, Rule, all_of, like

Floats = Annotated[Value, like(dtype="float32")]


class SwishOfIntegers(Rule):
    """SiLU or its hard form of an image on a grid, as the product of the image and a gate, both on grids.

    Why: the sigmoid is a table of 256 entries, sum and product are of bytes; as one function it is computed as floats.
    Before: Swish(dq(x)), or HardSwish(dq(x))
    After: dq(q(dq(x) · g)), g = dq(q(Sigmoid(dq(x)))) on the grid from 0 to 1, or g = (dq(x) + 3)/6: the sum on the
    grid from 0 to 6, which cuts it, whose integers are then read as from 0 to 1
    Safety: the plan says so. The gate is right to 1/510.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats) -> Expr:
        return op.Swish(x) | op.HardSwish(x)

    def where(self, ctx: Context, root: Value, x: Value) -> Reason:
        return all_of(kept(ctx, root), on_grids(x))

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value) -> Value | None:
        grid = grid_of(x)
        if grid is None:
            return None
        gate = on_grid(op, op.Sigmoid(x), _from_zero(1.0, grid)) if root.node.op == "Swish" else _hard(op, x, grid)
        return result(op, ctx, root, op.Mul(x, gate))


def _from_zero(high: float, like: Grid) -> Grid:
    """The grid from 0 to `high`, of integers of one type with another."""
    kind = like.zero_point.dtype
    return Grid(np.array(high / 255, np.float32), np.array(np.iinfo(kind).min, kind))


def _hard(op: Builder, x: Value, grid: Grid) -> Value:
    """min(max(x + 3, 0), 6) / 6"""
    three = rounded_constant(op, op.const(3.0, like=x), grid)
    cut, unit = _from_zero(6.0, grid), _from_zero(1.0, grid)
    q = op.QuantizeLinear(
        op.Add(x, three), op.const(cut.scale, name="scale"), op.const(cut.zero_point, name="zero_point")
    )
    return op.DequantizeLinear(q, op.const(unit.scale, name="scale"), op.const(unit.zero_point, name="zero_point"))
