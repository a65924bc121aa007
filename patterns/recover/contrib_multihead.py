from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.heads import merge_heads
from graphopt.patterns.recover.given_attention import (
    FILL,
    added,
    apart,
    causal_known,
    head_size,
    heads_known,
    padding,
    padding_known,
    parts,
    scale_of,
    triangle,
)
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const, kernel, like

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

    def where(
        self, q: Value, k: Value, v: Value, given: Attrs, b: Value | None, mask: Value | None, bias: Value | None
    ) -> Reason:
        n = given.get("num_heads")
        for x in (q, k, v):
            known = heads_known(x, n)
            if known is not True:
                return known
        assert k.shape is not None
        if k.rank != v.rank or (k.rank == 4 and (b is not None or k.shape[1] != n)):
            return "keys and values in another layout"
        if given.get("scale", 0.0) < 0:
            return f"the scale is {given['scale']}"
        if given.get("unidirectional") and (k.rank == 4 or (q.shape is not None and q.shape[1] != k.shape[1])):
            return "a causal mask of queries and keys that are not as many"
        known = padding_known(mask, q)
        return causal_known(given, mask, bias, q) if known is True else known

    def rewrite(
        self,
        op: Builder,
        q: Value,
        k: Value,
        v: Value,
        given: Attrs,
        b: Value | None,
        mask: Value | None,
        bias: Value | None,
    ) -> Value:
        n, operands = given["num_heads"], [q, k, v]
        past = triangle(op, q, k, 1, q) if given.get("unidirectional") else None
        total = added(op, padding(op, mask, k, -2, given.get("mask_filter_value", FILL), q), bias, past)
        if b is not None:
            cut = parts(b, [n * head_size(x, n) for x in operands])
            operands = [op.Add(x, op.const(p, like=b)) for x, p in zip(operands, cut, strict=True)]
        # A query may always see itself: the guard says that no row is −∞ throughout.
        attrs = {"scale": scale_of(q, n, given.get("scale")), "guard": int(past is not None and bias is None)}
        return merge_heads(op, op.ir.Attention(*(apart(op, x, n) for x in operands), total, **attrs))
