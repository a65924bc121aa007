from graphopt.ir import Value
from graphopt.patterns.lower.masks import whole_mask
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class AttentionToMultiHead(Rule):
    """The meaning `ir.Attention` as com.microsoft MultiHeadAttention.

    Why: a native kernel in every opset, and exact on fully masked rows whatever the fill.
    Before: ir.Attention(q, k, v, bias) with heads in their own dimension
    After: MultiHeadAttention on (B, S, N·D); the transposes around it cancel
    Safety: as many key heads as query heads; no guard; the last two dimensions of the bias are S and T.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MultiHeadAttention")
    priority = 20

    def pattern(self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, bias: Value | None = None) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=0)

    def where(self, q: Value, k: Value, v: Value, bias: Value | None) -> Reason:
        if q.shape is None or k.shape is None or v.shape is None:
            return "the shapes are not known"
        sizes = [n for shape in (q.shape, k.shape, v.shape) for n in (shape[1], shape[3])]
        if not all(isinstance(n, int) for n in sizes):
            return "heads or head size are not known numbers"
        return q.shape[1] == k.shape[1] or "grouped heads"

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value, bias: Value | None, scale: float) -> Value:
        assert q.shape is not None
        assert v.shape is not None
        batch, heads, rows, _ = q.shape
        flat = [_merge_heads(op, x) for x in (q, k, v)]
        if bias is not None:
            bias = whole_mask(op, bias, q, k)
        y = op.ms.MultiHeadAttention(*flat, None, None, bias, num_heads=heads, scale=scale)
        apart = op.reshape(y, (batch, rows, heads, v.shape[3]))
        return op.Transpose(apart, perm=[0, 2, 1, 3])


def _merge_heads(op: Builder, x: Value) -> Value:
    """(B, N, S, D) as (B, S, N·D)."""
    assert x.shape is not None
    batch, heads, rows, width = x.shape
    return op.reshape(op.Transpose(x, perm=[0, 2, 1, 3]), (batch, rows, int(str(heads)) * int(str(width))))
