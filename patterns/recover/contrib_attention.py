from typing import Annotated

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.patterns.recover.given_attention import masks_known, parts
from graphopt.rewrite import Attrs, Builder, Expr, Maybe, Ops, Reason, Rule, const, kernel, like, numbers_of

Rows = Annotated[Value, like(rank=3, dims=("B", "S", "H"))]
Matrix = Annotated[Value, const(rank=2, dims=("H", "W"))]
Vector = Annotated[Value, const(rank=1, dims=("W",))]

_SHARED = ("num_heads", "scale", "mask_filter_value", "unidirectional")
"""The attributes that mean the same for both operators. Others are about rotary embedding and a cache."""


class AttentionFromPacked(Rule):
    """Projections and attention that an older tool wrote as one contrib operator, apart.

    Why: each projection and the attention are seen, and the target says what is packed and by which kernel it runs.
    Before: com.microsoft.Attention(x, [Wq Wk Wv], [bq bk bv], padding, bias), unidirectional or not
    After: com.microsoft.MultiHeadAttention(x·Wq, x·Wk, x·Wv, [bq bk bv], padding, bias), which AttentionFromMultiHead
    takes on
    Safety: the two operators have the same masks and fills. No cache, no rotary embedding.
    """

    stage = "recover"
    needs = (kernel("com.microsoft", "MultiHeadAttention"), kernel("", "Attention"))

    def pattern(
        self, op: Ops, x: Rows, w: Matrix, b: Vector, given: Attrs, mask: Value | None = None, bias: Value | None = None
    ) -> Expr:
        return op.ms.Attention(x, w, b, mask, None, bias, others=given)

    def where(self, x: Value, w: Value, given: Attrs, mask: Maybe, bias: Maybe) -> Reason:
        n, widths = given.get("num_heads"), [part.shape[1] for part in _parts(w, given)]
        if not n or any(width % n or not width for width in widths):
            return f"{n} heads do not divide {widths}"
        return "do_rotary is 1" if given.get("do_rotary") else masks_known(given, mask, bias, x)

    def rewrite(self, op: Builder, x: Value, w: Value, b: Value, given: Attrs, mask: Maybe, bias: Maybe) -> Value:
        q, k, v = (op.MatMul(x, op.const(part, like=w, name="weight")) for part in _parts(w, given))
        attrs = {name: given.get(name) for name in _SHARED}
        return op.ms.MultiHeadAttention(q, k, v, b, mask, bias, **attrs)


def _parts(w: Value, given: Attrs) -> list[Array]:
    """The weights of queries, keys and values."""
    return parts(w, given.get("qkv_hidden_sizes") or [numbers_of(w).shape[1] // 3] * 3)
