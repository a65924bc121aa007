import math
from typing import Annotated

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.fills import is_indicator
from graphopt.rewrite import Attr, Builder, Expr, Maybe, Number, Ops, Reason, Rule, const, like, numbers_of

Constant = Annotated[Value, const()]
Mask = Annotated[Value, like(dtype="bool")]


class MultipliedMask(Rule):
    """Scores that are multiplied by a mask of 0 and 1 and filled by its opposite, as scores that it overwrites.

    Why: a mask that is multiplied hides attention, and is read twice.
    Before: Softmax(s·m − k·(1 − m)) with s = q·kᵀ, scaled or not; m is Cast(allow), or any mask of 0 and 1; where m is
    a constant, so may c = k·(1 − m) be
    After: Softmax(Where(allow, s, −k)), with Cast(m) for allow
    Safety: every element of m is proved to be 0 or 1, and k is finite: s·0 − k·1 is −k and s·1 − k·0 is s, to the bit.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Value,
        kt: Value,
        k: Number | None = None,
        c: Constant | None = None,
        scale: Number | None = None,
        allow: Mask | None = None,
        m: Value | None = None,
        more: Value | None = None,
        kind: Attr = None,
    ) -> Expr:
        product, mask = op.MatMul(q, kt), op.Cast(allow, to=kind) | m
        scores = op.scaled(product, scale) | product
        masked = op.Sub(op.Mul(scores, mask), op.scaled(op.Sub(1.0, mask), k)) | op.Sub(op.Mul(scores, m), c)
        return op.anchor(op.Softmax(masked, axis=-1) | op.Softmax(op.sum(masked, more), axis=-1), masked)

    def where(self, k: float | None, c: Maybe, m: Maybe) -> Reason:
        if m is not None and not is_indicator(m):
            return "the mask is not proved to hold 0 and 1 only"
        if not math.isfinite(_fill(k, c)):
            return "the fill is not finite"
        if c is None or m is None:
            return True
        opposite = m.tensor is not None and np.array_equal(numbers_of(c), _fill(k, c) * (1 - numbers_of(m)))
        return opposite or "what is subtracted is no multiple of 1 − m"

    def rewrite(
        self, op: Builder, q: Value, kt: Value, k: float | None, c: Maybe, scale: float | None, allow: Maybe, m: Maybe
    ) -> Value:
        scores = op.scaled(op.MatMul(q, kt), scale)
        kept = op.Cast(m, to=dtypes.BOOL) if allow is None else allow
        return op.Where(kept, scores, op.const(-_fill(k, c), like=scores))


def _fill(k: float | None, c: Maybe) -> float:
    """k itself, or that of the constant k·(1 − m)."""
    return k or 0.0 if c is None else float(numbers_of(c).max(initial=0.0))
