import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import (
    FOR_BYTES,
    Integers,
    Scale,
    Zero,
    back,
    ends,
    grid_of,
    integers_of,
)
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule
from graphopt.rewrite.grids import quantized


class PadIntegers(Rule):
    """An image on a grid, with a border.

    Why: bytes are copied around bytes.
    Before: Pad(dq(q), pads, c), on a grid (s, z)
    After: dq(Pad(q, pads, round(c/s) + z)); nothing is filled in where the border repeats the image
    Safety: zero is on every grid; another number moves by at most half a step, and must lie between its ends.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Integers, s: Scale, z: Zero, pads: Attr, axes: Attr, filler: Attr, others: Attrs
    ) -> Expr:
        return op.Pad(op.DequantizeLinear(x, s, z), pads=pads, axes=axes, constant_value=filler, others=others)

    def where(self, root: Value, filler: float | None) -> Reason:
        x = root.node.inputs[0]
        grid = grid_of(x) if x is not None else None
        if grid is None:
            return "it does not read an activation on a grid"
        if not isinstance(filler, float | None):
            return "what is filled in is not a constant"
        low, high = ends(grid)
        if not low <= (filler or 0.0) <= high:
            return f"the grid from {low:g} to {high:g} does not have {filler:g}"
        return root.node.version >= 11 or "Pad of this opset has no operands"

    def rewrite(self, op: Builder, root: Value, filler: float | None, others: Attrs) -> Value | None:
        x, pads, _, axes = (*root.node.inputs, None, None)[:4]
        grid = grid_of(x) if x is not None else None
        if x is None or grid is None:
            return None
        number = op.const(quantized(np.asarray(filler or 0.0), grid), name="border")
        constant = others.get("mode", "constant") == "constant"
        return back(op, op.since(FOR_BYTES).Pad(integers_of(x), pads, number if constant else None, axes, **others), x)
