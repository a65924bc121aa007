from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.patterns.lower.heads import mask_known, merge_heads, sizes_known, split_heads, whole_mask
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class AttentionToMultiHead(Rule):
    """The meaning `ir.Attention` as com.microsoft MultiHeadAttention.

    Why: a native kernel in every opset, and exact on fully masked rows whatever the fill.
    Before: ir.Attention(q, k, v, bias) with heads in their own dimension
    After: MultiHeadAttention on (B, S, N·D); the transposes around it cancel
    Safety: as many key heads as query heads; the last two dimensions of the bias are S and T. The kernel has no guard
    against rows of NaN: where a row may be −∞ throughout, the result is guarded instead, 0·v being 0.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MultiHeadAttention")
    priority = 20

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, guard: Attr, wide: Attr, bias: Value | None = None
    ) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard, softmax_dtype=wide)

    def where(self, q: Value, k: Value, v: Value, bias: Value | None) -> Reason:
        known = sizes_known(q, k, v)
        if known is not True or q.shape is None or k.shape is None:
            return known
        if q.dtype == dtypes.DOUBLE:
            return "the kernel takes no float64"
        return mask_known(bias, q, k) if q.shape[1] == k.shape[1] else "grouped heads"

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value, bias: Value | None, scale: float, guard: int) -> Value:
        assert q.shape is not None
        mask = None if bias is None else whole_mask(op, bias, q, k)
        flat = [merge_heads(op, x) for x in (q, k, v)]
        y = op.ms.MultiHeadAttention(*flat, None, None, mask, num_heads=q.shape[1], scale=scale)
        if guard and bias is not None and fills(bias) & (Fill.NEGATIVE_INFINITY | Fill.OTHER):
            y = op.Where(op.IsNaN(y), op.const(0.0, like=y), y)
        return split_heads(op, y, q, v)
