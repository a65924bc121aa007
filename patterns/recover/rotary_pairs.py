from typing import Annotated, Any

from graphopt.ir import Value, dims
from graphopt.patterns.recover.rotary import HALVES, INTERLEAVED, can_turn, is_half, turn, whole_of
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Heads = Annotated[Value, like(rank=(3, 4))]
Table = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryEmbeddingFromPairs(Rule):
    """Rotary embedding written as two products of each part of the pairs.

    Why: ten passes over queries and keys become one.
    Before: (a·cos − b·sin, b·cos + a·sin) with x = (a, b), put together by Concat, or in turn by a stack and a view;
    by Concat other lanes may come first
    After: RotaryEmbedding(x, cos, sin), behind those lanes
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
        rest: Value | None = None,
    ) -> Expr:
        cut = op.Split(x, ..., axis=-1)
        return _turned(op, op.check(cut[0], is_half), cut[1], c, s, rest) | _turned(op, low, high, c, s, rest)

    def where(self, x: Attr, c: Value, s: Value, low: Attr, high: Attr, rest: Attr, root: Value) -> Reason:
        whole = _whole(x, low, high, root)
        if whole is None:
            return "the pairs are not cut from one value"
        if not c.shape or not s.shape or not whole.shape or c.shape[-1] != s.shape[-1]:
            return "the shape of a table is not known"
        if dims.mul(c.shape[-1], 2) != whole.shape[-1]:
            return f"tables of {c.shape[-1]} angles for {whole.shape[-1]} lanes"
        shape = root.shape if rest is None or not root.shape else (*root.shape[:-1], whole.shape[-1])
        return can_turn(whole, c, s, shape)

    def rewrite(
        self, op: Builder, x: Attr, c: Value, s: Value, low: Attr, high: Attr, rest: Attr, root: Value
    ) -> Value | None:
        whole = _whole(x, low, high, root)
        if whole is None:
            return None
        if low is not None and high is not None and whole_of(_pairs(root), low, high) is None:
            whole = op.Concat(low, high, axis=-1)
        y = turn(op, whole, c, s, _pairs(root))
        return y if rest is None else op.Concat(rest, y, axis=-1)


def _turned(op: Ops, a: Any, b: Any, c: Any, s: Any, rest: Any) -> Expr:
    first, second = op.sum(a * c, op.Neg(b * s)), op.sum(b * c, a * s)
    stack = op.Concat(op.Unsqueeze(first, axes=[-1]), op.Unsqueeze(second, axes=[-1]), axis=-1)
    halves = op.Concat(first, second, axis=-1) | op.Concat(rest, first, second, axis=-1)
    return halves | op.Reshape(stack, ...)


def _pairs(root: Value) -> int:
    return HALVES if root.node.op == "Concat" else INTERLEAVED


def _whole(x: Value | None, low: Value | None, high: Value | None, root: Value) -> Value | None:
    """What the pairs are cut from; parts in turn may be put together as halves."""
    pairs = _pairs(root)
    if low is None or high is None:
        return x if pairs == HALVES else None
    found = whole_of(pairs, low, high)
    return whole_of(INTERLEAVED, low, high) if found is None and pairs == HALVES else found
