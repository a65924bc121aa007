import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Context, Expr, Number, Ops, Reason, Rule


class FilledMask(Rule):
    """Scores that a mask overwrites, as scores that it is added to: the one form that attention knows.

    Before: Softmax(Where(allow, s, f)), or Softmax(Where(deny, f, s))
    After: Softmax(s + Where(allow, 0, f))
    Safety: s + f must be f. For −∞ it is, and in float32 for a fill below −1e30, where a score is less than half a unit in
    the last place. A smaller fill gives the same weights except in a row with nothing allowed: it needs the promise
    `no-empty-rows`.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        s: Value,
        fill: Number,
        allow: Value | None = None,
        deny: Value | None = None,
    ) -> Expr:
        filled = op.Where(allow, s, fill) | op.Where(deny, fill, s)
        return op.anchor(op.Softmax(filled, axis=-1), filled)

    def where(self, s: Value, fill: float, allow: Value | None, deny: Value | None, ctx: Context) -> Reason:
        mask = allow if allow is not None else deny
        if s.shape is None or s.dtype not in dtypes.FLOATS or mask is None or mask.shape is None:
            return "the types are not known"
        if len(mask.shape) > len(s.shape):
            return f"the mask {mask.shape} widens the scores {s.shape}"
        swallows = fill == -np.inf or (fill < -1e30 and s.dtype == dtypes.FLOAT)
        promised = fill <= -1e4 and "no-empty-rows" in ctx.assume
        return swallows or promised or f"a fully masked row is uniform with a fill of {fill:g}, and would not be"

    def rewrite(self, op: Builder, s: Value, fill: float, allow: Value | None, deny: Value | None) -> Value:
        zero, filled = op.const(0.0, like=s), op.const(fill, like=s)
        return op.Add(s, op.Where(allow, zero, filled) if deny is None else op.Where(deny, filled, zero))
