from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.heads import merge_heads
from graphopt.patterns.recover.given_attention import (
    FILL,
    added,
    apart,
    head_size,
    heads_known,
    masks_known,
    padding,
    parts,
    scale_of,
    triangle,
)
from graphopt.rewrite import Attrs, Builder, Expr, Maybe, Ops, Reason, Rule, all_of, const, kernel, like

Rows = Annotated[Value, like(rank=3)]
Vector = Annotated[Value, const(rank=1)]


class AttentionFromMultiHead(Rule):
    """Attention that an older tool, or an earlier run, wrote as a contrib operator.

    Why: what stands around it is seen, and the target chooses its kernel.
    Before: com.microsoft.MultiHeadAttention(q, k, v, [bq bk bv], padding, bias), unidirectional or not
    After: ir.Attention(q + bq, k + bk, v + bv, bias + (padding ? 0 : fill) + (j ≤ i ? 0 : −∞))
    Safety: the fill is the operator's own; a causal mask is so of as many queries as keys. No cache, no packed operand,
    and nobody reads the scores.
    """

    stage = "recover"
    needs = (kernel("com.microsoft", "MultiHeadAttention"), kernel("", "Attention"))

    def pattern(
        self,
        op: Ops,
        q: Rows,
        k: Value,
        v: Value,
        given: Attrs,
        b: Vector | None = None,
        mask: Value | None = None,
        bias: Value | None = None,
    ) -> Expr:
        return op.ms.MultiHeadAttention(q, k, v, b, mask, bias, others=given)

    def where(self, q: Value, k: Value, v: Value, given: Attrs, b: Maybe, mask: Maybe, bias: Maybe) -> Reason:
        n = given.get("num_heads")
        known = all_of(*(heads_known(x, n) for x in (q, k, v)))
        if known is not True or q.shape is None or k.shape is None:
            return known
        if k.rank != v.rank or (k.rank == 4 and (b is not None or k.shape[1] != n)):
            return "keys and values in another layout"
        if given.get("unidirectional") and (k.rank == 4 or q.shape[1] != k.shape[1]):
            return "a causal mask of queries and keys that are not as many"
        return masks_known(given, mask, bias, q)

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, given: Attrs, b: Maybe, mask: Maybe, bias: Maybe
    ) -> Value:
        n, operands = given["num_heads"], [q, k, v]
        past = triangle(op, q, k) if given.get("unidirectional") else None
        total = added(op, padding(op, mask, q, k, given.get("mask_filter_value", FILL)), bias, past)
        if b is not None:
            cut = parts(b, [n * head_size(x, n) for x in operands])
            operands = [op.Add(x, op.const(p, like=b)) for x, p in zip(operands, cut, strict=True)]
        # A query may always see itself: the guard says that no row is −∞ throughout.
        attrs = {"scale": scale_of(q, n, given.get("scale")), "guard": int(past is not None and bias is None)}
        return merge_heads(op, op.ir.Attention(*(apart(op, x, n) for x in operands), total, **attrs))
