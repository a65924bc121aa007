from typing import Annotated, Any

from graphopt.ir import Value, dims
from graphopt.patterns.recover.rotary import HALVES, INTERLEAVED, can_turn, is_half, turn, whole_of
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, kernel, like

Heads = Annotated[Value, like(rank=(3, 4))]
Table = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryEmbeddingFromPairs(Rule):
    """Rotary embedding written as two products of each part of the pairs.

    Why: ten passes over queries and keys become one.
    Before: (a·cos − b·sin, b·cos + a·sin) with x = (a, b), put together by Concat, or in turn by a stack and a view
    After: RotaryEmbedding(x, cos, sin)
    Safety: that a and b are the lanes of x in this order is proved; where they are so in turn and become halves, they
    are put together first. All heads share the tables.
    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
    """

    stage = "recover"
    needs = (kernel("", "RotaryEmbedding"), kernel("com.microsoft", "RotaryEmbedding"))

    def pattern(
        self,
        op: Ops,
        c: Table,
        s: Table,
        x: Heads | None = None,
        low: Value | None = None,
        high: Value | None = None,
    ) -> Expr:
        cut = op.Split(x, ..., axis=-1)
        return _turned(op, op.check(cut[0], is_half), cut[1], c, s) | _turned(op, low, high, c, s)

    def where(self, x: Value | None, c: Value, s: Value, low: Value | None, high: Value | None, root: Value) -> Reason:
        whole = _whole(x, low, high, root)
        if whole is None:
            return "the pairs are not cut from one value"
        if not c.shape or not s.shape or not whole.shape or c.shape[-1] != s.shape[-1]:
            return "the shape of a table is not known"
        if dims.mul(c.shape[-1], 2) != whole.shape[-1]:
            return f"tables of {c.shape[-1]} angles for {whole.shape[-1]} lanes"
        return can_turn(whole, c, s, root)

    def rewrite(
        self, op: Builder, x: Value | None, c: Value, s: Value, low: Value | None, high: Value | None, root: Value
    ) -> Value | None:
        whole = _whole(x, low, high, root)
        if whole is None:
            return None
        if low is not None and high is not None and whole_of(_pairs(root), low, high) is None:
            whole = op.Concat(low, high, axis=-1)
        return turn(op, whole, c, s, _pairs(root))


def _turned(op: Ops, a: Any, b: Any, c: Any, s: Any) -> Expr:
    first, second = op.sum(a * c, op.Neg(b * s)), op.sum(b * c, a * s)
    stack = op.Concat(op.Unsqueeze(first, axes=[-1]), op.Unsqueeze(second, axes=[-1]), axis=-1)
    return op.Concat(first, second, axis=-1) | op.Reshape(stack, ...)


def _pairs(root: Value) -> int:
    return HALVES if root.node.op == "Concat" else INTERLEAVED


def _whole(x: Value | None, low: Value | None, high: Value | None, root: Value) -> Value | None:
    """What the pairs are cut from; parts in turn may be put together as halves."""
    pairs = _pairs(root)
    if low is None or high is None:
        return x if pairs == HALVES else None
    found = whole_of(pairs, low, high)
    return whole_of(INTERLEAVED, low, high) if found is None and pairs == HALVES else found
