import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import (
    FOR_BYTES,
    Integers,
    Scale,
    Zero,
    back,
    bounds,
    grid_of,
    integers_of,
)
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule
from graphopt.rewrite.grids import quantized


class ClipIntegers(Rule):
    """A Relu or a Clip of an image on a grid, of which somebody reads the image as well.

    Why: integers of one grid are in the order of its numbers; there is nothing to be rounded.
    Before: Relu(dq(q)), or Clip(dq(q), low, high), on a grid (s, z)
    After: dq(Clip(q, z)), or dq(Clip(q, round(low/s) + z, round(high/s) + z))
    Safety: zero is on every grid, so Relu is exact; other bounds move by at most half a step.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero, low: Attr, high: Attr) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        return op.Relu(y) | op.Clip(y, min=low, max=high)

    def where(self, root: Value) -> Reason:
        x = root.node.inputs[0]
        if x is None or grid_of(x) is None:
            return "it does not read an activation on a grid"
        return bounds(root) is not None or "the bounds are not constants"

    def rewrite(self, op: Builder, root: Value) -> Value | None:
        x, cut = root.node.inputs[0], bounds(root)
        grid = grid_of(x) if x is not None else None
        if x is None or cut is None or grid is None:
            return None
        low, high = (op.const(quantized(np.asarray(end), grid), name="bound") for end in cut)
        return back(op, op.since(FOR_BYTES).Clip(integers_of(x), low, high), x)
