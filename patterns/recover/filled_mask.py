import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.masks import never_empty
from graphopt.patterns.recover.scores import is_score
from graphopt.rewrite import Builder, Context, Expr, Maybe, Number, Ops, Reason, Rule

_SWALLOWS = -1e30
"""A float32 in whose last place a score is lost."""
_NO_SCORE = -1e8
"""No score is as low."""
_NO_WEIGHT = -1e4
"""Beside a score, this has a weight of exp(−∞): 0."""


class FilledMask(Rule):
    """Scores that a mask overwrites, as scores that it is added to: the one form that attention knows.

    Why: `masked_fill` writes into the scores, where attention has only something to add to them.
    Before: Softmax(Where(allow, s + b, f) + m), or Softmax(Where(deny, f, s + b) + m), b and m optional
    After: Softmax(s + Where(allow, b, f) + m)
    Safety: s + f must be f. For −∞ it is, and in float32 for a fill down from −1e30 where s is a scaled matrix product:
    then a score is less than half a unit in the last place. (Of a sum, b may be the lowest number already; that is why
    it is overwritten, too.) A fill down from −1e8 becomes −1e30 where s and b are products or small numbers, far above
    either: the weights are the same, 0 or uniform. A smaller fill gives the same weights except in a row with nothing
    allowed: it needs a mask that is proved to leave each row a key, as a causal one does, beside scores that no other
    mask made as low, or the promise `no-empty-rows`. In both cases nobody else may read the scores.
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
        more: Value | None = None,
    ) -> Expr:
        scores = op.sum(s, b) | s
        filled = op.Where(allow, scores, fill) | op.Where(deny, fill, scores)
        return op.anchor(op.Softmax(filled, axis=-1) | op.Softmax(op.sum(filled, more), axis=-1), filled)

    def where(
        self, s: Value, fill: float, b: Maybe, allow: Maybe, deny: Maybe, more: Maybe, root: Value, ctx: Context
    ) -> Reason:
        mask = allow if allow is not None else deny
        if s.shape is None or s.dtype not in dtypes.FLOATS or mask is None or mask.shape is None:
            return "the types are not known"
        if len(mask.shape) > len(s.shape):
            return f"the mask {mask.shape} widens the scores {s.shape}"
        of_products = s.dtype == dtypes.FLOAT and is_score(s)
        swallows = fill == -np.inf or (fill <= _SWALLOWS and of_products)
        lowered = fill <= _NO_SCORE and of_products and more is None and (b is None or is_score(b))
        alone = b is None and more is None and is_score(s, -fill / 10) and never_empty(mask, denies=deny is not None)
        light = fill <= _NO_WEIGHT and root.uses == 1
        promised = light and (alone or "no-empty-rows" in ctx.assume)
        fits = swallows or promised or (lowered and root.uses == 1)
        hint = "; --assume no-empty-rows promises that there is none" if light else ""
        return fits or f"a fully masked row is uniform with a fill of {fill:g}, and would not be{hint}"

    def rewrite(
        self, op: Builder, s: Value, fill: float, b: Value | None, allow: Value | None, deny: Value | None
    ) -> Value:
        if _SWALLOWS < fill <= _NO_SCORE and s.dtype == dtypes.FLOAT:
            fill = _SWALLOWS
        kept, filled = op.const(0.0, like=s) if b is None else b, op.const(fill, like=s)
        return op.Add(s, op.Where(allow, kept, filled) if deny is None else op.Where(deny, filled, kept))
