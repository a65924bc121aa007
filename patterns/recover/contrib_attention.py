from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.heads import merge_heads
from graphopt.patterns.recover.given_attention import (
    FILL,
    added,
    apart,
    causal_known,
    padding,
    padding_known,
    parts,
    scale_of,
    triangle,
)
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const, kernel, like

Rows = Annotated[Value, like(rank=3, dims=("B", "S", "H"))]
Matrix = Annotated[Value, const(rank=2, dims=("H", "W"))]
Vector = Annotated[Value, const(rank=1, dims=("W",))]


class AttentionFromPacked(Rule):
    """Projections and attention that an older tool wrote as one contrib operator.

    Why: each projection and the attention are seen, and the target says what is packed and by which kernel it runs.
    Before: com.microsoft.Attention(x, [Wq Wk Wv], [bq bk bv], padding, bias), unidirectional or not
    After: ir.Attention(x·Wq + bq, x·Wk + bk, x·Wv + bv, bias + (padding ? 0 : fill) + (j ≤ i ? 0 : −∞))
    Safety: the fill is the operator's own. No cache, no rotary embedding.
    """

    stage = "recover"
    needs = (kernel("com.microsoft", "MultiHeadAttention"), kernel("", "Attention"))

    def pattern(
        self,
        op: Ops,
        x: Rows,
        w: Matrix,
        b: Vector,
        given: Attrs,
        mask: Value | None = None,
        bias: Value | None = None,
    ) -> Expr:
        return op.ms.Attention(x, w, b, mask, None, bias, others=given)

    def where(self, x: Value, w: Value, given: Attrs, mask: Value | None, bias: Value | None) -> Reason:
        n, widths = given.get("num_heads"), _widths(w, given)
        if not n or any(width % n or not width for width in widths):
            return f"{n} heads do not divide {widths}"
        if given.get("do_rotary"):
            return "do_rotary is 1"
        if given.get("scale", 0.0) < 0:
            return f"the scale is {given['scale']}"
        known = padding_known(mask, x)
        return causal_known(given, mask, bias, x) if known is True else known

    def rewrite(
        self, op: Builder, x: Value, w: Value, b: Value, given: Attrs, mask: Value | None, bias: Value | None
    ) -> Value:
        n, widths = given["num_heads"], _widths(w, given)
        weights = [op.const(part, like=w, name="weight") for part in parts(w, widths)]
        biases = [op.const(part, like=b, name="bias") for part in parts(b, widths)]
        q, k, v = (op.Add(op.MatMul(x, weight), shift) for weight, shift in zip(weights, biases, strict=True))
        past = triangle(op, x, x, 1, x) if given.get("unidirectional") else None
        total = added(op, padding(op, mask, x, 1, given.get("mask_filter_value", FILL), x), bias, past)
        # A query may always see itself: the guard says that no row is −∞ throughout.
        attrs = {"scale": scale_of(q, n, given.get("scale")), "guard": int(past is not None and bias is None)}
        return merge_heads(op, op.ir.Attention(*(apart(op, y, n) for y in (q, k, v)), total, **attrs))


def _widths(w: Value, given: Attrs) -> list[int]:
    """How many columns of the weights are for queries, keys and values."""
    assert w.shape is not None
    columns = w.shape[1]
    assert isinstance(columns, int)
    return given.get("qkv_hidden_sizes") or [columns // 3] * 3
