import math

from graphopt.ir import Value
from graphopt.ir.fills import Fill, fills
from graphopt.ir.masks import never_empty
from graphopt.rewrite import Attr, Builder, Context, Expr, Number, Ops, Reason, Rule, kernel


class AttentionNanRows(Rule):
    """Attention whose fully masked rows are NaN, as one whose are 0, and NaN put in their place.

    Why: the standard kernel gives 0 for such a row, and is faster than the parts even so.
    Before: ir.Attention(q, k, v, bias) without a guard, the bias a view of Where(allow, c, −∞) or Where(deny, −∞, c)
    After: Where(max(bias) = −∞, NaN, ir.Attention(q, k, v, bias, guard=1))
    Safety: c is proved to hold ordinary numbers, so a row is NaN just where its maximum is −∞.
    """

    stage = "lower"
    needs = kernel("", "Attention")
    priority = 10
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        q: Value,
        k: Value,
        v: Value,
        mask: Value,
        low: Number,
        scale: Attr,
        cap: Attr,
        wide: Attr,
        kept: Number | None = None,
        zeros: Value | None = None,
    ) -> Expr:
        bias = (
            op.Where(mask, kept, low)
            | op.Where(mask, low, kept)
            | op.Where(mask, zeros, low)
            | op.Where(mask, low, zeros)
        )
        viewed = op.Reshape(bias, ...) | op.Unsqueeze(bias, ...) | bias
        wider = op.Expand(viewed, ...) | viewed
        seen = op.Reshape(wider, ...) | op.Unsqueeze(wider, ...) | wider
        return op.ir.Attention(q, k, v, seen, scale=scale, cap=cap, guard=0, softmax_dtype=wide)

    def where(self, low: float, kept: float | None, zeros: Value | None, root: Value, ctx: Context) -> Reason:
        ordinary = zeros is None or fills(zeros) == Fill.ORDINARY
        if low != -math.inf or not ordinary or not abs(kept or 0.0) < 1e4:
            return f"the mask holds {low:g}, and others than ordinary numbers"
        bias = root.node.input(3)
        if bias is None or not bias.rank:
            return "the rank of the mask is not known, or it has none"
        return ("no-empty-rows" not in ctx.assume and not never_empty(bias)) or "no row is empty"

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, root: Value, scale: float, cap: float | None, wide: int | None
    ) -> Value:
        bias = root.node.input(3)
        assert bias is not None
        y = op.ir.Attention(q, k, v, bias, scale=scale, cap=cap or None, guard=1, softmax_dtype=wide or None)
        empty = op.Equal(op.ReduceMax(bias, axes=[-1], keepdims=1), op.const(-math.inf, like=bias))
        return op.Where(empty, op.const(math.nan, like=y), y)
