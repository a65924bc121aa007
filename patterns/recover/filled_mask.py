import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Context, Expr, Number, Ops, Reason, Rule, number_of, see_through


class FilledMask(Rule):
    """Scores that a mask overwrites, as scores that it is added to: the one form that attention knows.

    Why: `masked_fill` writes into the scores, where attention has only something to add to them.
    Before: Softmax(Where(allow, s + b, f)), or Softmax(Where(deny, f, s + b)), b optional
    After: Softmax(s + Where(allow, b, f))
    Safety: s + f must be f. For −∞ it is, and in float32 for a fill below −1e30 where s is a scaled matrix product:
    then a score is less than half a unit in the last place. (Of a sum, b may be the lowest number already; that is why
    it is overwritten, too.) A smaller fill gives the same weights, though not the same scores, except in a row with
    nothing allowed: it needs the promise `no-empty-rows`, and nobody else may read the scores.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        s: Value,
        fill: Number,
        b: Value | None = None,
        allow: Value | None = None,
        deny: Value | None = None,
    ) -> Expr:
        scores = op.sum(s, b) | s
        filled = op.Where(allow, scores, fill) | op.Where(deny, fill, scores)
        return op.anchor(op.Softmax(filled, axis=-1), filled)

    def where(
        self, s: Value, fill: float, allow: Value | None, deny: Value | None, root: Value, ctx: Context
    ) -> Reason:
        mask = allow if allow is not None else deny
        if s.shape is None or s.dtype not in dtypes.FLOATS or mask is None or mask.shape is None:
            return "the types are not known"
        if len(mask.shape) > len(s.shape):
            return f"the mask {mask.shape} widens the scores {s.shape}"
        swallows = fill == -np.inf or (fill < -1e30 and s.dtype == dtypes.FLOAT and _is_product(s))
        promised = fill <= -1e4 and "no-empty-rows" in ctx.assume and root.uses == 1
        return swallows or promised or f"a fully masked row is uniform with a fill of {fill:g}, and would not be"

    def rewrite(
        self, op: Builder, s: Value, fill: float, b: Value | None, allow: Value | None, deny: Value | None
    ) -> Value:
        kept, filled = op.const(0.0, like=s) if b is None else b, op.const(fill, like=s)
        return op.Add(s, op.Where(allow, kept, filled) if deny is None else op.Where(deny, filled, kept))


def _is_product(s: Value) -> bool:
    """Whether `s` is a product of matrices, perhaps scaled by numbers."""
    while not s.node.is_op("MatMul"):
        scaled = [v for v in s.node.inputs if v is not None and number_of(v) is None]
        inner = scaled[0] if s.node.op in ("Mul", "Div") and len(scaled) == 1 else see_through(s)
        if inner is None:
            return False
        s = inner
    return True
