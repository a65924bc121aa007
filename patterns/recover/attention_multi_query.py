from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.attention import AttentionFromParts, Floats
from graphopt.rewrite import Attr, Expr, Factor, Number, Ops, like

Query = Annotated[Value, like(rank=4, dtype=Floats, dims=("B", "N", "S", None))]
KeyTransposed = Annotated[Value, like(dims=("B", 1, None, "T"))]
Values = Annotated[Value, like(dims=("B", 1, None, None))]
Bias = Annotated[Value, like(into=("B", "N", "S", None))]


class AttentionMultiQuery(AttentionFromParts):
    """Attention whose query heads all read one head of keys and values, which the products broadcast.

    Why: as for attention where each head has keys of its own; one head of keys is also a cache of that size.
    Before: softmax(s·q·kᵀ + bias)·v with q of shape (B, N, S, D), k of shape (B, 1, T, D), v of shape (B, 1, T, E)
    After: ir.Attention(q, k, v, bias, scale=s, ...), with one head of keys and values
    Safety: keys and values are broadcast over the heads alone; everything else as AttentionFromParts has it.
    Source: Shazeer, Fast Transformer Decoding: One Write-Head is All You Need, 2019.
    """

    def pattern(
        self,
        op: Ops,
        q: Query,
        kt: KeyTransposed,
        v: Values,
        scale: Factor,
        bias: Bias | None = None,
        more: Bias | None = None,
        cap: Number | None = None,
        zero: Number | None = None,
        narrow: Attr = None,
    ) -> Expr:
        return super().pattern(op, q, kt, v, scale, bias, more, cap, zero, narrow)
