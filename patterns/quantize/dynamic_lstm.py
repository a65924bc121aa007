from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.quantize.products import planned
from graphopt.rewrite import Attrs, Builder, Context, Expr, Ops, Reason, Rule, const, kernel, like, numbers_of
from graphopt.rewrite.grids import weight_grid

Floats = Annotated[Value, like(dtype="float32")]
Weights = Annotated[Value, const(rank=3, dtype="float32")]


class DynamicLSTM(Rule):
    """An LSTM whose products are of integers, on grids that are found at run time.

    Why: an LSTM is two products in each step, of weights that are read again each time.
    Before: LSTM(x, W, R, ...)
    After: com.microsoft.DynamicQuantizeLSTM(x, W', R', ...), with W' = round(Wᵀ / s), R' = round(Rᵀ / t), s and t one
    for each gate and channel
    Safety: the plan says so; time comes first. The weights of a step are rounded to the nearest.
    """

    stage = "quantize"
    needs = kernel("com.microsoft", "DynamicQuantizeLSTM")

    def pattern(
        self,
        op: Ops,
        x: Floats,
        w: Weights,
        r: Weights,
        others: Attrs,
        bias: Value | None = None,
        lengths: Value | None = None,
        h: Value | None = None,
        c: Value | None = None,
        peepholes: Value | None = None,
    ) -> tuple[Expr, ...]:
        lstm = op.LSTM(x, w, r, bias, lengths, h, c, peepholes, others=others)
        return lstm[0], lstm[1], lstm[2]

    def where(self, ctx: Context, root: Value, w: Value, r: Value, others: Attrs) -> Reason:
        if not all(np.isfinite(numbers_of(weights)).all() for weights in (w, r)):
            return "weights hold NaN or infinities"
        return planned(ctx, root, "dynamic") if not others.get("layout") else "the batch comes first"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value,
        r: Value,
        others: Attrs,
        bias: Value | None,
        lengths: Value | None,
        h: Value | None,
        c: Value | None,
        peepholes: Value | None,
    ) -> tuple[Value, ...]:
        left, left_scale, zero = _integers(op, w)
        right, right_scale, _ = _integers(op, r)
        state = bias, lengths, h, c, peepholes
        grids = left_scale, zero, right_scale, zero
        return op.ms.DynamicQuantizeLSTM(x, left, right, *state, *grids, outputs=3, **others).node.outputs


def _integers(op: Builder, w: Value) -> tuple[Value, Value, Value]:
    """Weights (D, 4H, K) as integers (D, K, 4H), scales and zero points (D, 4H)."""
    floats = numbers_of(w)
    scale, _ = weight_grid(floats.min(axis=2), floats.max(axis=2), bits=8, symmetric=True)
    integers = np.rint(floats / scale[:, :, None]).astype(np.int8).transpose(0, 2, 1)
    zeros = op.const(np.zeros(scale.shape, np.int8), name="weights_zero_point")
    return op.const(integers, name="weights"), op.const(scale, like=w, name="weights_scale"), zeros
